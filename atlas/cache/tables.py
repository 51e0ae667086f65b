"""Tables of keyed rows as they are laid out on disk, and the memos in which a row is found by its key.

A row found under its key can be reused, wherever it was kept: in a journaled batch, or in an output of this cell.
"""

import hashlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
import zarr

from atlas.cache.keys import SIZE
from atlas.cache.stores import CHUNK_BYTES, SHARD_BYTES, SMALL_BYTES, UNREADABLE, read, take, values, whole
from atlas.study.errors import UserError

DIGEST = "digest"
KEY = "key"
BATCH = ".npz"


# Coordinates by name: their dimensions and labels.
Coords = dict[str, tuple[tuple[str, ...], np.ndarray]]


class Field(NamedTuple):
    """An array of a table: dimensions, shape and dtype of one row, and the array's attributes."""

    dims: tuple[str, ...]
    shape: tuple[int, ...]
    dtype: str
    attrs: Mapping[str, Any] = MappingProxyType({})


class Table(NamedTuple):
    """Rows of one kind: their group in the output, their keys, their fields, and their coordinates.

    `keys` has the leading dimensions `dims`, then the bytes of a key; a key of zeros means that there is no such row.
    """

    group: str
    dims: tuple[str, ...]
    keys: np.ndarray
    fields: dict[str, Field]
    coords: Coords
    attrs: Mapping[str, Any] = MappingProxyType({})


class Memos:
    """Rows by key, in journaled batches and in whole outputs; a file that cannot be read contributes none.

    What was added last is searched first.
    """

    def __init__(self) -> None:
        self.refused: dict[str, str] = {}  # why a function cannot serve a classifier, by key
        self._index: dict[bytes, tuple[Path, str, int]] = {}
        self._batch: tuple[Path | None, dict[str, np.ndarray]] = (None, {})
        self._arrays: dict[tuple[Path, str], np.ndarray | None] = {}  # small arrays as read; None if damaged

    def add_batch(self, file: Path) -> None:
        """Add a journaled batch: `.npz` of keys, digests and fields."""
        try:
            with file.open("rb") as opened, np.load(opened) as batch:
                keys = batch[KEY]
        except UNREADABLE:
            return
        self._index.update({key.tobytes(): (file, "", i) for i, key in enumerate(keys)})

    def add_output(self, root: Path, *, last: bool = False) -> None:
        """Add all tables of an output; `last`: it is searched only where nothing else holds a row."""
        for file in sorted(root.rglob(f"{KEY}/zarr.json")):
            group = file.parent.parent
            try:
                opened: Any = zarr.open_group(group, mode="r")
                keys = opened[KEY][:].reshape(-1, SIZE)
                self.refused.update(opened.attrs.get("refused", {}))
            except UNREADABLE:
                continue
            name = str(group.relative_to(root))
            found = {key.tobytes(): (root, name, i) for i, key in enumerate(keys) if key.any()}
            if last:
                found |= self._index
                self._index = found
            else:
                self._index.update(found)

    def __contains__(self, key: bytes) -> bool:
        return key in self._index

    def intact(self, keys: list[bytes], fields: dict[str, Field]) -> list[bool]:
        """Return which rows are held with bytes that match their digests."""
        known = [key for key in keys if key in self._index]
        good = dict(zip(known, self._verified(known, fields), strict=True))
        return [good.get(key, False) for key in keys]

    def read(self, keys: list[bytes], fields: dict[str, Field]) -> tuple[dict[str, np.ndarray], np.ndarray]:
        """Read rows by key, one memo at a time; return their fields and digests."""
        rows = {name: np.empty((len(keys), *field.shape), field.dtype) for name, field in fields.items()}
        rows[DIGEST] = np.empty((len(keys), SIZE), "uint8")
        places: dict[tuple[Path, str], list[tuple[int, int]]] = {}
        for i, key in enumerate(keys):
            root, group, position = self._index[key]
            places.setdefault((root, group), []).append((i, position))
        for (root, group), pairs in places.items():
            to, source = (list(side) for side in zip(*pairs, strict=True))
            for name, found in self._found(root, group, source, list(rows)):
                if found.dtype != rows[name].dtype or found.shape[1:] != rows[name].shape[1:]:
                    raise ValueError(f"{root}: the array {name} is not of the wanted shape")
                rows[name][to] = found
        return rows, rows.pop(DIGEST)

    def absent(self, keys: list[bytes], fields: Mapping[str, Field]) -> list[Path]:
        """Return the files that hold rows of an output laid out as links, and that are not in the local cache yet."""
        steps: dict[Path, set[int]] = {}
        for key in keys:
            root, group, position = self._index.get(key, (None, "", 0))
            if root is not None and root.suffix != BATCH:
                steps.setdefault(root / group, set()).add(position)
        found: list[Path] = []
        for folder, positions in steps.items():
            opened: Any = zarr.open_group(folder, mode="r")
            within = inner(opened[KEY].shape[:-1])
            for name in [one for one in fields if one in opened]:
                size = (opened[name].shards or opened[name].chunks)[0]
                for part in {position // within // size for position in positions}:
                    chunk = folder / name / "c" / str(part)
                    found += [file for file in (chunk, *chunk.rglob("*")) if file.is_symlink() and not file.exists()]
        return found

    def forget_arrays(self) -> None:
        """Read arrays anew: files of them have been fetched since."""
        self._arrays.clear()

    def run(self, keys: list[bytes]) -> tuple[Path, int] | None:
        """Return the group that holds the rows contiguously, and the first row's index; None if none does."""
        root, group, first = self._index.get(keys[0], (None, "", 0))
        if root is None or root.suffix == BATCH:
            return None
        if all(self._index.get(key) == (root, group, first + i) for i, key in enumerate(keys)):
            return root / group, first
        return None

    def _verified(self, keys: list[bytes], fields: dict[str, Field]) -> list[bool]:
        if not keys:
            return []
        try:
            rows, digests = self.read(keys, fields)
        except UNREADABLE:
            if len(keys) == 1:
                return [False]
            return [good for key in keys for good in self._verified([key], fields)]
        good = (digests_of(rows, len(keys)) == digests).all(axis=1)
        return good.tolist()

    def _found(self, root: Path, group: str, rows: list[int], names: list[str]) -> Iterator[tuple[str, np.ndarray]]:
        if root.suffix == BATCH:
            if self._batch[0] != root:
                with root.open("rb") as file, np.load(file) as batch:
                    self._batch = (root, {name: batch[name] for name in batch.files})
            for name in names:
                yield name, self._batch[1][name][rows]
            return
        opened: Any = zarr.open_group(root / group, mode="r")
        lead = opened[KEY].shape[:-1]
        steps, within = np.divmod(rows, inner(lead))
        wanted, back = np.unique(steps, return_inverse=True)
        for name in names:
            whole = self._whole(root / group, name, opened)
            block = take(opened[name], wanted) if whole is None else whole[wanted]
            yield name, block.reshape(-1, *block.shape[len(lead) :])[back * inner(lead) + within]

    def _whole(self, group: Path, name: str, opened: Any) -> np.ndarray | None:
        """Return a small array, read once; None if it is large, or if a part of it cannot be read."""
        if (group, name) not in self._arrays:
            small = opened[name].nbytes <= SMALL_BYTES
            try:
                self._arrays[group, name] = opened[name][...] if small else None
            except UNREADABLE:
                self._arrays[group, name] = None
        return self._arrays[group, name]


def is_index(name: str) -> bool:
    """Return whether a file of an output is an index of its rows (keys, metadata) rather than row data."""
    parts = name.split("/")
    return parts[-1] == "zarr.json" or bool({KEY, DIGEST} & set(parts))


def keys_of(path: Path, group: str, what: str) -> tuple[np.ndarray, np.ndarray]:
    """Read the keys and digests of a table of another stage's output.

    Raises:
        UserError: the store is missing or cannot be read; the message names it.
    """
    opened = read(path / group, what)
    return values(opened, KEY), values(opened, DIGEST)


def check(root: Path, tables: list[Table], groups: dict[str, dict]) -> None:
    """Check that an assembled output has every group, and every row of every table.

    Raises:
        UserError: something is missing; the message names it.
    """
    for name in groups:
        read(root / name, "what was assembled")
    for table in tables:
        group: Any = read(root / table.group, "what was assembled")
        if not np.array_equal(values(group, KEY), table.keys):
            raise UserError(f"{root / table.group}: rows of it are not there; nothing is lost: run again")
        for name in table.fields:
            found = group.get(name)
            if found is None or found.shape[: table.keys.ndim - 1] != table.keys.shape[:-1] or not whole(found):
                raise UserError(f"{root / table.group / name}: rows of it are not there; nothing is lost: run again")


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
    largest = max(map(_bytes, table.fields.values()))
    return max(1, min(shard_rows // max(1, within), SHARD_BYTES // max(1, largest * within)))


def small(fields: Mapping[str, Field]) -> bool:
    """Return whether rows are so small that they are not sharded, and a whole table fits in memory."""
    return sum(map(_bytes, fields.values())) < CHUNK_BYTES


def _bytes(field: Field) -> int:
    return int(np.prod(field.shape, dtype=int)) * np.dtype(field.dtype).itemsize
