"""Replacements of DVC's own functions that save time, and change nothing that DVC records.

`lock_by_stage` and `look_once` save, of a run with nothing to do, half its time in the default study, and eight ninths
of it in one with 544 cells (benchmarks/RESULTS.md). What saves less than a tenth of a run is left to DVC.

They need functions of DVC that are not public. With another version of DVC than those in `KNOWN`, and where the
environment variable ATLAS_DVC_SPEEDUPS is 0, DVC's own functions are used.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dvc.repo import Repo

KNOWN = ("3.67.1",)  # versions of DVC with which the tests of this package have passed
VARIABLE = "ATLAS_DVC_SPEEDUPS"


def unknown_version() -> str | None:
    """Return why the speedups are off by themselves, in one line; None if they are not, or off on request."""
    installed = version("dvc")
    if not _requested() or installed in KNOWN:
        return None
    return f"DVC {installed} is used without the speedups of flows/dvc_speedups, which know {', '.join(KNOWN)}"


@contextmanager
def speedups(study: Path) -> Iterator[None]:
    """Speed DVC up inside the `with` block, if this version is known and the environment does not turn it off."""
    if _usable():
        from flows.dvc_speedups.lock_by_stage import lock_by_stage

        with lock_by_stage(study):
            yield
    else:
        yield


@contextmanager
def looking_once(repo: "Repo", *, together: bool = False) -> Iterator[None]:
    """Make DVC look at each path once inside the `with` block, where nothing may change, if it is sped up at all.

    Args:
        repo: The repository.
        together: Whether all stages are read and nothing is recorded: what they read is then locked together.
    """
    if _usable():
        from flows.dvc_speedups.look_once import lock_together, look_once

        with look_once(repo), lock_together(repo) if together else nullcontext():
            yield
    else:
        yield


def _usable() -> bool:
    return _requested() and version("dvc") in KNOWN


def _requested() -> bool:
    return os.environ.get(VARIABLE) != "0"
