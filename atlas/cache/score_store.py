"""The store of a cell's scores: metrics with the same methods, images and points share arrays.

A group for each metric would be some sixteen files of a few kilobytes, thousands in a study, and DVC spends its time on
files. The layout of `<family>.zarr`:

    attributes                     family; absent: why the classifier has no scores by a metric, by its name
    image, image_fraction, ...     a group for each set of dimensions and labels, numbered where only the labels differ
        attributes                 metrics: what each metric is, in the order of `metric`
        score, key, digest         over `metric method image ...`
        metric, method, image ...  the labels
"""

import json
from collections import Counter
from collections.abc import Hashable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from atlas.cache.stores import UNREADABLE
from atlas.cache.tables import Table
from atlas.study.errors import UserError

METRIC = "metric"
SCORE = "score"


class Place(NamedTuple):
    """Where a store holds the scores of a metric.

    group: The group; empty if there are none.
    at: The index along `metric`.
    attrs: The metric's attributes; `unsupported`: why methods have no scores, `absent`: why none has.
    """

    group: str
    at: int
    attrs: dict[str, Any]


class Found(NamedTuple):
    """A store, and where the scores of each metric are in it."""

    path: Path
    places: dict[str, Place]


def stacked(tables: list[Table]) -> list[Table]:
    """Stack the tables of metrics that have the same dimensions and labels, along a new first dimension `metric`."""
    alike: dict[Hashable, list[Table]] = {}
    for table in tables:
        alike.setdefault(_layout(table), []).append(table)
    named: Counter[str] = Counter()
    found = []
    for same in alike.values():
        field = same[0].fields[SCORE]
        name = "_".join([*same[0].dims[1:], *field.dims])
        named[name] += 1
        group = name if named[name] == 1 else f"{name}_{named[name]}"
        metrics = np.array([table.group for table in same], np.dtypes.StringDType())
        attrs: dict[str, dict] = {METRIC + "s": {}, "refused": {}}
        for table in same:
            attrs[METRIC + "s"][table.group] = {
                **table.fields[SCORE].attrs,
                "unsupported": table.attrs["unsupported"],
            }
            attrs["refused"] |= table.attrs.get("refused", {})
        found.append(
            Table(
                group,
                (METRIC, *same[0].dims),
                np.stack([table.keys for table in same]),
                {SCORE: field._replace(attrs={})},
                {METRIC: ((METRIC,), metrics), **same[0].coords},
                attrs,
            )
        )
    return found


def find(store: Path) -> Found:
    """Find the scores of every metric in a store.

    Raises:
        UserError: the store is missing or cannot be read.
    """
    try:
        found: dict[str, Place] = {}
        absent = _attributes(store)["absent"]
        for file in sorted(store.glob("*/zarr.json")):
            metrics = _attributes(file.parent)[METRIC + "s"]
            found |= {name: Place(file.parent.name, at, attrs) for at, (name, attrs) in enumerate(metrics.items())}
        found |= {metric: Place("", 0, {"absent": reason}) for metric, reason in absent.items()}
    except UNREADABLE as error:
        raise UserError(f"{store}: no scores can be read ({error!r}); run stages.score again") from None
    return Found(store, found)


def _attributes(group: Path) -> dict[str, Any]:
    return json.loads((group / "zarr.json").read_bytes())["attributes"]


def _layout(table: Table) -> Hashable:
    """Return what tables must have in common to be stacked."""
    field = table.fields[SCORE]
    labels = [(name, dims, values.shape, *values.ravel().tolist()) for name, (dims, values) in table.coords.items()]
    return table.dims, field.dims, field.shape, field.dtype, tuple(labels)
