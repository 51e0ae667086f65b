"""Fetch from the study's remote those files of recorded outputs that hold wanted rows, and no others: `--pull`.

A listing is kept in the scratch and not in DVC's cache, where it would suggest that the whole output is present. Files
go into DVC's cache under their digests, which are verified.
"""

import os
import uuid
from collections.abc import Iterable, Sequence
from hashlib import md5
from importlib import import_module
from pathlib import Path
from typing import Any

from atlas.study.errors import UserError

PULL = "ATLAS_PULL"  # in the environment, so that the processes of stages know it too
SIDE_BY_SIDE = 16  # parallel transfers


def pulling() -> bool:
    """Return whether rows are to be fetched from the remote."""
    return bool(os.environ.get(PULL))


def fetch(folder: Path, objects: Path, names: Iterable[str]) -> None:
    """Fetch files from the remote; files that it does not have are skipped.

    Args:
        folder: The study's folder; its repository's default remote is used.
        objects: Where to put the files, as `ab/cdef...`: DVC's cache, or a folder of the scratch.
        names: Their digests, as the remote names them: `abcdef...`, `abcdef....dir`.

    Raises:
        UserError: there is no remote, or it cannot be reached.
    """
    missing = sorted({name for name in names if not place(objects, name).exists()})
    if not missing:
        return
    repository = import_module("dvc.repo")  # imported by name, so that DVC's version is in no key
    error = import_module("dvc.exceptions").DvcException
    try:
        with repository.Repo(str(folder)) as repo:
            remote = repo.cloud.get_remote_odb(command="pull")
            sources = [remote.oid_to_path(name) for name in missing]
            there = remote.fs.exists(sources, batch_size=SIDE_BY_SIDE)
            found = [(name, source) for name, source, known in zip(missing, sources, there, strict=True) if known]
            _fetch(remote.fs, objects, found)
    except (error, OSError) as failure:
        raise UserError(f"--pull: the remote cannot be read ({' '.join(str(failure).split())})") from None


def place(objects: Path, name: str) -> Path:
    """Return the path of the file with a given digest."""
    return objects / name[:2] / name[2:]


def _fetch(files: Any, objects: Path, found: Sequence[tuple[str, str]]) -> None:
    partial = [place(objects, name).with_name(f".{name}.{uuid.uuid4().hex}.partial") for name, _ in found]
    for one in partial:
        one.parent.mkdir(parents=True, exist_ok=True)
    if found:
        files.get([source for _, source in found], [str(one) for one in partial], batch_size=SIDE_BY_SIDE)
    for (name, source), one in zip(found, partial, strict=True):
        if md5(one.read_bytes()).hexdigest() != name.removesuffix(".dir"):
            one.unlink()
            raise UserError(f"{source}: the remote's file is damaged: its bytes have another digest than its name says")
        one.chmod(0o444)  # as DVC keeps it
        one.rename(place(objects, name))
