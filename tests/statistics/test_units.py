"""Rows of one picture, one per label, are one unit: more labels of the same pictures are no more evidence."""

import numpy as np
import pytest
import xarray as xr

from atlas.statistics import tables
from atlas.statistics.comparisons.contrasts import contrast_table
from atlas.statistics.coordinates import name_methods
from atlas.statistics.intervals.precision import precision_table
from atlas.statistics.tables import MetricScores
from atlas.statistics.units import by_unit, parts, pictures, units

METHODS = ["good", "fair", "poor"]
OPTIONS = {"resamples": 300, "level": 0.95, "seed": 0}


def scored(values: np.ndarray, picture: list[int] | None = None, dims: tuple[str, ...] = ()) -> MetricScores:
    """Return scores by method and row, made of the pictures given, if any."""
    names = [f"{row:02d}" for row in range(values.shape[1])]
    coords: dict = {"method": METHODS, "image": names}
    coords |= {name: np.linspace(0, 1, size) for name, size in zip(dims, values.shape[2:], strict=True)}
    coords |= {} if picture is None else {"picture": ("image", picture)}
    table = xr.DataArray(values.astype("float32"), coords, ("method", "image", *dims))
    asked = xr.DataArray(np.ones(values.shape[:2], bool), {"method": METHODS, "image": names}, ("method", "image"))
    return MetricScores("net", "metric", {"better": "higher", "family": "any"}, table, asked)


def drawn(pictures: int, *shape: int, hits: bool = False) -> np.ndarray:
    rng = np.random.default_rng(4)
    common = rng.normal(size=(1, pictures, *[1] * len(shape)))
    found = (
        common + rng.normal(size=(3, pictures, *shape)) + np.array([0.8, 0.4, 0]).reshape(3, *[1] * (len(shape) + 1))
    )
    return (found > 0.3).astype(float) if hits else found


def derived(one: MetricScores) -> dict[str, xr.Dataset]:
    """Return every table with uncertainty."""
    summary = tables.summary_table([one], **OPTIONS, min_count=1, weights="metrics")
    summary = name_methods(summary, dict.fromkeys(METHODS, "any"))
    contrasts = contrast_table([one], summary, level=0.95)
    return {"summary": summary, "contrasts": contrasts, "precision": precision_table([one], summary, level=0.95)}


def test_rows_are_parts_of_their_picture_in_order_of_appearance():
    one = scored(np.arange(15.0).reshape(3, 5), [7, 2, 7, 7, 2])
    found = parts(one.scores)
    assert found.shape == (3, 2, 3)
    np.testing.assert_array_equal(found[0], [[0, 2, 3], [1, 4, np.nan]])
    np.testing.assert_array_equal(units(one.scores)[..., 1], [[5, 7, 8], [6, 9, np.nan]])
    np.testing.assert_allclose(by_unit(one.scores)[:, 0], [5 / 3, 2.5])
    assert pictures([one]) == {"net": {"rows": 5, "pictures": 2}}


@pytest.mark.parametrize("hits", [False, True])
def test_one_row_a_picture_is_one_image(hits):
    """Bit for bit."""
    values = drawn(30, hits=hits)
    values[0, 3] = np.nan
    plain, numbered = derived(scored(values)), derived(scored(values, list(range(30))))
    for name, table in plain.items():
        xr.testing.assert_identical(table, numbered[name])
    np.testing.assert_array_equal(parts(scored(values, list(range(30))).scores), parts(scored(values).scores))
    assert pictures([scored(values), scored(values, list(range(30)))]) == {}


@pytest.mark.parametrize("hits", [False, True])
def test_a_second_label_with_the_same_scores_says_nothing_new(hits):
    """Intervals, p-values and intervals of ranks are those of one row a picture; as rows alone, they are narrower."""
    values, twice = drawn(20, hits=hits), list(range(20)) * 2
    once, both = derived(scored(values)), derived(scored(np.tile(values, 2), twice))
    for name in ("mean", "low", "high", "rank", "rank_low", "rank_high", "mean_rank_low", "mean_rank_high"):
        np.testing.assert_allclose(both["summary"][name], once["summary"][name], rtol=1e-9, err_msg=name)
    assert (both["summary"]["count"] == 40).all()
    for name in ("p", "superiority", "difference", "difference_low", "difference_high", "count"):
        np.testing.assert_allclose(both["contrasts"][name], once["contrasts"][name], rtol=1e-9, err_msg=name)
    assert both["precision"]["units"] == 20
    np.testing.assert_allclose(both["precision"]["width"], once["precision"]["width"], rtol=1e-9)
    alone = derived(scored(np.tile(values, 2)))
    width = [one["summary"]["high"] - one["summary"]["low"] for one in (both, alone)]
    assert (width[1] < 0.8 * width[0]).all()


def test_bands_of_curves_and_certificates_are_over_pictures():
    values, twice = drawn(12, 5), list(range(12)) * 2
    once, both, alone = (
        tables.curve_table([one], level=0.95)
        for one in (
            scored(values, dims=("fraction",)),
            scored(np.tile(values, (1, 2, 1)), twice, ("fraction",)),
            scored(np.tile(values, (1, 2, 1)), dims=("fraction",)),
        )
    )
    for name in ("mean", "low", "high"):
        np.testing.assert_allclose(both[name], once[name], rtol=1e-9)
    assert (alone["high"] < both["high"]).all()
    values = drawn(12, 2, 3)
    once, both = (
        tables.certified_table([one], level=0.95)
        for one in (
            scored(values, dims=("radius", "level")),
            scored(np.tile(values, (1, 2, 1, 1)), twice, ("radius", "level")),
        )
    )
    for name in ("mean", "low", "high"):
        np.testing.assert_allclose(both[name], once[name], rtol=1e-9)
