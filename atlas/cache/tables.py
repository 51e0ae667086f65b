"""Tables of keyed rows, and what of a table does not depend on how it is laid out on disk."""

import hashlib
from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np

from atlas.cache.keys import SIZE
from atlas.cache.stores import CHUNK_BYTES, SHARD_BYTES

KEY = "key"


# Coordinates by name: their dimensions and labels.
Coords = dict[str, tuple[tuple[str, ...], np.ndarray]]


class Field(NamedTuple):
    """An array of a table: dimensions, shape and dtype of one row, and the array's attributes."""

    dims: tuple[str, ...]
    shape: tuple[int, ...]
    dtype: str
    attrs: Mapping[str, Any] = MappingProxyType({})


class Table(NamedTuple):
    """Rows of one kind: their name in the cell, their keys, their fields, their labels, and what is known of them.

    `keys` has the leading dimensions `dims`, then the bytes of a key; a key of zeros means that there is no such row.
    """

    name: str
    dims: tuple[str, ...]
    keys: np.ndarray
    fields: dict[str, Field]
    coords: Coords
    attrs: Mapping[str, Any] = MappingProxyType({})


def is_index(name: str) -> bool:
    """Return whether a file of an output is an index of its rows (keys, metadata) rather than row data."""
    parts = name.split("/")
    return parts[-1] == "zarr.json" or KEY in parts


def digests_of(fields: dict[str, np.ndarray], count: int) -> np.ndarray:
    """Digest each row over all its fields."""
    rows = np.empty((count, SIZE), "uint8")
    for i in range(count):
        total = hashlib.blake2b(digest_size=SIZE)
        for name in sorted(fields):
            row = np.ascontiguousarray(fields[name][i])
            total.update(f"{name} {row.dtype.str} {row.shape}".encode())
            total.update(row.tobytes())
        rows[i] = np.frombuffer(total.digest(), "uint8")
    return rows


def parts(positions: list[int] | range, table: Table, shard_rows: int) -> Iterator[list[int]]:
    """Split positions by the shard they belong to."""
    size = shard(table, shard_rows) * inner(table.keys.shape[:-1])
    split: dict[int, list[int]] = {}
    for i in positions:
        split.setdefault(i // size, []).append(i)
    yield from split.values()


def inner(lead: tuple[int, ...]) -> int:
    """Return the number of rows per index of the leading dimension."""
    return int(np.prod(lead[1:], dtype=int))


def shard(table: Table, shard_rows: int) -> int:
    """Return the number of leading indices per shard, common to all fields: as set, and at most 16 MB."""
    within = inner(table.keys.shape[:-1])
    largest = max(map(bytes_of, table.fields.values()))
    return max(1, min(shard_rows // max(1, within), SHARD_BYTES // max(1, largest * within)))


def small(fields: Mapping[str, Field]) -> bool:
    """Return whether rows are so small that they are not sharded, and a whole table fits in memory."""
    return sum(map(bytes_of, fields.values())) < CHUNK_BYTES


def bytes_of(field: Field) -> int:
    """Return the size of a row."""
    return int(np.prod(field.shape, dtype=int)) * np.dtype(field.dtype).itemsize
