"""The store of a cell's scores, `scores/<classifier>/<family>.zarr`: see `atlas.cache.stacks` for its groups.

    attributes    family; absent: why the classifier has no scores by a metric, by its name
    images        `score` over `metric method image`, of all metrics that score images
    grids         `score` over `metric method grid tile`

A curve takes as many places of `metric` as it has points. Of each metric, the attributes tell which methods it scores
(`methods`) of how many of the first pictures (`count`), where along which axes its values lie (`along`), and which
methods it cannot score (`unsupported`).
"""

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from atlas.cache.stacks import Place, Stack, attributes, places, stack
from atlas.cache.stores import UNREADABLE
from atlas.cache.tables import Coords, Table
from atlas.study.errors import UserError

METRIC = "metric"
SCORE = "score"


class Found(NamedTuple):
    """The metrics of a store.

    path: The store.
    places: Where the scores of each metric are.
    absent: Why there are none of a metric, by its name.
    """

    path: Path
    places: dict[str, Place]
    absent: dict[str, str]


def stacked(group: str, tables: list[Table], methods: list[str], rows: Coords) -> Stack:
    """Stack the scores of metrics of the same pictures.

    Args:
        group: `images` or `grids`.
        tables: The metrics' tables.
        methods: All methods of the family.
        rows: The labels of all pictures.
    """
    names = np.array(methods, np.dtypes.StringDType())
    of_rows = {name: known for name, known in rows.items() if name != "target"}  # the store of the images has it
    coords: Coords = {"method": (("method",), names), **of_rows}
    return stack(group, METRIC, {table.name: table for table in tables}, coords, spread=True)


def find(store: Path) -> Found:
    """Find the scores of every metric in a store.

    Raises:
        UserError: the store is missing or cannot be read.
    """
    try:
        absent = attributes(store)["absent"]
    except UNREADABLE as error:
        raise UserError(f"{store}: no scores can be read ({error!r}); run stages.score again") from None
    of_groups = places(store, "the scores").values()
    return Found(store, {name: place for listed in of_groups for name, place in listed.items()}, absent)


def known(place: Place) -> dict[str, Any]:
    """Return what a metric says of its scores, without what tells where they are."""
    hidden = ("unsupported", "methods", "count", "along", "at")
    return {name: value for name, value in place.attrs.items() if name not in hidden}


def shaped(values: np.ndarray, place: Place, methods: list[str]) -> np.ndarray:
    """Return a metric's scores, or their keys, as the metric made them: only what it scores, points of curves last.

    Args:
        values: The metric's part of the array, over `metric method image` and so on.
        place: Where it is.
        methods: The labels of `method`.
    """
    at = [methods.index(name) for name in place.attrs["methods"]]
    own = values[:, at][:, :, : place.attrs["count"]]
    lengths = [len(points) for points in place.attrs["along"].values()]
    return np.moveaxis(own, 0, -1).reshape(*own.shape[1:], *lengths)
