"""The units of uncertainty: an image, a grid with its tiles, or a picture with all its rows.

If an image may have several labels, its scores have one row per label. Rows of one picture share its pixels, so they
are not independent: intervals, resamples, tests and counts of units treat a picture as a grid of tiles is treated, as
one unit of several parts. Means are over all parts alike.
"""

from collections.abc import Iterable
from typing import TYPE_CHECKING

import numpy as np
import xarray as xr
from jaxtyping import Float

if TYPE_CHECKING:
    from atlas.statistics.tables import MetricScores

PICTURE = "picture"  # the coordinate of `image` that numbers pictures


def parts(scores: xr.DataArray) -> Float[np.ndarray, "method unit part ..."]:
    """Return scores by unit and part: an image is a unit of one part, a grid a unit of its tiles, and a picture with a
    row per label a unit of its rows; NaN past its last row.

    Args:
        scores: By method, then image, or grid and tile, then other dimensions; images with the coordinate `picture` if
            they may have several labels.
    """
    values = scores.values.astype(np.float64)
    if "grid" in scores.dims:
        return values
    if PICTURE not in scores.coords:
        return values[:, :, None]
    _, first, unit, count = np.unique(
        scores[PICTURE].values, return_index=True, return_inverse=True, return_counts=True
    )
    unit = np.argsort(np.argsort(first))[unit]  # numbered in order of appearance
    order = np.argsort(unit, kind="stable")
    place = np.empty(len(unit), int)
    place[order] = np.arange(len(unit)) - np.searchsorted(unit[order], unit[order])
    found = np.full((len(values), len(count), count.max(initial=1), *values.shape[2:]), np.nan)
    found[:, unit, place] = values
    return found


def units(scores: xr.DataArray) -> Float[np.ndarray, "unit part method"]:
    """Return scores with one number per part, as `parts` does, with methods last."""
    return np.moveaxis(parts(scores), 0, -1)


def by_unit(scores: xr.DataArray) -> Float[np.ndarray, "unit method"]:
    """Return one score per unit and method: an image's, or the mean over a grid's tiles or a picture's rows; NaN if
    none is defined.
    """
    found = units(scores)
    defined = (~np.isnan(found)).sum(axis=1)
    total = np.where(np.isnan(found), 0, found).sum(axis=1)
    return np.divide(total, defined, out=np.full(total.shape, np.nan), where=defined > 0)


def pictures(scored: Iterable["MetricScores"]) -> dict[str, dict[str, int]]:
    """Return by classifier the most rows that a metric scores, and the number of their pictures, if these are fewer."""
    found: dict[str, dict[str, int]] = {}
    for one in scored:
        if PICTURE in one.scores.coords:
            rows, number = one.scores.sizes["image"], len(np.unique(one.scores[PICTURE].values))
            if number < rows > found.get(one.classifier, {"rows": 0})["rows"]:
                found[one.classifier] = {"rows": rows, "pictures": number}
    return found
