"""Let DVC run the commands of stages, `python -m stages.VERB ...`, in forks of a process with the imports done."""

import atexit
import shlex
import signal
import subprocess
import sys
from functools import cache
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from typing import Any

from dvc.stage import run
from dvc.stage.exceptions import StageCmdFailedError

# What every command imports, except this project's own modules, which each command imports in their present state.
PRELOAD = ["argparse", "importlib.metadata", "pydantic.main", "symtable", "yaml", "zarr", "dvc.config"]

_as_dvc = run._run


class Failed(StageCmdFailedError):
    """A command failed: its exit status, and the last of its output on stderr."""

    def __init__(self, command: str, status: int, said: str):
        super().__init__(command, status)
        self.status, self.said = status, said


def patch() -> None:
    """Make DVC, in this process, run the commands of stages in forks."""
    run._run = _run


def _run(executable: str | None, command: str, **how: Any) -> None:
    match shlex.split(command):
        case ["python", "-m", module, *arguments] if module.startswith("stages."):
            pass
        case _:
            return _as_dvc(executable, command, **how)
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)  # left to the command, as when DVC runs it itself
    try:
        server = _server()
        server.send((module, arguments, how["cwd"], how["env"]))
        status, said = server.recv()
    except (EOFError, OSError):  # the server was killed; the command ends with it
        _server.cache_clear()
        status, said = -signal.SIGKILL, ""
    finally:
        signal.signal(signal.SIGINT, before)
    if status != 0:
        raise Failed(command, status, said)


@cache
def _server() -> Connection:
    ours, theirs = Pipe()
    code = f"import sys; sys.path[:] = {sys.path!r}; from flows.forks import serve; serve({theirs.fileno()}, {PRELOAD})"
    process = subprocess.Popen([sys.executable, "-c", code], pass_fds=[theirs.fileno()])
    theirs.close()
    atexit.register(_end, process, ours)
    return ours


def _end(process: subprocess.Popen, server: Connection) -> None:
    server.close()
    process.wait()
