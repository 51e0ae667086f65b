"""Write and read Zarr stores, and put them in place whole.

Nothing that varies between identical runs goes into a store: no time, host or commit.
"""

import json
import os
import shutil
import uuid
import zipfile
from collections.abc import Callable, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import zarr
from zarr.abc.buffer import Buffer
from zarr.codecs import BloscCodec, BloscShuffle, Crc32cCodec
from zarr.storage import MemoryStore

from atlas.cache.locks import beside, placed
from atlas.study import unedited
from atlas.study.errors import UserError

CHUNK_BYTES = 4096  # a row at least this large is a chunk of its own, read with one range request
SMALL_BYTES = 2**20  # of an array that is spelled in memory
SHARD_BYTES = 16 * 2**20  # larger shards make readers on S3 read far ahead
# Byte shuffle and zstd 3 pack smooth maps best at a bearable speed; without the checksum inside the shard a flipped
# byte would be read as data.
COMPRESSORS = [BloscCodec(cname="zstd", clevel=3, shuffle=BloscShuffle.shuffle), Crc32cCodec()]
# Pictures hardly pack: five times as fast, and of drawn ones a little smaller.
OF_PICTURES = [BloscCodec(cname="lz4", clevel=5, shuffle=BloscShuffle.bitshuffle), Crc32cCodec()]

# What zarr, zip and the codecs raise where bytes are missing or wrong.
UNREADABLE = (ValueError, KeyError, OSError, EOFError, RuntimeError, zipfile.BadZipFile)


class Streamed(NamedTuple):
    """An array that is not held: its shape and dtype, and what gives the rows from one position up to another."""

    shape: tuple[int, ...]
    dtype: Any
    rows: Callable[[int, int], np.ndarray]


def write(
    output: Path, groups: dict[str, dict[str, tuple[tuple[str, ...], np.ndarray | Streamed]]], attrs: dict
) -> None:
    """Write a store of arrays, by group and name, and put it in place by rename; streamed ones a shard at a time."""
    partial = beside(output)
    group_at(partial, attrs)
    for name, arrays in groups.items():
        group = group_at(partial / name, {}) if name else zarr.open_group(partial, mode="a")
        for array_name, (dims, values) in arrays.items():
            if isinstance(values, Streamed):
                begun = begin(group, array_name, values.shape, values.dtype, dims, {})
                size = (begun.shards or begun.chunks)[0]
                for start in range(0, values.shape[0], size):
                    stop = min(start + size, values.shape[0])
                    begun[start:stop] = values.rows(start, stop)
            else:
                array(group, array_name, np.asarray(values), dims, {})
    replace(partial, output)


def read(path: Path, what: str) -> zarr.Group:
    """Open a store, or a group in one, to read.

    Raises:
        UserError: it is missing or is no Zarr group; the message names it.
    """
    try:
        return zarr.open_group(path, mode="r")
    except UNREADABLE as error:
        raise UserError(f"{path}: {what} cannot be read ({type(error).__name__}: {error}); make it again") from None


def values(store: zarr.Group, name: str, rows: np.ndarray | slice = slice(None)) -> np.ndarray:
    """Read an array, or rows of it: a slice, or positions in any order.

    Raises:
        UserError: it is missing or damaged; the message names it.
    """
    try:
        if isinstance(rows, slice):
            return store[name][rows]
        steps, back = np.unique(rows, return_inverse=True)
        return take(store[name], steps)[back]
    except UNREADABLE as error:
        where = Path(store.store.root, store.path, name)
        raise UserError(f"{where}: cannot be read ({type(error).__name__}: {error}); make it again") from None


def take(array: zarr.Array, steps: np.ndarray) -> np.ndarray:
    """Read ascending steps of the first dimension and nothing beside them: a damaged neighbor spoils nothing."""
    if not len(steps):
        return array[:0]
    runs = np.split(steps, np.flatnonzero(np.diff(steps) > 1) + 1)
    return np.concatenate([array[int(run[0]) : int(run[-1]) + 1] for run in runs])


def array(
    group: zarr.Group,
    name: str,
    values: np.ndarray,
    dims: tuple[str, ...],
    attrs: Mapping[str, Any],
    *,
    lead: int = 1,
) -> None:
    """Write an array whole; a small one is spelled in memory, by one that is kept for all that are laid out alike."""
    if values.dtype.kind == "U":
        values = values.astype(np.dtypes.StringDType())
    if values.nbytes > SMALL_BYTES:
        begin(group, name, values.shape, values.dtype, dims, attrs, lead=lead)[...] = values
        return
    content = tuple(values.ravel().tolist()) if values.dtype.kind == "T" else values.tobytes()
    files = _files(content, values.shape, values.dtype, dims, json.dumps(dict(attrs)), lead)
    for file, data in files.items():
        target = Path(group.store.root, group.path, name, file)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(data)


def begin(
    group: zarr.Group,
    name: str,
    shape: tuple[int, ...],
    dtype: Any,
    dims: tuple[str, ...],
    attrs: Mapping[str, Any],
    *,
    lead: int = 1,
    shard: int | None = None,
    together: int = 1,
    compressors: list = COMPRESSORS,
) -> zarr.Array:
    """Begin an array: rows large enough to be read alone are chunks of their own, gathered in shards.

    Args:
        lead: How many leading dimensions count rows; what follows is one row.
        shard: Steps of the first dimension in a shard; at most 16 MB are.
        together: Rows of a chunk, where those of a shard are read in one go and are small.
        compressors: What chunks of numbers are packed with.
    """
    dtype = np.dtype(dtype)
    row = int(np.prod(shape[lead:], dtype=int)) * dtype.itemsize
    layout: dict[str, Any]
    if row >= CHUNK_BYTES:
        step = row * int(np.prod(shape[1:lead], dtype=int))
        # Not cut to the rows there are: more rows later leave full shards as they are.
        steps = max(1, min(shard or shape[0], SHARD_BYTES // step))
        together = min(together, steps)
        chunks = (together, *(1,) * (lead - 1), *shape[lead:])
        layout = {"chunks": chunks, "shards": (steps - steps % together, *shape[1:])}
    elif lead > 1:
        layout = {"chunks": (1, *shape[1:])}  # a file for each step: one more method is one more file
    else:
        layout = {"chunks": tuple(max(1, size) for size in shape)}
    return group.create_array(
        name,
        shape=shape,
        dtype=dtype,
        compressors="auto" if dtype.kind == "T" else compressors,
        fill_value="" if dtype.kind == "T" else fill(dtype),
        dimension_names=dims,
        attributes=dict(attrs),
        # Without this a row of NaN would not be stored, and would look like one that is missing.
        config={"write_empty_chunks": True},
        **layout,
    )


@lru_cache(32)
def _files(content: bytes | tuple[str, ...], shape: tuple[int, ...], dtype: np.dtype, *layout: Any) -> dict[str, bytes]:
    """Spell an array's files; many tables of a store have the same coordinates."""
    files, made = _draft(shape, dtype, *layout)
    made[...] = (np.array(content, dtype) if dtype.kind == "T" else np.frombuffer(content, dtype)).reshape(shape)
    return {name.removeprefix("array/"): data.to_bytes() for name, data in files.items()}


@lru_cache(64)
def _draft(
    shape: tuple[int, ...], dtype: np.dtype, dims: tuple[str, ...], attrs: str, lead: int
) -> tuple[dict[str, Buffer], zarr.Array]:
    """Begin an array in memory; give its files and itself."""
    files: dict[str, Buffer] = {}
    group = zarr.open_group(MemoryStore(files), mode="w")
    made = begin(group, "array", shape, dtype, dims, json.loads(attrs), lead=lead)
    del files["zarr.json"]  # the group's
    return files, made


def group_at(path: Path, attrs: Mapping[str, Any]) -> zarr.Group:
    """Begin a new group."""
    return zarr.open_group(path, mode="w", attributes=dict(attrs))


def copy_shard(source: zarr.Array, first: int, target: zarr.Array, at: int) -> bool:
    """Take a shard as a file, and say whether that could be: both arrays are laid out alike and hold as many rows."""
    if target.shards is None or _layout(source) != _layout(target):
        return False
    steps = target.shards[0]
    if first % steps or at % steps or min(steps, source.shape[0] - first) != min(steps, target.shape[0] - at):
        return False
    place = _shard_file(target, at // steps)
    place.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(_shard_file(source, first // steps), place)
    return True


def whole(array: zarr.Array) -> bool:
    """Return whether every chunk, or shard of chunks, of an array is there as a file."""
    sizes = array.shards or array.chunks
    due = int(np.prod([-(-length // size) for length, size in zip(array.shape, sizes, strict=True)], dtype=int))
    return len(_files_in(Path(array.store.root, array.path, "c"))) == due


def fill(dtype: Any) -> float | int:
    """Return what stands where there is no row."""
    return float("nan") if np.dtype(dtype).kind == "f" else 0


def place(source: Path, output: Path) -> None:
    """Put a folder in place by rename, as links to the files of another.

    Raises:
        UserError: somebody deleted files of it meanwhile, or what it was made by was edited.
    """
    partial = beside(output)
    shutil.copytree(source, partial, copy_function=_link)
    if _files_in(partial) != _files_in(source):
        raise UserError(f"{output}: files of it were deleted while it was put in place; nothing is lost: run again")
    replace(partial, output)


def replace(source: Path, target: Path) -> None:
    """Put a folder in place of another by rename.

    Raises:
        UserError: params.yaml or code was edited since it was read, so that the folder may not be what it says now.
    """
    unedited.check()
    target.parent.mkdir(parents=True, exist_ok=True)
    trash = target.with_name(f".{target.name}.{uuid.uuid4().hex}.partial")
    if target.exists():
        target.rename(trash)
    source.rename(target)
    placed(source)
    shutil.rmtree(trash, ignore_errors=True)


def _layout(array: zarr.Array) -> dict[str, Any]:
    """Spell what decides the bytes of a shard: all but the number of rows and what is said of them."""
    return {**array.metadata.to_dict(), "shape": array.shape[1:], "attributes": None}


def _shard_file(array: zarr.Array, index: int) -> Path:
    return Path(array.store.root, array.path, "c", str(index), *["0"] * (array.ndim - 1))


def _link(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:  # another disk
        shutil.copyfile(source, target)


def _files_in(folder: Path) -> set[str]:
    return {os.path.relpath(os.path.join(place, name), folder) for place, _, names in os.walk(folder) for name in names}
