"""The page's part on how many images suffice."""

from typing import Any

import numpy as np
import xarray as xr

from atlas.report import sorting
from atlas.report.sections import refused


def sample_sizes(precision: xr.Dataset, summary: xr.Dataset) -> list[dict[str, Any]]:
    """Return, for each classifier, a row per metric: how many images were used, and how many would suffice.

    Args:
        precision: Widths of intervals by size, the methods' spread, and the sample size that suffices.
        summary: Which methods each metric ranks, and by how many scores.
    """
    metrics, most = precision["metric"].values.tolist(), int(precision["size"].max())
    units = ["grids" if unit == "tile" else "images" for unit in precision["unit"].values.tolist()]
    apart, found = refused.inapplicable(summary), []
    for classifier in precision["classifier"].values.tolist():
        here = precision.sel(classifier=classifier)
        names = ("units", "width_now", "spread", "sample_size", "width_count", "spread_count")
        columns = [here[name].values.tolist() for name in names]
        rows = []
        for metric, unit, *numbers in zip(metrics, units, *columns, strict=True):
            if metric in apart.get(classifier, {}):
                continue
            row = {"metric": metric, "unit": unit, **dict(zip(names, numbers, strict=True))}
            board = summary.sel(classifier=classifier, metric=metric)
            if not row["spread_count"]:  # `units` counts those of ranked methods only
                row |= dict(zip(("units", "unit"), sorting.scores(board), strict=True))
            share = row["width_now"] / row["spread"] if row["spread"] else np.nan
            reason = _reason(row, board, most, precision.attrs["least"])
            ranks = bool(board["rank"].notnull().any())
            rows.append({**row, "share": share, "reason": reason, "ranks": ranks})
        reached = sum(row["sample_size"] <= row["units"] for row in rows)
        found.append({"classifier": classifier, "rows": rows, "reached": reached})
    return found


def _reason(row: dict[str, Any], board: xr.Dataset, most: int, least: int) -> str:
    """Return why no number suffices; empty if there is one."""
    if not np.isnan(row["sample_size"]):
        return ""
    if not board["rank"].notnull().any():
        return f"it ranks no method: {sorting.unranked_reason(board)}"
    if not row["spread_count"]:
        return "it ranks no method but controls"
    if not row["width_count"]:
        return f"fewer than {least} {row['unit']} have a score"
    if row["width_now"] == 0:
        return "most methods have one score everywhere"
    if not row["spread"] > 0:
        return "there is one method, or all means are equal"
    return f"more than {most}"


def few(precision: xr.Dataset) -> dict[str, list[dict[str, Any]]]:
    """Return by metric the classifiers with too few images for intervals of such skewed scores.

    Args:
        precision: The number of units, the skewness of their scores, and the number from which on intervals hold.
    """
    found: dict[str, list[dict[str, Any]]] = {}
    names = ("units", "skewness", "reliable_size")
    for metric, unit in zip(precision["metric"].values.tolist(), precision["unit"].values.tolist(), strict=True):
        for classifier in precision["classifier"].values.tolist():
            one = precision.sel(classifier=classifier, metric=metric)
            row = {name: float(one[name]) for name in names}
            if row["units"] < row["reliable_size"]:
                message = {"classifier": classifier, "unit": "grids" if unit == "tile" else "images"}
                found.setdefault(metric, []).append({**message, **row})
    return found
