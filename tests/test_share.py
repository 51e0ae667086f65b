"""What a study made is opened with one line, lazily, and pushed and pulled by DVC."""

import shutil
import subprocess

import numpy as np
import pytest
from study import environment, files, run

from stages.share import open_maps, open_results
from stages.study.problem import Problem

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
    with pytest.raises(Problem, match="names no method 'gradcamm'; it names: gradient"):
        open_maps("resnet_vanilla", "gradcamm", study=baseline)
    with pytest.raises(Problem, match="names no classifier 'vgg'; it names: resnet_vanilla"):
        open_maps("vgg", "gradient", study=baseline)


def test_maps_that_are_not_here(baseline, tmp_path):
    shutil.copy(baseline / "params.yaml", tmp_path)
    with pytest.raises(Problem, match="is not here: make it with `dvc repro`, or bring it with `dvc pull`"):
        open_maps("resnet_vanilla", "gradient", study=tmp_path)


def test_push_and_pull_through_a_folder(baseline, tmp_path):
    house = shutil.copytree(baseline, tmp_path / "mine", symlinks=True)
    run(house, "dvc", "remote", "add", "--default", "shared", str(tmp_path / "shared"))
    run(house, "dvc", "push", "-q")
    run(house, "git", "add", ".")
    run(house, "git", "-c", "user.name=a", "-c", "user.email=a@b", "commit", "-qm", "study")
    subprocess.run(["git", "clone", "-q", str(house), str(tmp_path / "theirs")], check=True)
    theirs = tmp_path / "theirs"
    subprocess.run(["dvc", "pull", "-q", "--allow-missing"], cwd=theirs, env=environment(theirs), check=False)
    assert files(theirs / "data/maps") == files(house / "data/maps")
    np.testing.assert_array_equal(
        open_maps("resnet_vanilla", "gradient", study=theirs), open_maps("resnet_vanilla", "gradient", study=house)
    )
