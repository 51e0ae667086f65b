"""Bring from the study's remote the files of recorded outputs that hold wanted rows, and no others: `--pull`.

A listing is kept in the scratch, not in DVC's cache: there it would say that the whole output is here. Files go into
DVC's cache, under their digests, which they are checked against.
"""

import os
import uuid
from collections.abc import Iterable, Sequence
from hashlib import md5
from importlib import import_module
from pathlib import Path

from atlas.study.errors import UserError

PULL = "ATLAS_PULL"  # in the environment, so that the processes of stages know it too
SIDE_BY_SIDE = 16  # files that are brought at once


def pulling() -> bool:
    """Return whether rows are to be brought from the remote."""
    return bool(os.environ.get(PULL))


def bring(study: Path, kept: Path, names: Iterable[str]) -> None:
    """Bring files from the remote; those that it does not have are not brought.

    Args:
        study: Whose remote: the default one of its repository of DVC.
        kept: Where they are put, as `ab/cdef...`: DVC's cache, or a folder of the scratch.
        names: Digests, by which the remote knows them: `abcdef...`, `abcdef....dir`.

    Raises:
        UserError: there is no remote, or it cannot be reached.
    """
    missing = sorted({name for name in names if not place(kept, name).exists()})
    if not missing:
        return
    repository = import_module("dvc.repo")  # by name: what its version is makes no stage's output stale
    error = import_module("dvc.exceptions").DvcException
    try:
        with repository.Repo(str(study)) as repo:
            remote = repo.cloud.get_remote_odb(command="pull")
            sources = [remote.oid_to_path(name) for name in missing]
            there = remote.fs.exists(sources, batch_size=SIDE_BY_SIDE)
            found = [(name, source) for name, source, known in zip(missing, sources, there, strict=True) if known]
            _fetch(remote.fs, kept, found)
    except (error, OSError) as failure:
        raise UserError(f"--pull: the remote cannot be read ({' '.join(str(failure).split())})") from None


def place(kept: Path, name: str) -> Path:
    """Return where a file of a digest is kept."""
    return kept / name[:2] / name[2:]


def _fetch(files: object, kept: Path, found: Sequence[tuple[str, str]]) -> None:
    partial = [place(kept, name).with_name(f".{name}.{uuid.uuid4().hex}.partial") for name, _ in found]
    for one in partial:
        one.parent.mkdir(parents=True, exist_ok=True)
    if found:
        files.get([source for _, source in found], [str(one) for one in partial], batch_size=SIDE_BY_SIDE)
    for (name, source), one in zip(found, partial, strict=True):
        if md5(one.read_bytes()).hexdigest() != name.removesuffix(".dir"):
            one.unlink()
            raise UserError(f"{source}: the remote's file is damaged: its bytes have another digest than its name says")
        one.chmod(0o444)  # as DVC keeps it
        one.rename(place(kept, name))
