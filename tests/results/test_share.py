"""What a study made is opened with one line, lazily, and pushed and pulled by DVC."""

import json
import re
import shutil
import subprocess

import numpy as np
import pytest
import xarray as xr

from atlas.cache.stores import array, group_at
from atlas.cache.zipped import RESULTS
from atlas.share import open_maps, open_results, open_scores
from atlas.study.errors import UserError
from atlas.study.params import path
from tests.support import scores, stored
from tests.support.forked import call
from tests.support.results import packed
from tests.support.scores import Made
from tests.support.study import environment, files, run, tiny, write

# `method` is a keyword of xarray's sel, so that names are given in a dict.
AT = {"classifier": "resnet_vanilla", "method": "gradient", "metric": "relevance_rank"}


def test_maps_open_lazy_and_labelled(baseline):
    maps = open_maps("resnet_vanilla", "smoothgrad", study=baseline)
    assert maps.dims == ("image", "y", "x")
    assert maps.chunks is not None
    assert set(maps.coords) >= {"image", "target"}
    assert maps.attrs["long_name"] == "SmoothGrad"
    assert np.isfinite(maps.isel(image=0).values).all()
    grids = open_maps("resnet_vanilla", "smoothgrad", on="grids", study=baseline)
    assert grids.dims == ("grid", "tile", "y", "x")


def test_results_open_labelled(baseline):
    summary = open_results(study=baseline)
    one = summary["mean"].sel(AT)
    assert 0 <= float(one) <= 1
    assert int(summary["count"].sel(AT)) == 12
    assert {"low", "high", "rank"} <= set(summary.data_vars)


def test_names_that_are_not_there(baseline):
    with pytest.raises(UserError, match="names no method 'gradcamm'; it names: gradient"):
        open_maps("resnet_vanilla", "gradcamm", study=baseline)
    with pytest.raises(UserError, match="names no classifier 'vgg'; it names: resnet_vanilla"):
        open_maps("vgg", "gradient", study=baseline)
    with pytest.raises(UserError, match=r"results\.zarr\.zip has no table 'sumary'; it has: agreement, comparison"):
        open_results("sumary", study=baseline)


def test_maps_that_are_not_here(baseline, tmp_path):
    shutil.copy(baseline / "params.yaml", tmp_path)
    told = f"is not here: `atlas pull --study {tmp_path}` brings it .*, `atlas reproduce --study {tmp_path}` makes it"
    with pytest.raises(UserError, match=told):
        open_maps("resnet_vanilla", "gradient", study=tmp_path)


def test_what_is_advised_are_commands(baseline, tmp_path, monkeypatch):
    from typer.testing import CliRunner

    from flows.cli import app

    shutil.copy(baseline / "params.yaml", tmp_path)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError) as raised:
        open_results()
    for command in re.findall("`atlas ([^`]*)`", str(raised.value)):
        assert CliRunner().invoke(app, [*command.split(), "--help"]).exit_code == 0
    assert "--study" not in str(raised.value)


def test_scores_of_a_metric_are_read_without_those_of_others(tmp_path, monkeypatch):
    """A store of several chunks: many metrics of many images."""
    write(tmp_path, tiny())
    for family, methods in tiny()["methods"].items():
        values = np.random.default_rng(0).random((len(methods), 4000))
        labels = {"method": list(methods), "image": [f"test_{n}" for n in range(4000)]}
        one = Made(values, np.ones(values.shape, bool), labels, {"better": "higher"}, {})
        names = ["relevance_rank", *(f"other_{number}" for number in range(80))]
        scores.write(path(tmp_path, "scores", "resnet_vanilla", family), family, dict.fromkeys(names, one))
    opened = open_scores("resnet_vanilla", "relevance_rank", study=tmp_path)
    store = path(tmp_path, "scores", "resnet_vanilla", "gradient")
    assert len([*(store / "images/score/c").iterdir()]) > 1
    for chunk in (store / "images/score/c").iterdir():
        if chunk.name != "0":
            shutil.rmtree(chunk)  # read, it would be missing values
            (chunk / "0").mkdir(parents=True)
            (chunk / "0" / "0").write_bytes(b"damaged")
    assert np.isfinite(opened.sel({"method": "gradient"}).values).all()


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """A study whose maps and results are stores of random numbers, of several chunks a shard."""
    study, rng = tmp_path_factory.mktemp("written"), np.random.default_rng(0)
    write(study, tiny())
    for family, dtype in (("gradient", "float32"), ("control", "float16")):
        groups = {}
        for group, dims, shape in (("images", ("image",), (7,)), ("grids", ("grid", "tile"), (3, 4))):
            labels = {dims[0]: [f"test_{n}" for n in range(shape[0])], "target": (dims, np.arange(np.prod(shape)))}
            labels["target"] = dims, labels["target"][1].reshape(shape)
            labels |= {dim: np.arange(4) for dim in dims[1:]}
            made = {}
            for method in tiny()["methods"][family]:
                values = rng.standard_normal((*shape, 64, 48)).astype(dtype)
                values[0] = np.nan
                known = {"units": "logit", "unsupported": "no reason"}
                made[method] = stored.Made(dims, {"attribution": (("y", "x"), values)}, labels, known)
            groups[group] = "method", made
        stored.write(path(study, "maps", "resnet_vanilla", family), groups, {"family": family}, shard=3)
    notes = {
        "bootstrap": {"resamples": 20, "level": 0.95},
        "unsupported": {},
        "pairs": [["a", "b"], ["c", "d"]],
        "n": 8,
    }
    for count, family in enumerate(tiny()["methods"], 2):
        made = Made(
            rng.random((count, 7)),
            np.ones((count, 7), bool),
            {"method": [f"{family}_{n}" for n in range(count)], "image": [f"test_{n}" for n in range(7)]},
            {"better": "higher", "of": [1, 2], "flag": True},
            {},
        )
        scores.write(path(study, "scores", "resnet_vanilla", family), family, {"relevance_rank": made})
    group_at(folder := study / "data/results/results.zarr", {})
    results = group_at(folder / "summary", notes)
    array(results, "method", np.array(["gradient", "gradcam"]), ("method",), {})
    array(results, "control", np.array([False, True]), ("method",), {"flag": True, "of": None})
    array(results, "mean", rng.random((2, 60)), ("method", "metric"), {"range": [0, 1]})
    array(results, "count", np.arange(120).reshape(2, 60), ("method", "metric"), {})
    results.create_array("low", shape=(2, 60), chunks=(1, 7), dtype="f8", dimension_names=("method", "metric"))
    results["low"][...] = rng.random((2, 60))
    packed(folder, study / RESULTS)
    return study


OPENED = {
    "images": lambda study: open_maps("resnet_vanilla", "gradient", study=study),
    "grids": lambda study: open_maps("resnet_vanilla", "gradient", on="grids", study=study),
    "half": lambda study: open_maps("resnet_vanilla", "uniform", study=study),
    "scores": lambda study: open_scores("resnet_vanilla", "relevance_rank", study=study),
    "results": lambda study: open_results(study=study),
}


@pytest.mark.parametrize("part", [slice(None), slice(1, 40)], ids=["whole", "part"])
@pytest.mark.parametrize("kind", ["zarr", "netcdf"])
@pytest.mark.parametrize("name", OPENED)
def test_what_is_opened_can_be_written_again(written, tmp_path, name, kind, part):
    given = OPENED[name](written)
    given = given.isel({given.dims[0] if name != "results" else "metric": part})
    if kind == "zarr":
        given.to_zarr(tmp_path / "copy.zarr", consolidated=False)
        back = xr.open_zarr(tmp_path / "copy.zarr", consolidated=False)
    else:
        given.to_netcdf(tmp_path / "copy.nc")
        back = xr.load_dataset(tmp_path / "copy.nc", mmap=False)
    xr.testing.assert_identical(back.load(), (given if name == "results" else given.to_dataset()).load())


def test_attributes_of_many_parts_are_json(written):
    attrs = open_results(study=written).attrs
    assert json.loads(attrs["bootstrap"]) == {"resamples": 20, "level": 0.95}
    assert json.loads(attrs["pairs"]) == [["a", "b"], ["c", "d"]]
    assert attrs["n"] == 8


def test_push_and_pull_through_a_folder(baseline, tmp_path):
    house = shutil.copytree(baseline, tmp_path / "mine", symlinks=True)
    run(house, "dvc", "remote", "add", "--default", "shared", str(tmp_path / "shared"))
    run(house, "dvc", "push", "-q")
    run(house, "git", "add", ".")
    run(house, "git", "-c", "user.name=a", "-c", "user.email=a@b", "commit", "-qm", "study")
    subprocess.run(["git", "clone", "-q", str(house), str(tmp_path / "theirs")], check=True)
    theirs = tmp_path / "theirs"
    call(["dvc", "pull", "-q", "--allow-missing"], theirs, environment(theirs))
    assert files(theirs / "data/maps") == files(house / "data/maps")
    np.testing.assert_array_equal(
        open_maps("resnet_vanilla", "gradient", study=theirs), open_maps("resnet_vanilla", "gradient", study=house)
    )
