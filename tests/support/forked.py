"""Commands of Python in forks of one process that has imported the packages they need: seconds saved by each.

A command is otherwise what it is by itself: it has its own folder, environment, arguments, output and exit status, and
imports this project's own modules as they are on its own path.
"""

import atexit
import ctypes
import gc
import os
import runpy
import signal
import subprocess
import sys
import tempfile
import threading
import types
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import cache
from importlib import import_module
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path
from typing import NamedTuple, NoReturn

BIN = Path(sys.executable).parent
SCRIPTS = ("atlas", "dvc")
# Of packages, what commands import: none of this project's own modules.
PRELOAD = [
    *["argparse", "importlib.metadata", "symtable", "yaml", "pydantic.main", "typer", "rich.console", "rich.table"],
    *["dvc.cli", "dvc.cli.parser", "dvc.commands.repro", "dvc.config", "dvc.repo", "dvc.repo.reproduce"],
    *["dvc.stage.cache", "dvc.dependency.base", "dvc.output", "dvc.fs", "dvc_data.index", "dvc_objects.db"],
    *["numpy", "scipy.stats", "pandas", "pyarrow", "zarr", "xarray", "safetensors", "cv2"],
    *["torch", "torch.fx.experimental.optimization", "torch.nn.functional", "safetensors.torch"],
    *["statistics", "packaging.requirements", "pydantic.types", "jaxtyping", "platformdirs", "configobj", "dvc.dirs"],
    *["dask.config", "dask.array", "pyarrow.parquet", "jinja2", "PIL.Image", "matplotlib.figure"],
]
PR_SET_PDEATHSIG = 1


class Running(NamedTuple):
    """A command in a fork, of which there is one at a time."""

    number: int
    server: Connection

    def kill(self) -> None:
        """Kill it, which `wait` then tells."""
        os.kill(self.number, signal.SIGKILL)

    def ended(self) -> bool:
        """Return whether it has ended by itself or by a signal."""
        return self.server.poll()

    def wait(self, timeout: float | None = None) -> int:
        """Return its exit status, the negative of a signal's number where one ended it.

        Raises:
            subprocess.TimeoutExpired: it did not end within the time, in seconds, and was killed.
        """
        late = not self.server.poll(timeout)
        if late:
            self.kill()
        status = self.server.recv()
        if late:
            raise subprocess.TimeoutExpired(str(self.number), timeout)
        return status


def start(
    command: Sequence[object], folder: Path, environment: dict[str, str], stdout: object, stderr: object
) -> Running:
    """Begin a command of Python in a fork, which says what it says into files."""
    server = _server()
    server.send(([str(word) for word in command], str(folder), environment, [str(stdout), str(stderr)]))
    return Running(server.recv(), server)


def call(
    command: Sequence[object], folder: Path, environment: dict[str, str], timeout: float | None = None
) -> subprocess.CompletedProcess:
    """Run a command, in a fork where it is one of Python's, and give its status and what it said.

    Raises:
        subprocess.TimeoutExpired: it did not end within the time, in seconds, and was killed.
    """
    words = [str(word) for word in command]
    if not _forked(words):
        return subprocess.run(
            words, cwd=folder, env=environment, capture_output=True, text=True, check=False, timeout=timeout
        )
    with tempfile.TemporaryDirectory() as place:
        files = [Path(place, name) for name in ("stdout", "stderr")]
        status = start(words, folder, environment, *files).wait(timeout)
        return subprocess.CompletedProcess(words, status, *(file.read_text() for file in files))


def _forked(words: list[str]) -> bool:
    """Return whether a command is run in a fork: those that start processes of their own for long are not."""
    if words[0] in SCRIPTS:
        return words[1] not in ("reproduce", "serve")
    return words[0] == sys.executable and (words[1] in ("-m", "-c") or words[1].endswith(".py"))


@cache
def _server() -> Connection:
    ours, theirs = Pipe()
    # Not to be told apart from a process that was started by itself, but for what it has imported.
    known = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    command = [sys.executable, __file__, str(theirs.fileno())]
    process = subprocess.Popen(command, env=known, stdin=subprocess.DEVNULL, pass_fds=[theirs.fileno()])
    theirs.close()
    atexit.register(_end, process, ours)
    return ours


def _end(process: subprocess.Popen, server: Connection) -> None:
    with suppress(OSError), server:
        server.send(None)
    process.wait()


def serve(channel: int) -> None:
    """Run what is asked for, one after another, until the one who asks is gone; a command runs when this returns."""
    for name in PRELOAD:
        import_module(name)
    gc.collect()
    gc.freeze()  # else each command's first collections look at all of it
    with Connection(channel) as asked:
        while True:
            try:
                command = asked.recv()
            except EOFError:
                sys.exit()
            if command is None:  # a process of a test's may still hold the other end: it does not close
                sys.exit()
            child = os.fork()
            if child == 0:
                break
            asked.send(child)
            _, status = os.waitpid(child, 0)
            asked.send(os.waitstatus_to_exitcode(status))
    words, folder, environment, files = command
    end_after(_run_command, words, folder, environment, files)


def end_after(run: Callable, *given: object) -> NoReturn:
    """Run what a process is for and end it as Python does, but for taking apart what has been imported: half a second.

    All of that lies in memory that is shared with other processes until it is written to.
    """
    status = 0
    try:
        run(*given)
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else int(end.code is not None)
        if end.code is not None and not isinstance(end.code, int):
            print(end.code, file=sys.stderr)
    except Exception:
        sys.excepthook(*sys.exc_info())
        status = 1
    threading._shutdown()
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):  # nobody reads it any more, or it is closed
            stream.flush()
    os._exit(status & 0xFF)


def _run_command(words: list[str], folder: str, environment: dict[str, str], files: list[str]) -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    for number, file in enumerate(files, start=1):
        opened = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(opened, number)
        os.close(opened)
    _run(words, folder, environment)


def _run(words: list[str], folder: str, environment: dict[str, str]) -> None:
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    script = BIN / words[0] if words[0] in SCRIPTS else Path(words[1])
    first = {"-m": folder, "-c": ""}.get(words[1], str(script.parent.resolve()))
    sys.path[:] = [first, *filter(None, environment.get("PYTHONPATH", "").split(os.pathsep)), *sys.path[1:]]
    if words[1] == "-m":
        sys.argv[:] = words[2:]
        runpy.run_module(words[2], run_name="__main__", alter_sys=True)
    elif words[1] == "-c":
        sys.argv[:] = ["-c", *words[3:]]
        sys.modules["__main__"] = module = types.ModuleType("__main__")
        exec(compile(words[2], "<string>", "exec"), module.__dict__)
    else:
        sys.argv[:] = [str(script), *words[1 if words[0] in SCRIPTS else 2 :]]
        runpy.run_path(str(script), run_name="__main__")


if __name__ == "__main__":
    serve(int(sys.argv[1]))
