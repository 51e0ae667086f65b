"""Studies beside the root's: their own settings, data and lock, the root's stages, and neither in the other's way."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from atlas.share import open_maps
from atlas.study.errors import UserError
from flows.commands.compare import read
from flows.commands.pull import pull
from flows.plan import plan, visits
from tests.support.study import IMAGES, ROOT, WARM_DVC, add_study, files, run, tiny, write

OURS = sorted(ROOT.glob("studies/*/dvc.yaml"))
CODE = r"(atlas|stages|uv\.lock)"


def test_there_are_studies():
    assert ROOT / "studies/photographs/dvc.yaml" in OURS


@pytest.mark.parametrize("file", OURS, ids=lambda file: file.parent.name)
def test_its_stages_are_the_roots(file):
    """Only where code lies differs, as seen from another folder."""
    root = (ROOT / "dvc.yaml").read_text()
    assert file.read_text() == re.sub(rf"(?m)^( +- ){CODE}", r"\1../../\2", root)


def drawn_by_the_root() -> dict:
    """The tiny study, seen from a folder of `studies`."""
    params = tiny()
    params["datasets"]["shapes"]["path"] = f"../../{params['datasets']['shapes']['path']}"
    return params


@pytest.fixture(scope="module")
def made(baseline, tmp_path_factory):
    """The repository of the tiny study, which stands beside one of the root that has not been made."""
    house = Path(shutil.copytree(baseline, tmp_path_factory.mktemp("beside") / "house", symlinks=True))
    study = add_study(house, "x")
    for name in ("data", "params.yaml"):
        (house / name).rename(study / name)
    write(study, drawn_by_the_root())
    lock = (house / "dvc.lock").read_text()
    (study / "dvc.lock").write_text(re.sub(rf"(?m)(path: ){CODE}", r"\1../../\2", lock))
    (house / "dvc.lock").unlink()
    shutil.rmtree(house / ".atlas")
    write(house, tiny())
    for command in (["add", "-A"], ["-c", "user.name=a", "-c", "user.email=a@b", "commit", "-qm", "All"]):
        subprocess.run(["git", *command], cwd=house, check=True)
    return house


@pytest.fixture
def house(made, tmp_path, monkeypatch):
    house = Path(shutil.copytree(made, tmp_path / "house", symlinks=True))
    monkeypatch.chdir(house)
    return house


def test_what_is_stale_of_one_says_nothing_of_the_other(house):
    assert set(plan(Path("studies/x")).needs) == {"report"}
    assert {"collect@shapes", "aggregate"} <= set(plan(Path()).needs)


def test_settings_of_one_that_cannot_be_read_are_not_in_the_others_way(house):
    (house / "params.yaml").write_text("datasets: [")
    assert set(plan(Path("studies/x")).needs) == {"report"}
    with pytest.raises(UserError):
        plan(Path())


def test_a_change_makes_its_rows_and_leaves_the_root_alone(house, tmp_path, monkeypatch):
    monkeypatch.setenv("PREFECT_HOME", str(tmp_path / "prefect"))
    params = drawn_by_the_root()
    params["methods"]["gradient"]["input_x_gradient"]["baseline"] = "mean"
    write(house / "studies/x", params)
    code = [files(house / name) for name in ("atlas", "stages")]
    said = run(house, "atlas", "reproduce", "--study", "studies/x", "--workers", "1").stdout
    assert "The report: studies/x/data/report/index.html" in " ".join(said.split())
    assert (house / "studies/x/data/report/index.html").is_file()
    visited = visits(house / "studies/x")["attribute@resnet_vanilla-gradient"]
    assert visited.computed < visited.wanted
    assert not (house / "data").exists()
    assert not (house / "dvc.lock").exists()
    assert [files(house / name) for name in ("atlas", "stages")] == code
    assert "Nothing is stale" in run(house, "atlas", "status", "--study", "studies/x").stdout
    assert "up to date" in run(house, "dvc", "repro", "studies/x/dvc.yaml").stdout
    subprocess.run(["git", "add", "-A"], cwd=house, check=True)
    changed = subprocess.run(["git", "status", "--short"], cwd=house, check=True, capture_output=True, text=True).stdout
    assert {line.split()[1] for line in changed.splitlines()} == {
        f"studies/x/{name}" for name in ("dvc.lock", "params.yaml")
    }


def test_dvc_alone_makes_what_it_makes_at_the_root(house, baseline):
    """The place of a study is in no key and in no byte of a result."""
    study = house / "studies/x"
    shutil.rmtree(house / ".dvc/cache")
    for name in ("maps", "scores"):
        shutil.rmtree(study / "data" / name)
    run(house, sys.executable, WARM_DVC, "repro", "-q", "studies/x/dvc.yaml:score@resnet_vanilla-gradient")
    for made in ("maps/resnet_vanilla/gradient.zarr", "scores/resnet_vanilla/gradient.zarr"):
        assert files(study / "data" / made) == files(baseline / "data" / made)
    assert not (house / "data").exists()


def test_commands_take_it_from_anywhere(house, tmp_path):
    image = open_maps("resnet_vanilla", "gradient", study="studies/x").image.values[0]
    run(house, "atlas", "show", str(image), "--study", "studies/x", "--output", str(tmp_path / "shown.png"))
    assert (tmp_path / "shown.png").is_file()
    params = drawn_by_the_root()
    del params["methods"]["noise"]
    write(house / "studies/x", params)
    said = run(house, "atlas", "clean", "--study", "studies/x").stdout
    assert "data/maps/resnet_vanilla/noise.zarr" in said
    assert not (house / "studies/x/data/maps/resnet_vanilla/noise.zarr").exists()
    assert read(Path("studies/x"), "HEAD").sizes["method"] == 5
    shutil.copytree("studies/x", "studies/y")
    with pytest.raises(UserError, match="HEAD has no studies/y/data/results"):
        read(Path("studies/y"), "HEAD")


def test_a_pull_brings_its_outputs_alone(house):
    remote = house.parent / "remote"
    run(house, "dvc", "remote", "add", "--default", "shared", str(remote))
    run(house, "dvc", "push", "-q", "studies/x/dvc.yaml")
    shutil.rmtree("studies/x/data")
    shutil.rmtree(".dvc/cache")
    pull(Path("studies/x"), ["data/images/resnet_vanilla.zarr"])
    assert len(open_images("studies/x")) == IMAGES
    pull(Path("studies/x"), ["data/maps/resnet_vanilla/gradient.zarr"])
    assert open_maps("resnet_vanilla", "gradient", study="studies/x").sizes["image"] == IMAGES
    assert not (house / "data").exists()


def open_images(study: str) -> list:
    import zarr

    return zarr.open_group(f"{study}/data/images/resnet_vanilla.zarr/images", mode="r")["image"][:].tolist()
