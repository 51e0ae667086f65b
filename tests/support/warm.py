"""`dvc`, whose stages run in forks of this process, which has imported what they need: run it in such a fork itself."""

import os
import runpy
import shlex
import signal
import sys
from multiprocessing import Pipe
from multiprocessing.connection import Connection


def main() -> None:
    """Run `dvc` with the arguments of this process."""
    ours, theirs = Pipe()
    if os.fork() == 0:
        ours.close()
        _serve(theirs)
        return
    theirs.close()
    from dvc.cli import main as dvc
    from dvc.stage import run
    from dvc.stage.exceptions import StageCmdFailedError

    as_dvc = run._run

    def forked(executable: str | None, command: str, **how) -> None:
        words = shlex.split(command)
        if words[:2] != ["python", "-m"]:
            return as_dvc(executable, command, **how)
        ours.send((words[2], words[3:], how["cwd"], how["env"]))
        if status := ours.recv():
            raise StageCmdFailedError(command, status)

    run._run = forked
    sys.exit(dvc(sys.argv[1:]))


def _serve(asked: Connection) -> None:
    """Run modules, one after another, each in a fork, until the one who asks is gone."""
    while True:
        try:
            module, arguments, folder, environment = asked.recv()
        except EOFError:
            sys.exit()
        child = os.fork()
        if child == 0:
            break
        _, status = os.waitpid(child, 0)
        asked.send(os.waitstatus_to_exitcode(status))
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    sys.path[0] = folder
    sys.argv[1:] = arguments
    runpy.run_module(module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
