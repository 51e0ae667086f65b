"""Warm processes: some have torch imported and make cells, one has DVC imported and records them.

Importing torch or DVC for each of dozens of cells would cost more than a small study's work. A worker does what the
cell's command does; what it made is then recorded as `dvc commit` records it (`flows.recording`).
"""

import gc
import importlib
import os
import signal
import sys
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context, parent_process
from multiprocessing.connection import wait
from pathlib import Path
from queue import LifoQueue
from threading import Thread
from typing import Any, NamedTuple

from atlas.study import unedited
from atlas.study.errors import UserError
from atlas.study.peak import forget_peak
from atlas.study.study import Study

# None of this project's own modules: a worker imports them when it starts, in their present state.
PRELOAD = ["torch", "torch.fx.experimental.optimization", "cv2", "zarr", "pydantic", "dvc.cli", "dvc.repo.reproduce"]


class Killed(Exception):
    """A process was killed: by hand, or for lack of memory."""


class Workers:
    """Parallel processes, forked from one that has imported what they need.

    Each is a separate pool, so that a killed one loses nothing but its own work; it is replaced by another.

    Raises:
        UserError: `count` is below 1, so that all work would wait forever.
    """

    def __init__(self, count: int):
        if count < 1:
            raise UserError(f"workers: {count}; expected at least 1")
        # If the environment is not activated, `python` in a stage's command must still be this one.
        os.environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        self._count = count
        self._idle: LifoQueue[ProcessPoolExecutor] = LifoQueue()
        for _ in range(count):
            self._idle.put(_process())

    def run(self, function: Callable, *given: Any) -> Any:
        """Call a function in an idle process, waiting for one if needed, and return its result.

        Raises:
            Killed: the process was killed meanwhile.
        """
        process = self._idle.get()
        try:
            return process.submit(function, *given).result()
        except BrokenProcessPool:
            process.shutdown(wait=False)
            process = _process()
            raise Killed("its process was killed (out of memory?)") from None
        finally:
            self._idle.put(process)

    def __enter__(self) -> "Workers":
        return self

    def __exit__(self, *error: object) -> None:
        for _ in range(self._count):
            self._idle.get().shutdown()


def _process() -> ProcessPoolExecutor:
    context = get_context("forkserver")
    context.set_forkserver_preload(PRELOAD)
    return ProcessPoolExecutor(max_workers=1, mp_context=context, initializer=_begin)


def _begin() -> None:
    Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """Wait until the parent is gone, and end: otherwise a worker, or a server, would wait forever."""
    parent = parent_process()
    assert parent is not None
    wait([parent.sentinel])
    if os.getpgrp() == parent.pid:  # the run leads its own process group
        os.killpg(0, signal.SIGKILL)
    os._exit(1)


class Made(NamedTuple):
    """A cell whose output is in place.

    seconds: The time it took.
    command: The command that makes the same.
    read: The files of code and settings that the worker has read, as they were.
    output: The output.
    files: The state of each of its files.
    """

    seconds: float
    command: str
    read: dict[Path, unedited.Read]
    output: Path
    files: dict[Path, tuple[int, ...]]


def files_of(output: Path) -> dict[Path, tuple[int, ...]]:
    """Return what changes if a file of an output is replaced or written to: by file, its identity, size and time."""
    found: dict[Path, tuple[int, ...]] = {}
    for file in [output, *output.rglob("*")]:
        if file.is_file():
            stat = file.stat()
            found[file.relative_to(output)] = stat.st_ino, stat.st_size, stat.st_mtime_ns
    return found


def command(verb: str, names: list[str]) -> str:
    """Return the command of a cell that does what `make` does."""
    return " ".join(["python", "-m", f"stages.{verb}", *names])


def make(study: str, verb: str, names: list[str]) -> Made:
    """Make a cell as its command does: compute its missing rows, and put its output in place."""
    start = time.monotonic()
    os.chdir(study)  # as when DVC runs the cell: files in params.yaml are relative to it
    forget_peak()
    unedited.read_sources()
    stage = importlib.import_module(f"stages.{verb}")
    try:
        stage.main(Path(study), *names)
    finally:
        _release()
    output = Study(Path(study)).path(stage.STAGE.output, *names)
    return Made(time.monotonic() - start, command(verb, names), dict(unedited.READ), output, files_of(output))


def _release() -> None:
    """Clear what a cell's functions have cached, and return its memory, which would add up with the next cell's."""
    if "atlas.model.runtime" in sys.modules:
        batch_cache, runtime = (importlib.import_module(f"atlas.model.{name}") for name in ("batch_cache", "runtime"))
        batch_cache.forget()
        gc.collect()
        runtime.release_memory()
