"""Find methods whose maps do not change when what they are to explain is exchanged."""

from typing import Any

import numpy as np
import xarray as xr

FAMILY = "randomization"


def checks(summary: xr.Dataset, curves: xr.Dataset | None, sanity_threshold: float) -> list[dict[str, Any]]:
    """Return each randomization check with the similarity of maps, by method, and the flagged methods.

    A method without an interval is not tested; their number is stated.

    A check with a curve is evaluated at its lowest point after the start: a flagged method's map stays, whatever is
    drawn anew.

    Args:
        summary: Mean scores with their intervals.
        curves: Mean curves with their intervals, if there are any.
        sanity_threshold: A method is flagged if its whole interval lies above this similarity.
    """
    found = []
    for metric in summary["metric"].values[summary["metric_family"].values == FAMILY].tolist():
        if str(summary["role"].sel(metric=metric).values) != "metric":
            continue
        table, curved = summary, False
        if curves is not None and metric in curves["metric"].values:
            curved = True
            behind = curves.sel(metric=metric).isel(fraction=slice(1, None))
            table = behind.isel(fraction=behind["mean"].fillna(np.inf).argmin("fraction"))
        for classifier in summary["classifier"].values.tolist():
            one = table.sel({"classifier": classifier, **({} if curved else {"metric": metric})})
            cells = []
            for method in summary["method"].values.tolist():
                here = one.sel({"method": method})
                mean, low, high, count = (float(here[name]) for name in ("mean", "low", "high", "count"))
                control = bool(summary["control"].sel({"method": method}))
                cell = {
                    "method": method,
                    "control": control,
                    "mean": mean,
                    "low": low,
                    "high": high,
                    "count": int(count),
                }
                cells.append({**cell, "flagged": low > sanity_threshold})
            known = {"metric": metric, "long_name": str(summary["metric_long_name"].sel(metric=metric).values)}
            tested = sum(not np.isnan(cell["low"]) for cell in cells)
            found.append({**known, "classifier": classifier, "cells": cells, "tested": tested})
    return found


def flagged(found: list[dict[str, Any]]) -> dict[str, list[str]]:
    """Return the checks that flag a method, by method."""
    by_method: dict[str, list[str]] = {}
    for check in found:
        for cell in check["cells"]:
            if cell["flagged"]:
                by_method.setdefault(cell["method"], []).append(f"{check['metric']} on {check['classifier']}")
    return by_method
