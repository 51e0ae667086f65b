"""Bring outputs from a remote: what `dvc pull` does, and nothing outside the outputs is written."""

from pathlib import Path

from flows.repository import repository


def pull(study: Path, targets: list[str]) -> dict[str, int]:
    """Fetch outputs that dvc.lock records, and lay them out; give how many files were fetched, added, changed, deleted.

    Args:
        study: The folder of params.yaml.
        targets: Stages, cells or outputs; all if there is none.

    Raises:
        Problem: a listing names a place outside its output, or there is no such target or remote.
        Failure: an output is neither in the cache nor in the remote; all others are here.
    """
    with repository(study, wait=True) as repo:
        return repo.pull(targets or None)["stats"]
