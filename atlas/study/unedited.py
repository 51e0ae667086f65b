"""Detect edits while a stage runs: what was read must be unchanged when an output is put in place.

DVC digests a cell's dependencies after its command has ended. If one of them was edited meanwhile, the output of the
old text would be recorded as that of the new text forever.
"""

import os
from collections.abc import Callable
from hashlib import blake2b
from pathlib import Path
from typing import NamedTuple

from atlas.importing import LOADED
from atlas.study.errors import Edited

HOUSE = Path(__file__).parents[1]


class Read(NamedTuple):
    """A file as it was read: its state on disk, and the digest of its meaning."""

    state: tuple[int, ...] | None
    digest: bytes
    meaning: Callable[[bytes], bytes]


READ: dict[Path, Read] = {}


def plain(content: bytes) -> bytes:
    """Digest a file in which every byte matters."""
    return blake2b(content).digest()


def read(file: Path, meaning: Callable[[bytes], bytes] = plain) -> bytes:
    """Read a file and record its state.

    Args:
        file: The file to read.
        meaning: Digests the part of the content that matters.

    Raises:
        OSError: it cannot be read.
    """
    state = _state(file)  # taken before reading, so that an edit in between is noticed
    content = file.read_bytes()
    READ[file.absolute()] = Read(state, meaning(content), meaning)
    return content


def read_sources() -> None:
    """Record the present state of every file of the project's code, including templates and tables."""
    for file in sorted(one for folder in (HOUSE, HOUSE.with_name("stages")) for one in folder.rglob("*")):
        if file.is_file() and "__pycache__" not in file.parts and file.absolute() not in READ:
            read(file)


def check() -> None:
    """Check that everything read, and all imported code, is unchanged.

    Raises:
        UserError: a file was edited, so that what was computed may not match its present text.
    """
    check_files(READ)
    for name, digest in [*LOADED.items()]:
        file = Path(name).absolute()
        as_read = READ.get(file)
        if as_read is None:
            state = _state(file)
            _compare(file, digest, plain)
            READ[file] = Read(state, digest, plain)
        elif as_read.digest != digest:
            raise _edited(file)


def check_files(read: dict[Path, Read]) -> None:
    """Check that files are unchanged since they were read, in this process or another.

    Raises:
        UserError: a file was edited.
    """
    for file, known in [*read.items()]:
        state = _state(file)
        if state != known.state:
            _compare(file, known.digest, known.meaning)
            read[file] = known._replace(state=state)  # touched, but with the same content


def meant(file: Path, meaning: Callable[[bytes], bytes]) -> bytes:
    """Digest a file's present meaning; empty if it cannot be read."""
    try:
        return meaning(file.read_bytes())
    except OSError:
        return b""


def _compare(file: Path, digest: bytes, meaning: Callable[[bytes], bytes]) -> None:
    if meant(file, meaning) != digest:
        raise _edited(file)


def _edited(file: Path) -> Edited:
    try:
        shown = file.absolute().relative_to(HOUSE.parent)
    except ValueError:
        shown = file
    return Edited(f"{shown} was edited while this was running; no row is lost: run again")


def _state(file: Path) -> tuple[int, ...] | None:
    """Return what changes with every edit; it includes the ctime, which cannot be set back."""
    try:
        stat = os.stat(file)
    except OSError:
        return None
    return stat.st_mtime_ns, stat.st_ctime_ns, stat.st_size, stat.st_ino
