"""Memos: where a row is found by its key, in a journaled batch or in an output, whichever cell made it."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from atlas.cache.keys import SIZE
from atlas.cache.stacks import Stored
from atlas.cache.stores import UNREADABLE
from atlas.cache.tables import KEY, Field, digests_of

DIGEST = "digest"  # of a row's bytes, in a journaled batch; an output has it behind the row's key
BATCH = ".npz"


class Memos:
    """Rows by key, in journaled batches and in whole outputs; a file that cannot be read contributes none.

    What was added last is searched first.
    """

    def __init__(self) -> None:
        self.refused: dict[str, str] = {}  # why a function cannot serve a classifier, by key
        self._index: dict[bytes, tuple[Path, int]] = {}  # the batch or group, and the row's position in it
        self._batch: tuple[Path | None, dict[str, np.ndarray]] = (None, {})
        self._stored: dict[Path, Stored] = {}

    def add_batch(self, file: Path) -> None:
        """Add a journaled batch: `.npz` of keys, digests and fields."""
        try:
            with file.open("rb") as opened, np.load(opened) as batch:
                keys = batch[KEY]
        except UNREADABLE:
            return
        self._index.update({key.tobytes(): (file, i) for i, key in enumerate(keys)})

    def add_output(self, root: Path, *, last: bool = False) -> None:
        """Add all rows of an output; `last`: it is searched only where nothing else holds a row."""
        for file in sorted(root.rglob(f"{KEY}/zarr.json")):
            group = file.parent.parent
            try:
                stored = Stored(group)
                keys = stored.keys()
            except UNREADABLE:
                continue
            self._stored[group] = stored
            self.refused.update(stored.refused)
            found = {key.tobytes(): (group, i) for i, key in enumerate(keys) if key.any()}
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
        digests = np.empty((len(keys), SIZE), "uint8")
        places: dict[Path, list[tuple[int, int]]] = {}
        for i, key in enumerate(keys):
            memo, position = self._index[key]
            places.setdefault(memo, []).append((i, position))
        for memo, pairs in places.items():
            to, source = (np.array(side) for side in zip(*pairs, strict=True))
            digests[to] = self._digests(memo, source)
            for name, field in fields.items():
                found = self._values(memo, name, source)
                if found.dtype != rows[name].dtype or found[0].size != rows[name][0].size:
                    raise ValueError(f"{memo}: the array {name} is not of the wanted shape")
                rows[name][to] = found.reshape(-1, *field.shape)
        return rows, digests

    def absent(self, keys: list[bytes], fields: Mapping[str, Field]) -> list[Path]:
        """Return the files that hold rows of an output laid out as links, and that are not in the local cache yet."""
        positions: dict[Path, list[int]] = {}
        for key in keys:
            memo, position = self._index.get(key, (None, 0))
            if memo is not None and memo.suffix != BATCH:
                positions.setdefault(memo, []).append(position)
        found: list[Path] = []
        for memo, rows in positions.items():
            stored = self._stored[memo]
            try:
                found += [file for one in fields if one in stored.group for file in stored.files(one, np.array(rows))]
            except UNREADABLE:
                continue  # damaged: its rows are made again
        return [file for file in found if file.is_symlink() and not file.exists()]

    def forget_arrays(self) -> None:
        """Read arrays anew: files of them have been fetched since."""
        self._stored = {group: Stored(group) for group in self._stored}

    def run(self, keys: list[bytes]) -> tuple[Stored, int] | None:
        """Return the group that holds the rows one after another, and the first row's position; None if none does."""
        memo, first = self._index.get(keys[0], (None, 0))
        if memo is None or memo.suffix == BATCH:
            return None
        if all(self._index.get(key) == (memo, first + i) for i, key in enumerate(keys)):
            return self._stored[memo], first
        return None

    def _verified(self, keys: list[bytes], fields: dict[str, Field]) -> list[bool]:
        if not keys:
            return []
        try:
            rows, digests = self.read(keys, fields)
        except UNREADABLE:
            half = len(keys) // 2
            return [*self._verified(keys[:half], fields), *self._verified(keys[half:], fields)] if half else [False]
        good = (digests_of(rows, len(keys)) == digests).all(axis=1)
        return good.tolist()

    def _digests(self, memo: Path, rows: np.ndarray) -> np.ndarray:
        return self._journaled(memo, DIGEST, rows) if memo.suffix == BATCH else self._stored[memo].digests(rows)

    def _values(self, memo: Path, name: str, rows: np.ndarray) -> np.ndarray:
        return self._journaled(memo, name, rows) if memo.suffix == BATCH else self._stored[memo].rows(name, rows)

    def _journaled(self, file: Path, name: str, rows: np.ndarray) -> np.ndarray:
        if self._batch[0] != file:
            with file.open("rb") as opened, np.load(opened) as batch:
                self._batch = (file, {one: batch[one] for one in batch.files})
        return self._batch[1][name][rows]
