"""A tiny study with votes, run by DVC from end to end: what is in its results, and what a change makes anew."""

import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from atlas.study.schema import smoothing
from tests.support import labelled
from tests.support.results import opened
from tests.support.scores import read as read_scores
from tests.support.study import repro, run, tiny, write

C = "resnet_vanilla"
TEST = {"smoothings": ["noise_15", "noise_25"], "tau": [0.75, 0.6], "level": 30, "alpha": 0.05, "correction": "holm"}
ONE = {**TEST, "smoothings": ["noise_15"], "nothing": "zero"}
METHODS = ["gradient", "uniform"]
IMAGES, GRIDS = 4, 2


def radius(sigma: float, tau: float) -> float:
    return smoothing.stored(smoothing.radius(sigma, tau))


def certified() -> dict:
    """The tiny study with votes of two smoothings, and metrics of votes alone beside one of maps."""
    params = tiny()
    params["methods"] = {family: dict([*params["methods"][family].items()][:1]) for family in ("gradient", "control")}
    votes = {"form": "strict", "sigma": 0.15, "levels": [50, 30, 10], "n0": 2, "n": 45}
    votes |= {"images": IMAGES, "grids": GRIDS, "tile": None, "methods": METHODS}
    # The second one's radii lie on both sides of the first one's.
    params["certify"] = {"noise_15": votes, "noise_25": {**votes, "sigma": 0.25, "grids": 0}}
    params["metrics"] = {
        "localization": {"pointing_game": {"tolerance": 4}},
        "certified": {
            "certified_important": TEST,
            "certified_deletion": {**TEST, "baseline": "mean"},
        },
        "certified_grid": {
            "certified_grid_pointing_game": ONE,
            "corner": {**ONE, "function": "certified_grid_pointing_game", "tile": 0},
        },
    }
    return params


@pytest.fixture(scope="module")
def house(baseline, tmp_path_factory) -> Path:
    place = tmp_path_factory.mktemp("certified") / "house"
    shutil.copytree(baseline, place, symlinks=True)
    write(place, certified())
    repro(place, faster=True)
    return place


def table(house: Path) -> xr.Dataset:
    return opened(house, "certified").load()


def scores(house: Path, family: str, metric: str) -> dict[str, np.ndarray]:
    return read_scores(house / "data/scores" / C / f"{family}.zarr", metric)


def test_dvc_finds_nothing_to_do_afterwards(house):
    assert "up to date" in run(house, "dvc", "status").stdout
    assert repro(house) == {}


def test_everything_in_it_says_what_it_is(house):
    labelled.check(table(house))
    assert table(house)["mean"].attrs["better"] == "by metric (better)"


def test_means_stand_by_the_radius_of_their_noise_and_share(house):
    found = table(house)
    radii = {(sigma, tau): radius(sigma, tau) for sigma in (0.15, 0.25) for tau in (0.75, 0.6)}
    assert found["radius"].values.tolist() == sorted(radii.values())
    assert found["level"].values.tolist() == [0, 10, 30, 50]
    important = scores(house, "gradient", "certified_important")
    order = [radii[sigma, tau] for sigma in (0.15, 0.25) for tau in (0.75, 0.6)]
    assert important["radius"][:].tolist() == order, "noise by noise, share by share"
    assert important["level"][:].tolist() == [50, 30, 10]
    for at, one in enumerate(order):
        for place, level in enumerate((50, 30, 10)):
            here = {"classifier": C, "method": "gradient", "metric": "certified_important"}
            expected = important["score"][0, :, at, place].mean()
            assert float(found["mean"].sel({**here, "radius": one, "level": level})) == pytest.approx(
                expected, rel=1e-6
            )
    # Every copy of a map of one value is at its top at the first pixels: all is certified, at every radius.
    uniform = found["mean"].sel({"classifier": C, "method": "uniform", "metric": "certified_important"})
    np.testing.assert_allclose(uniform.sel(level=[10, 30, 50]), np.tile([9.985, 29.98, 50], (4, 1)), atol=0.01)
    assert np.isnan(uniform.sel(level=0)).all(), "nothing removed is a point of deletion's curve alone"
    deletion = found["mean"].sel({"classifier": C, "metric": "certified_deletion", "method": "gradient"})
    assert np.ptp(deletion.sel(level=0).values) == 0, "the image itself, whatever the radius"


def test_more_is_certified_at_a_smaller_share(house):
    means = table(house)["mean"].sel({"classifier": C, "method": "gradient", "metric": "certified_important"})
    for sigma in (0.15, 0.25):
        low, high = (means.sel(radius=radius(sigma, tau), level=[10, 30, 50]) for tau in (0.6, 0.75))
        assert (low >= high).all()
        assert (low > high).any()


def test_a_radius_that_a_metric_does_not_have_is_empty(house):
    here = {"classifier": C, "method": "gradient", "metric": "certified_grid_pointing_game", "level": 30}
    found = table(house).sel(here)
    defined = found["radius"].values[found["count"].values > 0]
    assert defined.tolist() == sorted(radius(0.15, tau) for tau in (0.6, 0.75))


def test_one_tile_is_summarized_alone(house):
    at = {"classifier": C, "method": "gradient", "radius": radius(0.15, 0.6), "level": 30}
    found = table(house)
    every = scores(house, "gradient", "certified_grid_pointing_game")["score"][0, :, :, 1, 1]
    for metric, values in (("certified_grid_pointing_game", every), ("corner", every[:, 0])):
        here = found.sel({**at, "metric": metric})
        assert int(here["count"]) == values.size
        assert float(here["mean"]) == pytest.approx(values.mean(), rel=1e-6)


def test_leaderboards_rank_at_the_first_radius_and_the_level_that_is_named(house):
    summary = pd.read_parquet(house / "data/results/summary.parquet").set_index(["metric", "method"])
    at = {"classifier": C, "radius": radius(0.15, 0.75), "level": 30}
    for metric in ("certified_important", "certified_deletion", "corner"):
        for method in METHODS:
            expected = float(table(house)["mean"].sel({**at, "metric": metric, "method": method}))
            assert summary.loc[(metric, method), "mean"] == pytest.approx(expected, rel=1e-6)
    assert set(summary.loc["certified_important", "role"]) == {"apart"}


def test_the_report_has_its_section(house):
    page = (house / "data/report/index.html").read_text()
    assert 'id="certified"' in page
    assert "certified grid pointing game" in page


def test_another_test_of_the_same_votes_takes_no_vote(house, tmp_path):
    place = Path(shutil.copytree(house, tmp_path / "house", symlinks=True))
    params = certified()
    params["metrics"]["certified"]["certified_important"] = {**TEST, "tau": [0.7], "alpha": 0.01}
    write(place, params)
    made = {cell: line["computed"] for cell, line in repro(place, "aggregate").items() if line["computed"]}
    judged = {f"score@{C}-{family}": {"certified_important": IMAGES} for family in ("gradient", "control")}
    assert made == judged | {f"cost@{C}": {"metrics": 1}}


def test_another_noise_takes_its_own_votes_alone(house, tmp_path):
    place = Path(shutil.copytree(house, tmp_path / "house", symlinks=True))
    params = certified()
    params["certify"]["noise_25"]["sigma"] = 0.2
    write(place, params)
    made = {cell: line["computed"] for cell, line in repro(place, f"certify@{C}-gradient").items() if line["computed"]}
    assert made == {f"certify@{C}-gradient": {"gradient/noise_25/images": IMAGES}}
