"""A teammate who has a part of a study brings, by key, the rows that the remote has, and computes the others."""

import json
import shutil
import sys
from pathlib import Path

import pytest
import yaml

from atlas.cache.stacks import places
from atlas.study.errors import UserError
from tests.support.forked import call
from tests.support.study import GRIDS, IMAGES, environment, files, run, tiny, write

# What the flow does, without Prefect.
VISIT = """
import os, sys
from pathlib import Path
from flows.plan import WARM, plan, verb
from flows.recording import commit, record
from flows.workers import make
for cell in plan(Path()).needs:
    name, parts = verb(cell)
    if name in WARM:
        assert commit(os.getcwd(), {cell: make(os.getcwd(), name, parts)}) == {}
    elif name != "report":
        record(os.getcwd(), cell)
"""
PART = ("classifiers", "images", "grids", "maps/resnet_vanilla/noise")


@pytest.fixture(scope="module")
def shared(baseline, tmp_path_factory):
    """A study whose outputs are in a remote, and what the remote has of each file of the maps."""
    house = Path(shutil.copytree(baseline, tmp_path_factory.mktemp("shared") / "house", symlinks=True))
    run(house, "dvc", "remote", "add", "--default", "shared", str(house.parent / "remote"))
    run(house, "dvc", "push", "-q")
    return house


@pytest.fixture
def theirs(shared, tmp_path):
    """A clone of it that has a part."""
    house = Path(shutil.copytree(shared, tmp_path / "theirs", ignore=shutil.ignore_patterns("data", "cache", ".atlas")))
    shutil.copytree(shared / "atlas/cache", house / "atlas/cache", dirs_exist_ok=True)
    (house / ".dvc/cache").mkdir(exist_ok=True)
    outs = [
        out["path"]
        for one in yaml.safe_load((house / "dvc.lock").read_text())["stages"].values()
        for out in one["outs"]
    ]
    run(house, "dvc", "pull", "-q", *(out for out in outs if out.startswith(tuple(f"data/{part}" for part in PART))))
    return house


def visit(house: Path, **more: str) -> dict[str, int]:
    """Bring it up to date; give the rows that were computed, by cell."""
    env = {**environment(house), "ATLAS_PULL": "1", **more}
    done = call([sys.executable, "-c", VISIT], house, env)
    assert done.returncode == 0, done.stdout + done.stderr
    found: dict[str, int] = {}
    for line in map(json.loads, (house / ".atlas/log.jsonl").read_text().splitlines()):
        found[line["cell"]] = found.get(line["cell"], 0) + line["rows_computed"]
    return {cell: rows for cell, rows in found.items() if rows}


def held(house: Path, md5: str) -> bool:
    return (house / ".dvc/cache/files/md5" / md5[:2] / md5[2:]).exists()


def test_what_the_remote_has_is_not_computed(shared, theirs):
    assert visit(theirs) == {}
    for folder in ("maps", "scores", "similarity", "cost", "results"):
        assert files(theirs / "data" / folder) == files(shared / "data" / folder), folder


def test_one_change_computes_its_rows_and_brings_the_others(shared, theirs):
    params = tiny()
    params["methods"]["gradient"]["gradient"]["channels"] = "max_abs"
    write(theirs, params)
    computed = visit(theirs)
    assert computed["attribute@resnet_vanilla-gradient"] == IMAGES + 4 * GRIDS
    assert set(computed) == {
        "attribute@resnet_vanilla-gradient",
        "score@resnet_vanilla-gradient",
        "correlate@resnet_vanilla",
        "cost@resnet_vanilla",
    }
    assert computed["score@resnet_vanilla-gradient"] == 2 * IMAGES + 4 * GRIDS + 8  # of one method of the two
    before = shared / "data/maps/resnet_vanilla/gradient.zarr"
    lock = yaml.safe_load((shared / "dvc.lock").read_text())["stages"]["attribute@resnet_vanilla-gradient"]
    name = lock["outs"][0]["md5"]
    assert not held(theirs, name)  # a listing there would say that all of it is
    listing = json.loads((shared / ".dvc/cache/files/md5" / name[:2] / name[2:]).read_text())
    shards = {one["relpath"]: one["md5"] for one in listing if "/attribution/c/" in one["relpath"]}
    assert shards
    at = {str(place.at): name for name, place in places(before, "the maps")["images"].items()}
    methods = {path: at[path.split("/")[3]] for path in shards}
    assert {methods[path] for path, md5 in shards.items() if held(theirs, md5)} == {"input_x_gradient"}
    for path in [path for path, method in methods.items() if method == "input_x_gradient"]:
        made = theirs / "data/maps/resnet_vanilla/gradient.zarr" / path
        assert made.read_bytes() == (before / path).read_bytes()


def test_a_remote_that_is_not_there_is_told(theirs, monkeypatch):
    from atlas.cache import remote

    run(theirs, "dvc", "remote", "remove", "shared")
    with pytest.raises(UserError, match="--pull: the remote cannot be read"):
        remote.fetch(theirs, theirs / "kept", ["0" * 32])


def test_a_damaged_file_of_the_remote_is_not_taken(theirs):
    from atlas.cache import remote

    (theirs / "other/files/md5/ab").mkdir(parents=True)
    (theirs / "other/files/md5/ab" / ("0" * 30)).write_text("1\n")
    run(theirs, "dvc", "remote", "add", "--force", "--default", "shared", str(theirs / "other"))
    with pytest.raises(UserError, match="the remote's file is damaged"):
        remote.fetch(theirs, theirs / "kept", ["ab" + "0" * 30])
    assert not [one for one in (theirs / "kept").rglob("*") if one.is_file()]
