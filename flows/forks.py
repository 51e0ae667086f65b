"""A process with the imports that stages' commands need; it runs each in a fork, which saves half a second.

A command imports this project's own modules itself, in their present state. Commands end with this process, and this
process with its client.
"""

import ctypes
import os
import runpy
import signal
import sys
from importlib import import_module
from multiprocessing.connection import Connection, wait

KEPT = 4096  # bytes kept of the end of a command's stderr
PR_SET_PDEATHSIG = 1
PROJECT = ("atlas", "stages", "flows")


def serve(channel: int, preload: list[str]) -> None:
    """Run commands, one after another, until the client is gone.

    The answer to each is its exit status (for a signal, its negative number), and the end of its stderr, which is also
    passed on as it is written.

    Args:
        channel: The file descriptor of a connection, which receives (module, arguments, folder, environment).
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
    """Pass on a command's stderr until it ends, and return the end of it; kill the command if the client is gone."""
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
    """Have the system kill this process when its parent is killed; works on Linux only."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def _run(module: str, arguments: list[str], folder: str, environment: dict[str, str]) -> None:
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    sys.path.insert(0, folder)
    # The command imports its own modules: this package, and the way modules are found, may have changed since.
    for name in [one for one in sys.modules if one.partition(".")[0] in PROJECT]:
        del sys.modules[name]
    sys.meta_path[:] = [one for one in sys.meta_path if getattr(one, "__module__", "") not in PROJECT]
    sys.argv[1:] = arguments
    runpy.run_module(module, run_name="__main__", alter_sys=True)
