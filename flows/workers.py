"""Warm processes: some have torch imported and make rows, some have DVC imported and record cells.

Importing torch or DVC for each of some dozens of cells would cost more than a small study's work. A worker that makes
rows only fills the cell's journal; DVC then runs the cell, which finds them. DVC stays the only judge of what is done.
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
from typing import Any

from atlas.cache.remote import pulling
from atlas.study.errors import UserError
from atlas.study.peak import forget_peak
from flows.supervise import killer

# None of this project's own modules: a worker imports them when it begins, as they are then.
PRELOAD = ["torch", "torch.fx.experimental.optimization", "cv2", "zarr", "pydantic", "dvc.cli", "dvc.repo.reproduce"]


class Killed(Exception):
    """A process was killed: by hand, or because the memory was used up."""


class Workers:
    """Processes that work side by side, forked from one that has imported what they need.

    Each is a pool of its own, so that one that is killed takes nothing but its own work with it; another then stands
    in its place.

    Raises:
        UserError: there is to be none, and all work would wait for ever.
    """

    def __init__(self, count: int):
        if count < 1:
            raise UserError(f"workers: {count}; expected at least 1")
        # Where the environment is not activated, `python` of a stage's command must still be this one.
        os.environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        self._count = count
        self._idle: LifoQueue[ProcessPoolExecutor] = LifoQueue()
        for _ in range(count):
            self._idle.put(_process())

    def run(self, function: Callable, *given: Any) -> Any:
        """Call a function in a process that is idle, or when one is, and give what it returns.

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
    """Wait until the parent is gone, and end: a worker would wait for work for ever, a server for its client."""
    parent = parent_process()
    wait([parent.sentinel])
    if os.getpgrp() == parent.pid:  # the group of a run that stands by itself
        os.killpg(0, signal.SIGKILL)
    os._exit(1)


def compute_to_journal(study: str, verb: str, names: list[str]) -> float:
    """Make a cell's missing rows and leave them in its journal; give the seconds it took."""
    start = time.monotonic()
    os.chdir(study)  # as where DVC runs the cell: files that params.yaml names are relative to it
    forget_peak()
    try:
        importlib.import_module(f"stages.{verb}").main(Path(study), *names, finish=False)
    finally:
        _release()
    return time.monotonic() - start


def _release() -> None:
    """Let go of what a cell's functions remember, and return its memory: the next one's adds up with it else."""
    if "atlas.model.runtime" in sys.modules:
        batch_cache, runtime = (importlib.import_module(f"atlas.model.{name}") for name in ("batch_cache", "runtime"))
        batch_cache.forget()
        gc.collect()
        runtime.release_memory()


def record(study: str, cell: str) -> float:
    """Let DVC run one cell and record it in dvc.lock; give the seconds it took.

    Raises:
        UserError: the cell failed; the message is the last thing that its command said, or what DVC cannot do, or that
            params.yaml was edited meanwhile.
        Killed: the cell's command was killed.
    """
    from dvc.stage.exceptions import StageCmdFailedError

    from flows import commands, hashes, lock
    from flows.repository import causes, repository
    from flows.unedited import unedited

    start = time.monotonic()
    lock.patch()
    commands.patch()
    hashes.patch()
    os.chdir(study)
    try:
        with unedited(Path()), repository(Path(), wait=True) as repo:
            # For DVC a package that was installed past the lock of the environment has not changed.
            repo.stage_cache.pull = lambda remote: []  # rows say what is made already
            repo.reproduce(cell, single_item=True, force=cell == "versions", pull=pulling())
    except UserError as problem:
        failed = next((one for one in causes(problem) if isinstance(one, StageCmdFailedError)), None)
        if failed is None:
            raise
        raise _failure(failed) from None
    return time.monotonic() - start


def _failure(failed: Exception) -> Exception:
    """Return how a cell's command failed, with the last line of what it said."""
    status = getattr(failed, "status", None)
    if status is not None and status < 0:
        return Killed(f"its command was killed by {killer(-status)}")
    lines = [line.strip() for line in getattr(failed, "said", "").splitlines() if line.strip()]
    said = lines[-1].removeprefix("error: ") if lines else "its command said nothing"
    return UserError(said + ("" if status is None else f" (exit status {status})"))
