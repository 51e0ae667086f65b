"""A method whose maps stay when the classifier or the class goes is flagged."""

import numpy as np
import pytest
import xarray as xr

from atlas.report.sections import sanity

METHODS, METRICS = ["moves", "stays", "unsure", "absent"], ["model_randomization", "random_logit", "deletion"]


@pytest.fixture
def tables():
    """Similarities: of the means only `stays` is above the bound with its whole interval; `absent` has none."""
    mean, low = np.array([0.3, 0.97, 0.95, np.nan]), np.array([0.2, 0.92, 0.85, np.nan])
    coords = {"classifier": ["one"], "method": METHODS, "metric": METRICS}
    shape = (1, 4, 3)

    def cells(values):
        return ("classifier", "method", "metric"), np.broadcast_to(values[None, :, None], shape).copy()

    columns = {
        "mean": cells(mean),
        "low": cells(low),
        "high": cells(mean + 0.01),
        "count": cells(np.array([9, 9, 9, 0])),
    }
    summary = xr.Dataset(columns, coords).assign_coords(
        role=("metric", ["metric"] * 3),
        metric_family=("metric", ["randomization", "randomization", "faithfulness"]),
        metric_long_name=("metric", ["Model randomization", "Random logit", "Deletion"]),
        control=("method", [False, True, False, False]),
    )
    # Along the curve all are similar at first; only the control is throughout. The metric ends before others do.
    fraction = [0.0, 0.5, 1.0, 2.0]
    along = np.stack(
        [np.ones(4), np.where(mean > 0.5, mean, 0.9), np.array([0.1, 0.96, 0.4, np.nan]), [np.nan] * 4], -1
    )
    curve = {name: (("classifier", "method", "metric", "fraction"), along[None, :, None]) for name in ("mean", "high")}
    curve["low"] = (curve["mean"][0], along[None, :, None] - 0.05)
    curve["count"] = (curve["mean"][0], np.full((1, 4, 1, 4), 9.0))
    curves = xr.Dataset(curve, {"classifier": ["one"], "method": METHODS, "metric": METRICS[:1], "fraction": fraction})
    return summary, curves


def test_a_curve_is_read_where_it_is_lowest_and_a_number_as_it_is(tables):
    found = sanity.checks(*tables, 0.9)
    assert [one["metric"] for one in found] == ["model_randomization", "random_logit"]
    assert [cell["mean"] for cell in found[0]["cells"]][:3] == [0.1, 0.96, 0.4]
    assert [cell["mean"] for cell in found[1]["cells"]][:3] == [0.3, 0.97, 0.95]


def test_only_a_whole_interval_above_the_bound_flags(tables):
    assert sanity.flagged(sanity.checks(*tables, 0.9)) == {
        "stays": ["model_randomization on one", "random_logit on one"]
    }
    summary, curves = tables
    curves["low"] = curves["low"] - 0.05
    assert sanity.flagged(sanity.checks(summary, curves, 0.9)) == {"stays": ["random_logit on one"]}


def test_who_has_no_interval_is_not_tested(tables):
    summary, curves = tables
    assert [one["tested"] for one in sanity.checks(summary, curves, 0.9)] == [4, 3]
    summary["low"] = summary["low"] * np.nan
    assert [one["tested"] for one in sanity.checks(summary, curves, 0.9)] == [4, 0]


def test_a_control_is_known_as_one(tables):
    cells = {cell["method"]: cell["control"] for cell in sanity.checks(*tables, 0.9)[1]["cells"]}
    assert cells == {"moves": False, "stays": True, "unsure": False, "absent": False}


def test_without_curves_the_summary_is_read(tables):
    assert [cell["mean"] for cell in sanity.checks(tables[0], None, 0.9)[0]["cells"]][:3] == [0.3, 0.97, 0.95]
