"""Coordinates of the results beside names: what methods and metrics are, and which scores were read."""

import json

import numpy as np
import xarray as xr

from atlas.statistics.tables import MetricScores


def name_methods(table: xr.Dataset, families: dict[str, str]) -> xr.Dataset:
    """Add the family of every method, and whether it is a control."""
    found = [families[method] for method in table["method"].values.tolist()]
    return table.assign_coords(
        method_family=("method", found), control=("method", [family == "control" for family in found])
    )


def name_metrics(table: xr.Dataset, attrs: dict[str, dict[str, str]]) -> xr.Dataset:
    """Add a description of every metric: direction, family, units, name, reference, role and settings."""
    metrics = [attrs[metric] for metric in table["metric"].values.tolist()]
    columns = {
        "better": [one["better"] for one in metrics],
        "role": [one.get("role", "metric") for one in metrics],
        "metric_family": [one["family"] for one in metrics],
        "metric_units": [one["units"] for one in metrics],
        "metric_long_name": [one["long_name"] for one in metrics],
        "metric_reference": [one["reference"] for one in metrics],
        "metric_settings": [one.get("settings", json.dumps({})) for one in metrics],
        "unit": [one["unit"] for one in metrics],
    }
    return table.assign_coords({name: ("metric", values) for name, values in columns.items()})


def name_keys(summary: xr.Dataset, scored: list[MetricScores]) -> xr.Dataset:
    """Add, by classifier and metric, the digest of the keys of the scores that were read; empty if there are none."""
    known = {(one.classifier, one.metric): one.attrs["keys"] for one in scored}
    names = [summary[dim].values.tolist() for dim in ("classifier", "metric")]
    found = [[known.get((classifier, metric), "") for metric in names[1]] for classifier in names[0]]
    return summary.assign_coords(key_digest=(("classifier", "metric"), np.array(found, np.dtypes.StringDType())))
