"""Warm processes: some have torch imported and make rows, some have DVC imported and record cells.

Importing torch or DVC for each of some dozens of cells would cost more than a small study's work. A worker that makes
rows only fills the cell's journal; DVC then runs the cell, which finds them. DVC stays the only judge of what is done.
"""

import importlib
import os
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

# None of this project's own modules: a worker imports them when it begins, as they are then.
PRELOAD = ["torch", "torch.fx.experimental.optimization", "cv2", "zarr", "pydantic", "dvc.cli", "dvc.repo.reproduce"]


def pool(workers: int) -> ProcessPoolExecutor:
    """Start a pool whose processes are forked from one that has imported what they need."""
    context = get_context("forkserver")
    context.set_forkserver_preload(PRELOAD)
    # Where the environment is not activated, `python` of a stage's command must still be this one.
    os.environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return ProcessPoolExecutor(max_workers=workers, mp_context=context)


def fill(study: str, verb: str, names: list[str]) -> float:
    """Make a cell's missing rows and leave them in its journal; give the seconds it took."""
    start = time.monotonic()
    importlib.import_module(f"stages.{verb}").fill(Path(study), *names)
    return time.monotonic() - start


def record(study: str, cell: str) -> float:
    """Let DVC run one cell and record it in dvc.lock; give the seconds it took.

    Raises:
        RuntimeError: the cell failed; what it said stands on stderr.
    """
    from dvc.cli import main

    from flows import commands, hashes, lock

    start = time.monotonic()
    lock.quicken()
    commands.quicken()
    hashes.quicken()
    os.chdir(study)
    if main(["--wait-for-lock", "repro", "--quiet", "--single-item", cell]) != 0:
        raise RuntimeError(f"the cell {cell} failed")
    return time.monotonic() - start
