"""Read and change what stages store: maps and votes by group and name, in the layout of `atlas.cache.stacks`."""

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import zarr

from atlas.cache.assembly import assemble
from atlas.cache.keys import SIZE, digest
from atlas.cache.memos import Memos
from atlas.cache.stacks import Place, keys_of, places, stack
from atlas.cache.stores import group_at
from atlas.cache.tables import KEY, Coords, Field, Table, digests_of


def where(store: Path, group: str, name: str) -> Place:
    """Where the rows of a table are."""
    return places(store, "it")[group][name]


def rows(store: Path, group: str, name: str) -> dict[str, np.ndarray]:
    """Read the arrays of a table by name, its keys and digests, and the labels of its rows."""
    place = where(store, group, name)
    opened = zarr.open_group(place.folder, mode="r")
    along = opened[KEY].metadata.dimension_names[0]
    found = {one: made[...] for one, made in opened.arrays() if one not in (along, KEY)}
    of_tables = [one for one in found if opened[one].metadata.dimension_names[0] == along]
    found |= {one: found[one][place.at] for one in of_tables}
    found["key"], found["digest"] = keys_of(place)
    return found


def attrs(store: Path, group: str, name: str) -> dict[str, Any]:
    """What a store tells of a table."""
    return where(store, group, name).attrs


def change(store: Path, group: str, name: str, of: str, at: tuple, value: Any) -> None:
    """Change values of an array of a table."""
    place = where(store, group, name)
    zarr.open_array(place.folder / of, mode="r+")[(place.at, *at)] = value


def shard(store: Path, group: str, name: str, of: str) -> Path:
    """The first shard of an array of a table."""
    place = where(store, group, name)
    found = zarr.open_array(place.folder / of, mode="r")
    size = (found.shards or found.chunks)[0]
    return place.folder.joinpath(of, "c", str(place.at // size), *["0"] * (found.ndim - 1))


class Made(NamedTuple):
    """Made-up rows: dimensions, fields with the dimensions of a row and all values, labels, what is known of them.

    `asked`: which of the rows there are; None: all.
    """

    dims: tuple[str, ...]
    fields: dict[str, tuple[tuple[str, ...], np.ndarray]]
    labels: dict[str, Any]
    attrs: dict[str, Any]
    asked: np.ndarray | None = None


class Held(Memos):
    """Rows by key, as memos hold them."""

    def __init__(self) -> None:
        super().__init__()
        self._rows: dict[bytes, dict[str, np.ndarray]] = {}

    def add(self, name: str, made: Made) -> Table:
        """Hold made-up rows; return their table."""
        shape = next(iter(made.fields.values()))[1].shape[: len(made.dims)]
        asked = np.ones(shape, bool) if made.asked is None else made.asked
        keys = np.zeros((*shape, SIZE), "uint8")
        for row in zip(*np.nonzero(asked), strict=True):
            key = digest(name, len(self._rows))
            keys[row] = np.frombuffer(key, "uint8")
            self._rows[key] = {field: values[row] for field, (_, values) in made.fields.items()}
        coords: Coords = {}
        for label, values in made.labels.items():
            dims, found = values if isinstance(values, tuple) else ((label,), values)
            found = np.asarray(found)
            coords[label] = dims, found.astype(np.dtypes.StringDType()) if found.dtype.kind == "U" else found
        fields = {
            field: Field(dims, values.shape[len(shape) :], values.dtype.name, {})
            for field, (dims, values) in made.fields.items()
        }
        return Table(name, made.dims, keys, fields, coords, made.attrs)

    def run(self, keys: list[bytes]) -> None:
        """No row lies in an output."""

    def read(self, keys: list[bytes], fields: dict[str, Field]) -> tuple[dict[str, np.ndarray], np.ndarray]:
        """Read rows by key."""
        found = {
            name: np.array([self._rows[key][name] for key in keys], field.dtype).reshape(-1, *field.shape)
            for name, field in fields.items()
        }
        return found, digests_of(found, len(keys))


def write(store: Path, groups: dict[str, tuple[str, dict[str, Made]]], about: dict[str, Any], shard: int = 64) -> None:
    """Write made-up rows.

    Args:
        store: The store.
        groups: By group, its first dimension, and what lies along it by name.
        about: The attributes of the store.
        shard: Rows a shard, at most.
    """
    group_at(store, about)
    for group, (dim, made) in groups.items():
        held = Held()
        tables = {name: held.add(name, one) for name, one in made.items()}
        most = max(tables.values(), key=lambda one: one.keys.size)
        assemble(stack(group, dim, tables, most.coords), held, store, shard)
