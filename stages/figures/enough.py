"""What the page shows of how many images are enough."""

from typing import Any

import numpy as np
import xarray as xr


def enough(precision: xr.Dataset) -> list[dict[str, Any]]:
    """Give, for each classifier, a sentence and a row for each metric: what was judged, and how many would be enough.

    Args:
        precision: Widths of intervals by size, the methods' spread, and the size that is enough.
    """
    metrics, most = precision["metric"].values.tolist(), int(precision["size"].max())
    units = ["grids" if unit == "tile" else "images" for unit in precision["unit"].values.tolist()]
    found = []
    for classifier in precision["classifier"].values.tolist():
        here = precision.sel(classifier=classifier)
        names = ("units", "width_now", "spread", "enough", "width_count", "spread_count")
        columns = [here[name].values.tolist() for name in names]
        rows = []
        for metric, unit, *numbers in zip(metrics, units, *columns, strict=True):
            row = {"metric": metric, "unit": unit, **dict(zip(names, numbers, strict=True))}
            share = row["width_now"] / row["spread"] if row["spread"] else np.nan
            rows.append({**row, "share": share, "reason": _reason(row, most, precision.attrs["least"])})
        reached = sum(row["enough"] <= row["units"] for row in rows)
        found.append({"classifier": classifier, "rows": rows, "reached": reached})
    return found


def _reason(row: dict[str, Any], most: int, least: int) -> str:
    """Say why no number is enough; nothing where one is."""
    if not np.isnan(row["enough"]):
        return ""
    if not row["spread_count"]:
        return "it ranks no method but controls"
    if not row["width_count"]:
        return f"fewer than {least} {row['unit']} have a score"
    if not row["spread"] > 0:
        return "there is one method, or all means are equal"
    return f"more than {most}"
