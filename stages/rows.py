"""Keep rows by key: take those that are known, journal those that are made, assemble the output and put it in place.

A row is one image's map by one method, or one map's scores. Its key says everything its value depends on, so a row
found under its key is the row. Rows are looked for in the cell's journal (an interrupted run, a warm worker), in the
output last assembled, and in the output that dvc.lock records, read from DVC's cache. Memos only save time: a row
whose bytes do not match their own digest is not taken.
"""

import fcntl
import hashlib
import json
import os
import platform
import shutil
import sys
import time
import uuid
from collections.abc import Iterator, Mapping
from importlib import metadata
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
import zarr

from stages.keys import SIZE, unchanged
from stages.params import Problem
from stages.stores import SHARD_BYTES, UNREADABLE, array, begin, fill, group_at, place, recorded, replace, take

DIGEST = "digest"
KEY = "key"


class Field(NamedTuple):
    """An array of a table: the dimensions, shape and dtype of one row of it, and its attributes."""

    dims: tuple[str, ...]
    shape: tuple[int, ...]
    dtype: str
    attrs: Mapping[str, Any] = MappingProxyType({})


class Table(NamedTuple):
    """Rows of one kind: where in the output they stand, their keys, what each holds, and their coordinates.

    `keys` has the leading dimensions `dims` and then a key's bytes; a key of zeros says that there is no such row.
    """

    group: str
    dims: tuple[str, ...]
    keys: np.ndarray
    fields: dict[str, Field]
    coords: dict[str, tuple[tuple[str, ...], np.ndarray]]
    attrs: Mapping[str, Any] = MappingProxyType({})


class Rows:
    """The store of a cell's keyed rows, open: memos to read, a journal to write, an output to assemble.

    One process has a cell at a time; others wait until it is closed.
    """

    def __init__(self, study: Path, cell: str, output: Path, shard_rows: int):
        self.cell, self.output, self.shard_rows = cell, output, shard_rows
        self.atlas = study / ".atlas"
        self.scratch = self.atlas / "cells" / cell
        self.journal = self.scratch / "journal"
        self.journal.mkdir(parents=True, exist_ok=True)
        self._lock = (self.scratch / "lock").open("w")
        fcntl.flock(self._lock, fcntl.LOCK_EX)
        self._index: dict[bytes, tuple[Path, str, int]] = {}
        self._refused: dict[str, str] = {}
        self._cached: tuple[Any, Any] = (None, None)
        self._started = time.monotonic()
        self._told = self._started
        self.wanted = self.reused = self.computed = self.left = 0
        self.made: dict[str, int] = {}
        # An output that was being replaced when the process died is still a memo.
        aside = sorted(self.scratch.glob(".output.*.partial"))
        for memo in (recorded(study, cell, output, self.scratch / "recorded"), *aside, self.scratch / "output"):
            self._add_output(memo)
        for file in sorted(self.journal.glob("*.npz")):
            self._add_journal(file)
        for file in self.journal.glob("*.refused"):
            self._refused[file.stem] = file.read_text()

    def missing(self, table: Table) -> np.ndarray:
        """Give the positions, in the flattened table, of the rows that no memo holds intact."""
        keys = table.keys.reshape(-1, SIZE)
        positions = [i for i in range(len(keys)) if keys[i].any()]
        absent = []
        for part in _parts(positions, table, self.shard_rows):
            known = [i for i in part if keys[i].tobytes() in self._index]
            intact = self._intact([keys[i].tobytes() for i in known], table)
            absent += sorted({*part} - {i for i, good in zip(known, intact, strict=True) if good})
        self.wanted += len(positions)
        self.reused += len(positions) - len(absent)
        self.left += len(absent)
        return np.array(absent, dtype=int)

    def put(self, table: Table, positions: np.ndarray, values: dict[str, np.ndarray]) -> None:
        """Journal computed rows; they are safe when this returns."""
        unchanged()
        fields = {name: np.asarray(values[name], field.dtype) for name, field in table.fields.items()}
        keys = table.keys.reshape(-1, SIZE)[positions]
        file = self.journal / f"{uuid.uuid4().hex}.npz"
        partial = file.with_suffix(".partial")
        with partial.open("wb") as out:
            np.savez(out, **{KEY: keys, DIGEST: _digests(fields, len(keys))}, **fields)
            out.flush()
            os.fsync(out.fileno())
        partial.rename(file)
        self._add_journal(file)
        self.computed += len(keys)
        self.made[table.group] = self.made.get(table.group, 0) + len(keys)
        self.left -= len(keys)
        self._tell()

    def refuse(self, key: bytes, reason: str) -> None:
        """Journal that a function cannot serve a classifier."""
        partial = self.journal / f"{key.hex()}.partial"
        partial.write_text(reason)
        partial.rename(partial.with_suffix(".refused"))
        self._refused[key.hex()] = reason

    def refusal(self, key: bytes) -> str | None:
        """Give the reason why a function cannot serve a classifier, where that is known."""
        return self._refused.get(key.hex())

    def finish(self, tables: list[Table], groups: dict[str, dict]) -> None:
        """Assemble the output from the memos and put it in place: by rename, as the last act.

        The output is a function of the tables alone. It is kept in the scratch as well, as links to the same files,
        until the next one: DVC may die before it records what it has been given.
        """
        fresh = self.scratch / "assembling"
        shutil.rmtree(fresh, ignore_errors=True)
        fresh.mkdir()
        for group, attrs in groups.items():
            group_at(fresh / group, attrs)
        for table in tables:
            self._assemble(table, fresh)
        replace(fresh, self.scratch / "output")
        place(self.scratch / "output", self.output)
        shutil.rmtree(self.journal)
        for memo in (self.scratch / "recorded", *self.scratch.glob(".output.*.partial")):
            shutil.rmtree(memo, ignore_errors=True)

    def log(self, passes: dict[str, dict[str, int]]) -> None:
        """Append what this visit cost to `.atlas/log.jsonl`: one line."""
        line = {
            "cell": self.cell,
            "rows_wanted": self.wanted,
            "rows_reused": self.reused,
            "rows_computed": self.computed,
            "computed": self.made,
            "assembled": not self.journal.exists(),
            "seconds": round(time.monotonic() - self._started, 3),
            "passes": passes,
            "versions": {name: metadata.version(name) for name in ("torch", "numpy", "zarr")},
            "machine": f"{platform.machine()} {platform.system()} python {platform.python_version()}",
        }
        with (self.atlas / "log.jsonl").open("a") as log:
            log.write(json.dumps(line) + "\n")

    def __enter__(self) -> "Rows":
        return self

    def __exit__(self, *error: object) -> None:
        self._lock.close()

    def _tell(self) -> None:
        """Show progress, every few seconds: rows done, rows per second, time left."""
        now = time.monotonic()
        if now - self._told > 5:
            self._told = now
            rate = self.computed / (now - self._started)
            done = f"{self.computed} of {self.computed + self.left} rows"
            print(f"{self.cell}: {done}, {rate:.1f} rows/s, {self.left / rate:.0f} s left", file=sys.stderr, flush=True)

    def _assemble(self, table: Table, root: Path) -> None:
        lead = table.keys.shape[:-1]
        keys = table.keys.reshape(-1, SIZE)
        group = group_at(root / table.group, table.attrs)
        for name, (dims, values) in table.coords.items():
            array(group, name, np.asarray(values), dims, {})
        steps = _shard(table, self.shard_rows)
        beside = " ".join(name for name, (dims, _) in table.coords.items() if dims != (name,))  # as CF says it
        arrays = {
            name: begin(
                group,
                name,
                (*lead, *field.shape),
                field.dtype,
                (*table.dims, *field.dims),
                {**field.attrs, "coordinates": beside} if beside else field.attrs,
                lead=len(lead),
                shard=steps,
            )
            for name, field in table.fields.items()
        }
        digests = np.zeros((len(keys), SIZE), "uint8")
        for part in _parts(range(len(keys)), table, self.shard_rows):
            wanted = [i for i in part if keys[i].any()]
            rows, digests[wanted] = self._read([keys[i].tobytes() for i in wanted], table)
            for name, field in table.fields.items():
                block = np.full((len(part), *field.shape), fill(field.dtype), field.dtype)
                block[np.array(wanted, dtype=int) - part[0]] = rows[name]
                start, stop = part[0] // _inner(lead), (part[-1] + 1) // _inner(lead)
                arrays[name][start:stop] = block.reshape(stop - start, *lead[1:], *field.shape)
        array(group, KEY, table.keys, (*table.dims, "byte"), {})
        array(group, DIGEST, digests.reshape(*lead, SIZE), (*table.dims, "byte"), {})

    def _intact(self, keys: list[bytes], table: Table) -> list[bool]:
        if not keys:
            return []
        try:
            rows, digests = self._read(keys, table)
        except UNREADABLE:
            if len(keys) == 1:
                return [False]
            return [good for key in keys for good in self._intact([key], table)]
        return (_digests(rows, len(keys)) == digests).all(axis=1).tolist()

    def _read(self, keys: list[bytes], table: Table) -> tuple[dict[str, np.ndarray], np.ndarray]:
        """Read rows by key, a memo at a time."""
        rows = {name: np.empty((len(keys), *field.shape), field.dtype) for name, field in table.fields.items()}
        digests = np.empty((len(keys), SIZE), "uint8")
        places: dict[tuple[Path, str], list[tuple[int, int]]] = {}
        for i, key in enumerate(keys):
            root, group, position = self._index[key]
            places.setdefault((root, group), []).append((i, position))
        for (root, group), pairs in places.items():
            to, source = (list(side) for side in zip(*pairs, strict=True))
            for name, values in self._values(root, group, source, [*table.fields, DIGEST]):
                target = digests if name == DIGEST else rows[name]
                if values.dtype != target.dtype or values.shape[1:] != target.shape[1:]:
                    raise ValueError(f"{root}: the array {name} is not of the wanted shape")
                target[to] = values
        return rows, digests

    def _values(self, root: Path, group: str, rows: list[int], names: list[str]) -> Iterator[tuple[str, np.ndarray]]:
        if root.suffix == ".npz":
            if self._cached[0] != root:
                with root.open("rb") as opened, np.load(opened) as batch:
                    self._cached = (root, {name: batch[name] for name in batch.files})
            for name in names:
                yield name, self._cached[1][name][rows]
            return
        opened = zarr.open_group(root / group, mode="r")
        lead = opened[KEY].shape[:-1]
        steps, within = np.divmod(rows, _inner(lead))
        wanted, back = np.unique(steps, return_inverse=True)
        for name in names:
            block = take(opened[name], wanted)
            yield name, block.reshape(-1, *block.shape[len(lead) :])[back * _inner(lead) + within]

    def _add_journal(self, file: Path) -> None:
        try:
            with file.open("rb") as opened, np.load(opened) as batch:
                keys = batch[KEY]
        except UNREADABLE:
            return
        self._index.update({key.tobytes(): (file, "", i) for i, key in enumerate(keys)})

    def _add_output(self, root: Path) -> None:
        for found in sorted(root.rglob(f"{KEY}/zarr.json")):
            group = found.parent.parent
            try:
                keys = zarr.open_array(found.parent, mode="r")[:].reshape(-1, SIZE)
                self._refused.update(zarr.open_group(group, mode="r").attrs.get("refused", {}))
            except UNREADABLE:
                continue
            name = str(group.relative_to(root))
            self._index.update({key.tobytes(): (root, name, i) for i, key in enumerate(keys) if key.any()})


def keys_of(path: Path, group: str, what: str) -> tuple[np.ndarray, np.ndarray]:
    """Read the keys and digests of a table of another stage's output.

    Raises:
        Problem: the store is missing or cannot be read; the message names it.
    """
    try:
        opened = zarr.open_group(path / group, mode="r")
        return opened[KEY][:], opened[DIGEST][:]
    except UNREADABLE as error:
        raise Problem(f"{path}/{group}: {what} cannot be read ({error}); delete it and run again") from None


def _digests(fields: dict[str, np.ndarray], count: int) -> np.ndarray:
    rows = np.empty((count, SIZE), "uint8")
    for i in range(count):
        total = hashlib.blake2b(digest_size=SIZE)
        for name in sorted(fields):
            row = np.ascontiguousarray(fields[name][i])
            total.update(f"{name} {row.dtype.str} {row.shape}".encode())
            total.update(row.tobytes())
        rows[i] = np.frombuffer(total.digest(), "uint8")
    return rows


def _parts(positions: list[int] | range, table: Table, shard_rows: int) -> Iterator[list[int]]:
    """Split positions by the shard they fall in."""
    size = _shard(table, shard_rows) * _inner(table.keys.shape[:-1])
    parts: dict[int, list[int]] = {}
    for i in positions:
        parts.setdefault(i // size, []).append(i)
    yield from parts.values()


def _inner(lead: tuple[int, ...]) -> int:
    return int(np.prod(lead[1:], dtype=int))


def _shard(table: Table, shard_rows: int) -> int:
    """Say how many steps of the leading dimension one shard of any field holds: as set, and at most 16 MB."""
    inner = _inner(table.keys.shape[:-1])
    rows = (int(np.prod(field.shape, dtype=int)) * np.dtype(field.dtype).itemsize for field in table.fields.values())
    return max(1, min(shard_rows // max(1, inner), SHARD_BYTES // max(1, max(rows) * inner)))
