"""Find the methods whose maps stay as they are when what they are to explain is exchanged for something else."""

from typing import Any

import xarray as xr

FAMILY = "randomization"
# Similarity of maps, with an interval that lies above this whole, at which a method is flagged.
UNMOVED = 0.9


def checks(summary: xr.Dataset, curves: xr.Dataset | None) -> list[dict[str, Any]]:
    """Give each randomization check with the similarity it leaves, method by method, and which methods are flagged.

    A check that gives a curve is read at its end, where all is randomized.

    Args:
        summary: Mean scores with their intervals.
        curves: Mean curves with theirs, if there are any.
    """
    found = []
    for metric in summary["metric"].values[summary["metric_family"].values == FAMILY].tolist():
        if str(summary["role"].sel(metric=metric).values) != "metric":
            continue
        curved = curves is not None and metric in curves["metric"].values
        table = summary
        if curved:
            table = curves.sel(metric=metric).dropna("fraction", how="all", subset=["mean"]).isel(fraction=-1)
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
                cells.append({**cell, "flagged": low > UNMOVED})
            known = {"metric": metric, "long_name": str(summary["metric_long_name"].sel(metric=metric).values)}
            found.append({**known, "classifier": classifier, "cells": cells})
    return found


def flagged(found: list[dict[str, Any]]) -> dict[str, list[str]]:
    """Give the checks that flag a method, by method."""
    by_method: dict[str, list[str]] = {}
    for check in found:
        for cell in check["cells"]:
            if cell["flagged"]:
                by_method.setdefault(cell["method"], []).append(f"{check['metric']} on {check['classifier']}")
    return by_method
