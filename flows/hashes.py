"""Make DVC walk the files of a cell's inputs once when it records the cell, not three times.

To file the run in its cache, DVC checks twice more whether every input has a hash, by walking all files again. It has
just saved these hashes; with thousands of input files, the checks took longer than the cell itself.
"""

from functools import partial

from dvc.stage import Stage
from dvc.stage.cache import StageCache

_as_dvc = StageCache.save


def patch() -> None:
    """Make DVC, in this process, file runs by the hashes that it has saved."""
    StageCache.save = _save


def _save(self: StageCache, stage: Stage) -> None:
    for dependency in stage.deps:
        dependency.get_hash = partial(getattr, dependency, "hash_info")
    try:
        _as_dvc(self, stage)
    finally:
        for dependency in stage.deps:
            del dependency.get_hash
