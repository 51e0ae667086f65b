"""`dvc`, whose stages run in forks of one process, which has imported what they need: run it in such a fork itself.

Before the first stage that process also reads the code that most stages' keys hold, which nobody edits meanwhile.
"""

import gc
import os
import runpy
import shlex
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from importlib import import_module
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path

FASTER = "--faster"
# Of the project, what stages import.
PRELOAD = ("inputs.cell_runner", "inputs.audit.building", "inputs.explain", "model.loading", "cache.keys")


def main() -> None:
    """Run `dvc` with the arguments of this process."""
    ours, theirs = Pipe()
    server = os.fork()
    if server == 0:
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
    faster = FASTER in sys.argv
    with _faster() if faster else nullcontext():
        status = dvc([word for word in sys.argv[1:] if word != FASTER])
    ours.close()
    os.waitpid(server, 0)
    sys.exit(status)


@contextmanager
def _faster() -> Iterator[None]:
    """Have DVC read and write its lock as the flow does, and digest each file and folder of the code once."""
    from dvc.output import Output

    from flows.dvc_speedups import speedups

    build, known = Output._build, {}
    code = tuple(f"{Path(name).absolute()}" for name in ("atlas", "stages"))

    def once(self, odb, path, *given, **how):
        if not (self.IS_DEPENDENCY and path.startswith(code)):
            return build(self, odb, path, *given, **how)
        which = path, how.get("dry_run")
        if which not in known:
            known[which] = build(self, odb, path, *given, **how)
        return known[which]

    Output._build = once
    try:
        with speedups(Path()):
            yield
    finally:
        Output._build = build


def _serve(asked: Connection) -> None:
    """Run modules, one after another, each in a fork, until the one who asks is gone."""
    begun = False
    while True:
        try:
            module, arguments, folder, environment = asked.recv()
        except EOFError:
            sys.exit()
        if not begun:
            with suppress(Exception):  # a stage says what is wrong
                _begin(folder)
            begun = True
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


def _begin(folder: str) -> None:
    """Import the project's modules, and digest the code of classifiers, methods and metrics, which they remember."""
    os.chdir(folder)
    sys.path[0] = folder
    keys = [import_module(f"atlas.{name}") for name in PRELOAD][-1]
    import yaml

    with open("params.yaml") as file:
        params = yaml.safe_load(file)
    tensors = ("atlas.inputs.row_inputs", "tensors")
    networks = [entry["network"] for entry in params["classifiers"].values()]
    named = {(f"networks.{entry['family']}", entry.get("function")) for entry in networks}
    for kind in ("methods", "metrics"):
        for family, entries in params[kind].items():
            named |= {(f"{kind}.{family}", entry.get("function", name)) for name, entry in entries.items()}
    for module, name in named:
        keys.code((f"atlas.{module}", name), tensors, *keys.NETWORK)
    gc.collect()
    gc.freeze()


if __name__ == "__main__":
    main()
