"""Write, read and change stores of scores, in the layout of `atlas.cache.score_store`."""

import json
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import zarr

from atlas.cache.score_store import find, stacked
from atlas.cache.stores import array, group_at
from atlas.cache.tables import Field, Table


class Made(NamedTuple):
    """A metric's made-up scores: values, which of them are asked for, labels by dimension, attributes."""

    values: np.ndarray
    asked: np.ndarray  # over the dimensions of rows, which come first
    labels: dict[str, Any]
    attrs: dict[str, Any]
    unsupported: dict[str, str]


def write(store: Path, family: str, made: dict[str, Made]) -> None:
    """Write the scores of a family's methods by metrics; what the store holds already is kept."""
    if not store.exists():
        group_at(store, {"family": family, "absent": {}})
    for table in stacked([_table(name, one) for name, one in made.items()]):
        group = group_at(store / table.group, table.attrs)
        values = np.stack([made[name].values for name in table.attrs["metrics"]]).astype("float32")
        dims = (*table.dims, *table.fields["score"].dims)
        array(group, "score", values, dims, {}, lead=len(table.dims))
        array(group, "key", table.keys, (*table.dims, "byte"), {}, lead=len(table.dims))
        for name, (own, labels) in table.coords.items():
            array(group, name, labels, own, {})


def read(store: Path, metric: str) -> dict[str, np.ndarray]:
    """Read the arrays of a metric, by name."""
    place = find(store).places[metric]
    group = zarr.open_group(store / place.group, mode="r")
    along = [name for name, one in group.arrays() if one.metadata.dimension_names[0] == "metric" and name != "metric"]
    return {name: one[place.at] if name in along else one[...] for name, one in group.arrays() if name != "metric"}


def about(store: Path, metric: str) -> dict[str, Any]:
    """Return the attributes of a metric."""
    return find(store).places[metric].attrs


def change(store: Path, metric: str, name: str, where: tuple, value: Any) -> None:
    """Change values of an array of a metric."""
    place = find(store).places[metric]
    zarr.open_array(store / place.group / name, mode="r+")[(place.at, *where)] = value


def set_absent(store: Path, metric: str, reason: str) -> None:
    """Record that the classifier has no scores by a metric."""
    file = store / "zarr.json"
    about = json.loads(file.read_text())
    about["attributes"]["absent"][metric] = reason
    file.write_text(json.dumps(about))


def _table(name: str, made: Made) -> Table:
    labels = {dim: np.asarray(values) for dim, values in made.labels.items()}
    coords = {
        dim: ((dim,), values.astype(np.dtypes.StringDType()) if values.dtype.kind == "U" else values)
        for dim, values in labels.items()
    }
    rows = made.asked.ndim
    keys = np.broadcast_to(made.asked[..., None], (*made.asked.shape, 16)).astype("uint8")
    field = Field(tuple(labels)[rows:], made.values.shape[rows:], "float32", made.attrs)
    return Table(name, tuple(labels)[:rows], keys, {"score": field}, coords, {"unsupported": made.unsupported})
