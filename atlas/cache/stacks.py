"""Stacks of tables: how keyed rows lie in a Zarr group, and how they are found and read there.

DVC spends its time on files, so the methods of a family, or the metrics of a cell, share a few arrays. In a group of
`maps/<classifier>/<family>.zarr`, for example:

    attributes          items: what each method is, in the order of `method`; refused: why functions have no rows
    attribution         over `method image y x`; a method's rows are in shards of their own
    key                 over `method image byte`: each row's key, then the digest of its bytes; zeros: no such row
    method, image ...   the labels

Where a row is a few numbers (scores), these lie along the first dimension: a curve takes as many places of it as it has
points. Its item then has `at`, the first place and the one after the last.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import zarr

from atlas.cache.keys import SIZE
from atlas.cache.stores import SMALL_BYTES, UNREADABLE, array_of, take
from atlas.cache.tables import KEY, Coords, Table, inner
from atlas.study.errors import UserError

ITEMS, AT, REFUSED = "items", "at", "refused"


class Stack(NamedTuple):
    """Tables that share the arrays of a group.

    group: The group in the output; empty: the output itself.
    dim: The first dimension of the arrays, along which the tables lie one after another; empty: there is one table, and
        no such dimension.
    tables: The tables by name, all with the same dimensions and numbers of rows.
    coords: The labels of their rows.
    spread: Whether the values of a row lie along `dim`, and not behind the dimensions of rows.
    """

    group: str
    dim: str
    tables: dict[str, Table]
    coords: Coords
    spread: bool = False

    @property
    def like(self) -> Table:
        """Return the first table, which has what all have in common."""
        return next(iter(self.tables.values()))

    @property
    def ends(self) -> list[int]:
        """Return the place along `dim` after the last one of each table."""
        return np.cumsum([points(table) if self.spread else 1 for table in self.tables.values()]).tolist()

    @property
    def attrs(self) -> dict[str, Any]:
        """Return the attributes of the group."""
        if not self.dim:
            return dict(self.like.attrs)
        items: dict[str, Any] = {}
        refused: dict[str, str] = {}
        for (name, table), stop in zip(self.tables.items(), self.ends, strict=True):
            items[name] = {key: value for key, value in table.attrs.items() if key != REFUSED}
            refused |= table.attrs.get(REFUSED, {})
            if self.spread:
                items[name][AT] = [stop - points(table), stop]
        return {ITEMS: items, REFUSED: refused} if refused else {ITEMS: items}


class Place(NamedTuple):
    """Where the rows of a table are stored.

    folder: The group.
    name: The table's name in it.
    at: The table's index along the first dimension of `key`.
    span: Its places along the first dimension of the other arrays: the first, and the one after the last.
    attrs: What is known of the table; `unsupported`: why a function has no rows.
    """

    folder: Path
    name: str
    at: int
    span: tuple[int, int]
    attrs: dict[str, Any]


def alone(table: Table) -> Stack:
    """Return the stack of a single table, in a group of the table's name."""
    return Stack(table.name, "", {"": table}, table.coords)


def stack(group: str, dim: str, tables: Mapping[str, Table], coords: Coords, *, spread: bool = False) -> Stack:
    """Stack tables, each of some of the rows that `coords` labels; a row that a table lacks gets no key."""
    wide = {}
    for name, table in tables.items():
        keys = np.zeros((*(len(coords[one][1]) for one in table.dims), SIZE), "uint8")
        keys[np.ix_(*(_positions(coords[one][1], table.coords[one][1]) for one in table.dims))] = table.keys
        wide[name] = table._replace(keys=keys)
    return Stack(group, dim, wide, coords, spread)


def points(table: Table) -> int:
    """Return the number of values of a row of a table with one field."""
    return int(np.prod(next(iter(table.fields.values())).shape, dtype=int))


class Stored:
    """The rows of a stored group, by their flat position in the array of keys. Small arrays are read once.

    Raises:
        ValueError, KeyError or OSError: it is missing or damaged.
    """

    def __init__(self, folder: Path):
        self.folder = folder
        self.group: Any = zarr.open_group(folder, mode="r")
        about: dict[str, Any] = dict(self.group.attrs)
        self.refused: dict[str, str] = about.get(REFUSED, {})
        items: dict[str, Any] | None = about.get(ITEMS)
        self.stacked = items is not None
        self.spans = [tuple(one.get(AT, (at, at + 1))) for at, one in enumerate((items or {"": {}}).values())]
        self.spread = any(AT in one for one in (items or {}).values())
        *lead, size = self.array(KEY).shape[self.stacked :]
        if size != 2 * SIZE:
            raise ValueError(f"{folder / KEY}: is not of keys and digests")
        self.lead = tuple(lead)
        self._small: dict[str, np.ndarray | ValueError | None] = {}

    @property
    def size(self) -> int:
        """Return the number of rows of a table."""
        return int(np.prod(self.lead, dtype=int))

    @property
    def inner(self) -> int:
        """Return the number of rows per index of the first dimension of rows."""
        return inner(self.lead)

    def keys(self) -> np.ndarray:
        """Return the keys of all rows."""
        return self.group[KEY][...].reshape(-1, 2 * SIZE)[:, :SIZE]

    def digests(self, positions: np.ndarray) -> np.ndarray:
        """Return the digests of some rows."""
        return self.rows(KEY, positions)[:, SIZE:]

    def rows(self, name: str, positions: np.ndarray) -> np.ndarray:
        """Return an array's values of some rows."""
        tables, within = np.divmod(np.asarray(positions), self.size)
        found: np.ndarray | None = None
        for at in np.unique(tables):
            own = tables == at
            steps, row = np.divmod(within[own], self.inner)
            wanted, back = np.unique(steps, return_inverse=True)
            block = self._block(name, int(at), wanted)
            block = block.reshape(-1, *block.shape[len(self.lead) :])[back * self.inner + row]
            if found is None:
                found = np.empty((len(tables), *block.shape[1:]), block.dtype)
            found[own] = block
        return np.empty((0,)) if found is None else found

    def files(self, name: str, positions: np.ndarray) -> list[Path]:
        """Return the files that hold an array's values of some rows, and links to such files."""
        sizes = self.group[name].shards or self.group[name].chunks
        tables, within = np.divmod(positions, self.size)
        steps = within // self.inner // sizes[self.stacked]
        folders: set[tuple[int, ...]] = set()
        for table, step in set(zip(tables.tolist(), steps.tolist(), strict=True)):
            start, stop = self.spans[table]
            along = range(start // sizes[0], (stop - 1) // sizes[0] + 1)
            folders |= {(at, step) for at in along} if self.stacked else {(step,)}
        places = [self.folder.joinpath(name, "c", *map(str, one)) for one in sorted(folders)]
        return [file for place in places for file in (place, *place.rglob("*")) if not file.is_dir()]

    def array(self, name: str) -> zarr.Array:
        """Return an array."""
        return array_of(self.group, name)

    def _block(self, name: str, table: int, steps: np.ndarray) -> np.ndarray:
        """Return some indices of the first dimension of rows, of a table; the values of a row come last."""
        known = self._read(name)
        source: Any = self.group[name] if known is None else known
        if not self.stacked:
            return take(source, steps)
        start, stop = (table, table + 1) if name == KEY else self.spans[table]
        block = take(source, steps, before=(slice(start, stop),))
        return np.moveaxis(block, 0, -1) if self.spread and name != KEY else block[0]

    def _read(self, name: str) -> np.ndarray | None:
        """Return a small array; None for a large one, or if one of several chunks cannot be read."""
        if name not in self._small:
            array = self.group[name]
            try:
                self._small[name] = array[...] if array.nbytes <= SMALL_BYTES else None
            except UNREADABLE as error:
                self._small[name] = ValueError(f"{self.folder / name}: {error}") if array.nchunks == 1 else None
        found = self._small[name]
        if isinstance(found, ValueError):
            raise found
        return found


def places(store: Path, what: str) -> dict[str, dict[str, Place]]:
    """Find all tables of a store, by group and name.

    Args:
        store: The store.
        what: What it holds, for the message.

    Raises:
        UserError: it is missing or cannot be read.
    """
    found: dict[str, dict[str, Place]] = {}
    try:
        attributes(store)
        for file in sorted(store.glob("*/zarr.json")):
            items = attributes(file.parent)[ITEMS].items()
            found[file.parent.name] = {
                name: Place(file.parent, name, at, tuple(attrs.get(AT, (at, at + 1))), attrs)
                for at, (name, attrs) in enumerate(items)
            }
    except UNREADABLE as error:
        raise UserError(f"{store}: {what} cannot be read ({type(error).__name__}: {error}); make it again") from None
    return found


def place(store: Path, group: str, name: str, what: str) -> Place:
    """Find a table of a store.

    Args:
        store, group, name: Where it is, and its name.
        what: What the store holds, for the message.

    Raises:
        UserError: it is missing or cannot be read.
    """
    found = places(store, f"the {what}").get(group, {})
    if name not in found:
        raise UserError(f"{store}/{group}: there are no {what} of {name}; make it again")
    return found[name]


def attributes(group: Path) -> dict[str, Any]:
    """Read the attributes of a group."""
    return json.loads((group / "zarr.json").read_bytes())["attributes"]


def keys_of(place: Place) -> tuple[np.ndarray, np.ndarray]:
    """Read the keys and digests of a table.

    Raises:
        UserError: they are missing or damaged; the message names them.
    """
    both = read_rows(place, KEY)
    return both[..., :SIZE], both[..., SIZE:]


def read_rows(place: Place, name: str, rows: np.ndarray | slice = slice(None)) -> np.ndarray:
    """Read an array's rows of a table that is not spread: a slice, or positions in any order.

    Raises:
        UserError: it is missing or damaged; the message names it.
    """
    try:
        source = array_of(zarr.open_group(place.folder, mode="r"), name)
        if isinstance(rows, slice):
            found: Any = source[place.at, rows]
            return found
        steps, back = np.unique(rows, return_inverse=True)
        return take(source, steps, before=(place.at,))[back]
    except UNREADABLE as error:
        why = f"{type(error).__name__}: {error}"
        raise UserError(f"{place.folder / name}: {place.name} cannot be read ({why}); make it again") from None


def _positions(labels: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    at = {label: place for place, label in enumerate(labels.tolist())}
    return np.array([at[label] for label in wanted.tolist()], dtype=int)
