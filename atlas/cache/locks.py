"""Lock a study's scratch files: no process deletes what another living process is making.

A lock is held by an open file and ends with its process, however that ends.
"""

import fcntl
import os
import shutil
import uuid
from pathlib import Path

PARTIAL = ".partial"
LOCK = f".lock{PARTIAL}"


def take(file: Path, *, wait: bool = True) -> int:
    """Lock a file, creating it if needed, and return its descriptor; closing it releases the lock.

    Raises:
        BlockingIOError: another process holds the lock, and `wait` is False.
    """
    while True:
        file.parent.mkdir(parents=True, exist_ok=True)
        try:
            descriptor = os.open(file, os.O_RDWR | os.O_CREAT, 0o666)
        except FileNotFoundError:
            continue  # its folder was deleted just now
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
            there = file.exists() and os.path.samestat(file.stat(), os.fstat(descriptor))
        except BaseException:
            os.close(descriptor)
            raise
        if there:
            return descriptor
        os.close(descriptor)  # the file was deleted while this process waited for it


def temporary_path(output: Path) -> Path:
    """Return a temporary path beside an output; it belongs to this process until it is put in place or dropped."""
    partial = output.with_name(f".{output.name}.{uuid.uuid4().hex}{PARTIAL}")
    take(_lock(partial))  # held until this process ends
    return partial


def placed(partial: Path) -> None:
    """Forget a temporary path that was renamed to its output."""
    _lock(partial).unlink(missing_ok=True)


def drop(partial: Path) -> None:
    """Delete a temporary path and its content."""
    shutil.rmtree(partial, ignore_errors=True)
    placed(partial)


def delete(partial: Path) -> bool:
    """Delete a temporary path, or its lock, unless a living process holds it; return whether it was deleted."""
    lock = partial if partial.name.endswith(LOCK) else _lock(partial)
    if not lock.exists():
        _remove(partial)
        return True
    return _delete_with(lock, [lock.with_name(lock.name.removesuffix(LOCK) + PARTIAL), lock])


def delete_scratch(cell: Path) -> bool:
    """Delete a cell's scratch unless a living process works on the cell; return whether it was deleted."""
    return _delete_with(cell / "lock", [cell])


def _delete_with(lock: Path, places: list[Path]) -> bool:
    try:
        descriptor = take(lock, wait=False)
    except BlockingIOError:
        return False
    for place in places:
        _remove(place)
    os.close(descriptor)
    return True


def _remove(place: Path) -> None:
    if place.is_dir() and not place.is_symlink():
        shutil.rmtree(place, ignore_errors=True)
    else:
        place.unlink(missing_ok=True)


def _lock(partial: Path) -> Path:
    return partial.with_name(partial.name.removesuffix(PARTIAL) + LOCK)
