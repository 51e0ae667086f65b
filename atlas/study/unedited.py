"""Notice what is edited while a stage runs: what was read must be unchanged when an output is put in place.

DVC digests a cell's dependencies after its command has ended. Had one of them been edited meanwhile, the output of the
old text would count as that of the new one for ever.
"""

import os
from collections.abc import Callable
from hashlib import blake2b
from pathlib import Path
from typing import NamedTuple

from atlas.importing import LOADED
from atlas.study.errors import UserError

HOUSE = Path(__file__).parents[1]


class Read(NamedTuple):
    """A file as it was read: its state on disk, and the digest of what it means."""

    state: tuple[int, ...] | None
    digest: bytes
    meaning: Callable[[bytes], bytes]


READ: dict[Path, Read] = {}


def plain(content: bytes) -> bytes:
    """Digest a file whose every byte counts."""
    return blake2b(content).digest()


def read(file: Path, meaning: Callable[[bytes], bytes] = plain) -> bytes:
    """Read a file and remember what it was.

    Args:
        file: Whose content.
        meaning: Digests what of the content counts.

    Raises:
        OSError: it cannot be read.
    """
    state = _state(file)  # before it is read: an edit in between shows as a change
    content = file.read_bytes()
    READ[file.absolute()] = Read(state, meaning(content), meaning)
    return content


def read_sources() -> None:
    """Remember every file of the project's code, templates and tables among them, as it is now."""
    for file in sorted(one for folder in (HOUSE, HOUSE.with_name("stages")) for one in folder.rglob("*")):
        if file.is_file() and "__pycache__" not in file.parts and file.absolute() not in READ:
            read(file)


def check() -> None:
    """Check that all that was read, and all code that was imported, is as it was.

    Raises:
        UserError: a file was edited, so that what was computed may not be what its text says now.
    """
    for file, known in [*READ.items()]:
        state = _state(file)
        if state != known.state:
            _compare(file, known.digest, known.meaning)
            READ[file] = known._replace(state=state)  # touched, and the same
    for name, digest in [*LOADED.items()]:
        file = Path(name).absolute()
        known = READ.get(file)
        if known is None:
            state = _state(file)
            _compare(file, digest, plain)
            READ[file] = Read(state, digest, plain)
        elif known.digest != digest:
            raise _edited(file)


def meant(file: Path, meaning: Callable[[bytes], bytes]) -> bytes:
    """Digest what a file means now; nothing where it cannot be read."""
    try:
        return meaning(file.read_bytes())
    except OSError:
        return b""


def _compare(file: Path, digest: bytes, meaning: Callable[[bytes], bytes]) -> None:
    if meant(file, meaning) != digest:
        raise _edited(file)


def _edited(file: Path) -> UserError:
    try:
        shown = file.absolute().relative_to(HOUSE.parent)
    except ValueError:
        shown = file
    return UserError(f"{shown} was edited while this was running; no row is lost: run again")


def _state(file: Path) -> tuple[int, ...] | None:
    """Return what changes with every edit: the time of the last change of the file's entry cannot be set back."""
    try:
        stat = os.stat(file)
    except OSError:
        return None
    return stat.st_mtime_ns, stat.st_ctime_ns, stat.st_size, stat.st_ino
