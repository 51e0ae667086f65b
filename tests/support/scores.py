"""Write, read and change stores of scores, in the layout of `atlas.cache.score_store`."""

import json
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import zarr

from atlas.cache.assembly import assemble
from atlas.cache.score_store import find, known, shaped, stacked
from atlas.cache.stacks import Place, keys_of
from atlas.cache.stores import group_at
from tests.support import stored


class Made(NamedTuple):
    """A metric's made-up scores: values, which of them are asked for, labels by dimension, attributes."""

    values: np.ndarray
    asked: np.ndarray  # over the dimensions of rows, which come first
    labels: dict[str, Any]
    attrs: dict[str, Any]
    unsupported: dict[str, str]


def write(store: Path, family: str, made: dict[str, Made]) -> None:
    """Write the scores of a family's methods by metrics; what the store holds already is kept."""
    before = {name: _made(store, name) for name in find(store).places} if store.exists() else {}
    absent = find(store).absent if store.exists() else {}
    group_at(store, {"family": family, "absent": absent})
    held = stored.Held()
    groups: dict[str, list] = {}
    for name, one in {**before, **made}.items():
        dims = list(one.labels)
        rows = dims[: one.asked.ndim]
        along = {dim: np.asarray(one.labels[dim]).tolist() for dim in dims if dim not in (*rows, "picture")}
        attrs = {**one.attrs, "unsupported": one.unsupported, "methods": list(one.labels["method"])}
        attrs |= {"count": one.asked.shape[1], "along": along}
        labels = {dim: one.labels[dim] for dim in rows}
        if "picture" in one.labels:
            labels["picture"] = one.labels["picture"]
        fields = {"score": (tuple(along), one.values.astype("float32"))}
        table = held.add(name, stored.Made(tuple(rows), fields, labels, attrs, one.asked))
        groups.setdefault("grids" if "grid" in rows else "images", []).append(table)
    for group, tables in groups.items():
        methods = list(dict.fromkeys(name for table in tables for name in table.attrs["methods"]))
        most = max(tables, key=lambda one: one.attrs["count"])
        rows = {name: coords for name, coords in most.coords.items() if name != "method"}
        assemble(stacked(group, tables, methods, rows), held, store, 64)


def read(store: Path, metric: str) -> dict[str, np.ndarray]:
    """Read a metric's scores and keys, and their labels."""
    place = find(store).places[metric]
    group = zarr.open_group(place.folder, mode="r")
    methods, dims = group["method"][...].tolist(), group["score"].metadata.dimension_names[2:]
    found = {"score": shaped(group["score"][slice(*place.span)], place, methods)}
    found["key"], found["digest"] = (_of_rows(one, place, methods) for one in keys_of(place))
    found["method"] = np.array(place.attrs["methods"])
    for dim in dims:
        found[dim] = group[dim][...] if dim in group else np.arange(group["score"].shape[2 + dims.index(dim)])
    found[dims[0]] = found[dims[0]][: place.attrs["count"]]
    if "picture" in group:
        found["picture"] = group["picture"][: place.attrs["count"]]
    return found | {dim: np.array(points) for dim, points in place.attrs["along"].items()}


def about(store: Path, metric: str) -> dict[str, Any]:
    """Return what is known of a metric."""
    place = find(store).places[metric]
    return {**known(place), "unsupported": place.attrs["unsupported"]}


def change(store: Path, metric: str, name: str, where: tuple, value: Any) -> None:
    """Change a metric's scores, or bytes of keys: `where` is along its methods and rows, and bytes."""
    place = find(store).places[metric]
    group = zarr.open_group(place.folder, mode="r+")
    first, *others = where
    at = [group["method"][...].tolist().index(one) for one in place.attrs["methods"]][first]
    if name == "key":
        group["key"][(place.at, at, *others)] = value
    else:
        group["score"][(slice(*place.span), at, *others)] = value


def set_absent(store: Path, metric: str, reason: str) -> None:
    """Record that the classifier has no scores by a metric."""
    file = store / "zarr.json"
    known = json.loads(file.read_text())
    known["attributes"]["absent"][metric] = reason
    file.write_text(json.dumps(known))


def _made(store: Path, metric: str) -> Made:
    found, of = read(store, metric), about(store, metric)
    place = find(store).places[metric]
    dims = [one for one in found if one not in ("score", "key", "digest", "picture")]
    labels = {dim: found[dim] for dim in dims}
    if "picture" in found:
        labels["picture"] = ("image",), found["picture"]
    attrs = {name: value for name, value in of.items() if name != "unsupported"}
    return Made(found["score"], found["key"].any(axis=-1), labels, attrs, place.attrs["unsupported"])


def _of_rows(values: np.ndarray, place: Place, methods: list[str]) -> np.ndarray:
    return values[[methods.index(name) for name in place.attrs["methods"]]][:, : place.attrs["count"]]
