"""Write and read Zarr stores, and put them in place atomically.

A store holds nothing that varies between identical runs: no time, host or commit.
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

from atlas.cache.locks import placed, temporary_path
from atlas.study import unedited
from atlas.study.errors import UserError

CHUNK_BYTES = 4096  # rows at least this large get a chunk each, read with one range request
SMALL_BYTES = 2**20  # of an array that is encoded in memory, and of a chunk of many small rows
SHARD_BYTES = 16 * 2**20  # with larger shards, readers on S3 read far too much
# Byte shuffle and zstd 3 compress smooth maps best at an acceptable speed; without the checksum inside the shard, a
# flipped byte would be read as data.
COMPRESSORS = [BloscCodec(cname="zstd", clevel=3, shuffle=BloscShuffle.shuffle), Crc32cCodec()]
# Pictures hardly compress: this is five times as fast, and a little smaller for drawn pictures.
OF_PICTURES = [BloscCodec(cname="lz4", clevel=5, shuffle=BloscShuffle.bitshuffle), Crc32cCodec()]

# What zarr, zip and the codecs raise when bytes are missing or wrong.
UNREADABLE = (ValueError, KeyError, TypeError, OSError, EOFError, RuntimeError, zipfile.BadZipFile)


class Streamed(NamedTuple):
    """An array not held in memory: its shape and dtype, and a function that returns the rows from start to stop."""

    shape: tuple[int, ...]
    dtype: Any
    rows: Callable[[int, int], np.ndarray]


def write(
    output: Path, groups: dict[str, dict[str, tuple[tuple[str, ...], np.ndarray | Streamed]]], attrs: dict
) -> None:
    """Write a store of arrays, by group and name, and rename it into place; streamed ones shard by shard."""
    partial = temporary_path(output)
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
    """Open a store, or a group in one, for reading.

    Raises:
        UserError: it is missing or no Zarr group; the message names it.
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
            found: Any = array_of(store, name)[rows]
            return found
        steps, back = np.unique(rows, return_inverse=True)
        return take(array_of(store, name), steps)[back]
    except UNREADABLE as error:
        where = _folder(store, name)
        raise UserError(f"{where}: cannot be read ({type(error).__name__}: {error}); make it again") from None


def array_of(store: zarr.Group, name: str) -> zarr.Array:
    """Open an array of a store.

    Raises:
        KeyError: there is none of this name.
    """
    found = store[name]
    if not isinstance(found, zarr.Array):
        raise KeyError(f"{name} is a group")
    return found


def take(array: zarr.Array | np.ndarray, steps: np.ndarray, before: tuple[int | slice, ...] = ()) -> np.ndarray:
    """Read ascending indices of a dimension and nothing else: a damaged neighbor does no harm.

    Args:
        array: The array.
        steps: The indices.
        before: What to read of the dimensions before that one.
    """
    runs = np.split(steps, np.flatnonzero(np.diff(steps) > 1) + 1) if len(steps) else []
    parts = [slice(int(run[0]), int(run[-1]) + 1) for run in runs] or [slice(0)]
    found: list[Any] = [array[(*before, part)] for part in parts]
    return found[0] if len(found) == 1 else np.concatenate(found, sum(isinstance(one, slice) for one in before))


def array(
    group: zarr.Group,
    name: str,
    values: np.ndarray,
    dims: tuple[str, ...],
    attrs: Mapping[str, Any],
    *,
    lead: int = 1,
    shard: int | None = None,
    stacked: bool = False,
) -> None:
    """Write a whole array; small ones are encoded in memory, and reused for arrays of the same content and layout.

    The layout is that of `begin`.
    """
    if values.dtype.kind == "U":
        values = values.astype(np.dtypes.StringDType())
    if values.nbytes > SMALL_BYTES:
        begun = begin(group, name, values.shape, values.dtype, dims, attrs, lead=lead, shard=shard, stacked=stacked)
        begun[...] = values
        return
    content = tuple(values.ravel().tolist()) if values.dtype.kind == "T" else values.tobytes()
    files = _files(content, values.shape, values.dtype, dims, json.dumps(dict(attrs)), lead, shard, stacked)
    for file, data in files.items():
        target = _folder(group, name, file)
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
    stacked: bool = False,
    together: int = 1,
    compressors: list = COMPRESSORS,
) -> zarr.Array:
    """Create an array: rows large enough to be read alone are chunks of their own, gathered in shards.

    Args:
        lead: The number of leading dimensions that count rows; the remaining ones are one row.
        shard: Steps of the first dimension per shard; limited to 16 MB.
        stacked: Whether the first dimension is that of a stack, and `shard` is of the second. A shard has one index of
            the first, or as many as make 1 MB.
        together: Rows per chunk, for small rows of a shard that are read together.
        compressors: Codecs of the chunks.
    """
    dtype = np.dtype(dtype)
    row = int(np.prod(shape[lead:], dtype=int)) * dtype.itemsize
    layout: dict[str, Any]
    if row >= CHUNK_BYTES:
        step = row * int(np.prod(shape[1 + stacked : lead], dtype=int))
        # Not cut to the present number of rows: with more rows later, full shards stay as they are.
        steps = max(1, min(shard or shape[stacked], SHARD_BYTES // step))
        together = min(together, steps)
        chunks = (*(1,) * stacked, together, *(1,) * (lead - 1 - stacked), *shape[lead:])
        several = tables_per_shard(step * shape[1]) if stacked and steps >= shape[1] else 1
        if several > 1:
            # Written whole in any case: a shard lists all chunks that it has room for, sixteen bytes each.
            several, steps = max(1, min(several, shape[0])), max(1, shape[1])
        shards = (*(several,) * stacked, steps - steps % together, *shape[1 + stacked :])
        layout = {"chunks": chunks, "shards": shards}
    elif lead > 1:
        step = int(np.prod(shape[1:], dtype=int)) * dtype.itemsize
        chunk = (min(shape[0], SMALL_BYTES // max(1, step)), *shape[1:])
        layout = {"chunks": tuple(max(1, size) for size in chunk)}
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
        # Otherwise a row of NaN would not be stored, and would look like a missing one.
        config={"write_empty_chunks": True},
        **layout,
    )


def tables_per_shard(size: int) -> int:
    """Return how many tables of a stack a shard holds, if each is of so many bytes and in one shard."""
    return max(1, SMALL_BYTES // max(1, size))


@lru_cache(32)
def _files(content: bytes | tuple[str, ...], shape: tuple[int, ...], dtype: np.dtype, *layout: Any) -> dict[str, bytes]:
    """Encode an array's files in memory; many tables of a store have the same coordinates."""
    files, made = _draft(shape, dtype, *layout)
    flat = np.array(content, dtype) if isinstance(content, tuple) else np.frombuffer(content, dtype)
    made[...] = flat.reshape(shape)
    return {name.removeprefix("array/"): data.to_bytes() for name, data in files.items()}


@lru_cache(64)
def _draft(
    shape: tuple[int, ...],
    dtype: np.dtype,
    dims: tuple[str, ...],
    attrs: str,
    lead: int,
    shard: int | None,
    stacked: bool,
) -> tuple[dict[str, Buffer], zarr.Array]:
    """Create an array in memory; return its files and the array."""
    files: dict[str, Buffer] = {}
    group = zarr.open_group(MemoryStore(files), mode="w")
    made = begin(group, "array", shape, dtype, dims, json.loads(attrs), lead=lead, shard=shard, stacked=stacked)
    del files["zarr.json"]  # the group's
    return files, made


def group_at(path: Path, attrs: Mapping[str, Any]) -> zarr.Group:
    """Begin a new group."""
    return zarr.open_group(path, mode="w", attributes=dict(attrs))


def copy_shard(source: zarr.Array, at: tuple[int, ...], target: zarr.Array, to: tuple[int, ...]) -> bool:
    """Copy a shard as a file; return whether that was possible: both arrays need the same layout and as many rows.

    Args:
        source, target: The arrays.
        at, to: Where the shard begins: indices of the first dimensions, the last of which is that of the rows.
    """
    lead = len(to)
    if target.shards is None or len(at) != lead or _layout(source, lead) != _layout(target, lead):
        return False
    steps = target.shards[lead - 1]
    rows = (min(steps, one.shape[lead - 1] - place[-1]) for one, place in ((source, at), (target, to)))
    if at[-1] % steps or to[-1] % steps or len(set(rows)) > 1:
        return False
    file, place = _shard_file(source, at), _shard_file(target, to)
    if not file.exists():  # a link into a cache that lacks it: its rows are read as missing values, which they may be
        return False
    place.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(file, place)
    return True


def whole(array: zarr.Array) -> bool:
    """Return whether every chunk or shard of an array exists as a file."""
    sizes = array.shards or array.chunks
    expected = int(np.prod([-(-length // size) for length, size in zip(array.shape, sizes, strict=True)], dtype=int))
    return len(_files_in(_folder(array, "c"))) == expected


def fill(dtype: Any) -> float | int:
    """Return the fill value, which marks missing rows."""
    return float("nan") if np.dtype(dtype).kind == "f" else 0


def place(source: Path, output: Path) -> None:
    """Put a folder in place by rename, as links to the files of another folder.

    Raises:
        UserError: files of it were deleted meanwhile, or its code or params.yaml was edited.
    """
    partial = temporary_path(output)
    shutil.copytree(source, partial, copy_function=_link)
    if _files_in(partial) != _files_in(source):
        raise UserError(f"{output}: files of it were deleted while it was put in place; nothing is lost: run again")
    replace(partial, output)


def replace(source: Path, target: Path) -> None:
    """Rename a folder into the place of another.

    Raises:
        UserError: params.yaml or code was edited after it was read, so that the folder may not match it any more.
    """
    unedited.check()
    target.parent.mkdir(parents=True, exist_ok=True)
    trash = target.with_name(f".{target.name}.{uuid.uuid4().hex}.partial")
    if target.exists():
        target.rename(trash)
    source.rename(target)
    placed(source)
    shutil.rmtree(trash, ignore_errors=True)


def _layout(array: zarr.Array, lead: int) -> dict[str, Any]:
    """Return what determines the bytes of a shard: all metadata but the number of rows and the attributes."""
    return {**array.metadata.to_dict(), "shape": array.shape[lead:], "attributes": None}


def _shard_file(array: zarr.Array, place: tuple[int, ...]) -> Path:
    assert array.shards is not None
    parts = [one // size for one, size in zip(place, array.shards, strict=False)]
    return _folder(array, "c", *map(str, parts), *["0"] * (array.ndim - len(parts)))


def _folder(of: zarr.Group | zarr.Array, *parts: str) -> Path:
    """Return where a group or an array lies on disk, or a part of it."""
    store: Any = of.store
    return Path(store.root, of.path, *parts)


def _link(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:  # on another disk
        shutil.copyfile(source, target)


def _files_in(folder: Path) -> set[str]:
    return {os.path.relpath(os.path.join(place, name), folder) for place, _, names in os.walk(folder) for name in names}
