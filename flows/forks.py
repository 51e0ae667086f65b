"""One process that has imported what the commands of stages need, and runs each in a fork: half a second saved by each.

A command imports this project's own modules itself, as they are then. It ends with this process, and this process with
the one that asks.
"""

import ctypes
import os
import runpy
import signal
import sys
from importlib import import_module
from multiprocessing.connection import Connection, wait

KEPT = 4096  # bytes of what a command said last on stderr
PR_SET_PDEATHSIG = 1
PROJECT = ("atlas", "stages", "flows")


def serve(channel: int, preload: list[str]) -> None:
    """Run what is asked for, one after another, until the one who asks is gone.

    The answer is each command's exit status, the negative of a signal's number, and the last of what it said on stderr,
    which is passed on as it comes.

    Args:
        channel: The file descriptor of a connection, which brings (module, arguments, folder, environment).
        preload: Modules to import first.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    for name in preload:
        import_module(name)
    with Connection(channel) as asked:
        while True:
            try:
                command = asked.recv()
            except EOFError:
                return
            heard, said = os.pipe()
            child = os.fork()
            if child == 0:
                os.dup2(said, 2)
                os.close(heard)
                os.close(said)
                _end_with_parent()
                signal.signal(signal.SIGINT, signal.default_int_handler)
                break
            os.close(said)
            last = _hear(heard, asked, child)
            os.close(heard)
            _, status = os.waitpid(child, 0)
            asked.send((os.waitstatus_to_exitcode(status), last.decode(errors="replace")))
    _run(*command)


def _hear(heard: int, asked: Connection, child: int) -> bytes:
    """Pass on what a command says until it ends, and give the last of it; kill it where the one who asked is gone."""
    last = b""
    while True:
        if heard not in wait([heard, asked]):
            os.kill(child, signal.SIGKILL)
            sys.exit(1)
        said = os.read(heard, 65536)
        if not said:
            return last
        os.write(2, said)
        last = (last + said)[-KEPT:]


def _end_with_parent() -> None:
    """Let the system kill this process when its parent is killed; only Linux can."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def _run(module: str, arguments: list[str], folder: str, environment: dict[str, str]) -> None:
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    sys.path.insert(0, folder)
    # The command imports its own: the packages that this module stands in, and how they find modules, may be others.
    for name in [one for one in sys.modules if one.partition(".")[0] in PROJECT]:
        del sys.modules[name]
    sys.meta_path[:] = [one for one in sys.meta_path if getattr(one, "__module__", "") not in PROJECT]
    sys.argv[1:] = arguments
    runpy.run_module(module, run_name="__main__", alter_sys=True)
