"""The page's part on agreement: between rankings, between images, between maps."""

from typing import Any

import numpy as np
import xarray as xr

from atlas.report.charts import heat

AGREEMENT = ("mean", "sd", "mean_off_diagonal", "sd_off_diagonal", "mean_count")


def agreements(agreement: xr.Dataset) -> dict[str, Any]:
    """Return agreement between metrics, by means and by images, between classifiers and between images."""
    metrics, classifiers = (agreement[name].values.tolist() for name in ("metric", "classifier"))
    by_classifier = [(name, agreement.sel(classifier=name)) for name in classifiers]
    between = [(name, _matrix(one, "kendall", metrics, "methods")) for name, one in by_classifier]
    images = [(name, _matrix(one, "spearman_images", metrics, "methods")) for name, one in by_classifier]
    across = []
    if len(classifiers) > 1:
        for name in metrics:
            one = agreement.sel(metric=name)
            numbers = {word: float(one[f"kendall_classifiers_{word}"]) for word in AGREEMENT}
            across.append(
                {"metric": name, **numbers, "matrix": _matrix(one, "kendall_classifiers", classifiers, "methods")}
            )
    rho = _matrix(agreement, "spearman", metrics, "cells (classifier, method)")
    return {"between": between, "across": across, "spearman": rho, "images": images, "alpha": _alpha(agreement)}


def similarities(agreement: xr.Dataset, summary: xr.Dataset) -> list[dict[str, Any]]:
    """Return the mean similarity between the maps of every two methods, one matrix per classifier."""
    methods = summary["method"].values.tolist()
    found = []
    for classifier in agreement["classifier"].values.tolist():
        one = agreement.sel({"classifier": classifier, "method": methods, "method_other": methods})
        for name, long_name in (("map_pearson", "Pearson’s r"), ("map_spearman", "Spearman’s ρ")):
            values = one[name].values
            apart = values[~np.eye(len(values), dtype=bool)]
            mean = float(apart[~np.isnan(apart)].mean()) if (~np.isnan(apart)).any() else np.nan
            matrix = _matrix(one, name, methods, "images")
            found.append({"classifier": classifier, "measure": long_name, "mean": mean, "matrix": matrix})
    return found


def _alpha(agreement: xr.Dataset) -> heat.Matrix:
    metrics, classifiers = (agreement[name].values.tolist() for name in ("metric", "classifier"))
    values, counts = (
        agreement[name].transpose("metric", "classifier").values for name in ("krippendorff", "krippendorff_count")
    )
    return heat.agreement(values, counts, metrics, "ranks", columns=classifiers)


def _matrix(table: xr.Dataset, name: str, names: list[str], what: str) -> heat.Matrix:
    return heat.agreement(table[name].values, table[f"{name}_count"].values, names, what, columns=names)
