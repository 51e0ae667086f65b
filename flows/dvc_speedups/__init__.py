"""Replacements of DVC's own functions that save time, and change nothing that DVC records.

`lock_by_stage` saves a third of a run that visits all cells of the default study and computes nothing
(benchmarks/RESULTS.md). What saves less than a tenth of a run is left to DVC.

They need functions of DVC that are not public. With another version of DVC than those in `KNOWN`, and where the
environment variable ATLAS_DVC_SPEEDUPS is 0, DVC's own functions are used.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
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
def speedups() -> Iterator[None]:
    """Speed DVC up inside the `with` block, if this version is known and the environment does not turn it off."""
    if _requested() and version("dvc") in KNOWN:
        from flows.dvc_speedups.lock_by_stage import lock_by_stage

        with lock_by_stage():
            yield
    else:
        yield


@contextmanager
def looking_once(study: Path, repo: "Repo") -> Iterator[None]:
    """Make DVC look at each path once inside the `with` block, where nothing may change, as `speedups` does."""
    if _requested() and version("dvc") in KNOWN:
        from flows.dvc_speedups.kept_lock import kept_lock
        from flows.dvc_speedups.look_once import look_once

        with kept_lock(study), look_once(repo):
            yield
    else:
        yield


def _requested() -> bool:
    return os.environ.get(VARIABLE) != "0"
