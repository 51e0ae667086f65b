"""What methods and metrics must not do is an error that names them, and spoils nothing else."""

import json
import shutil
import subprocess
import sys
from copy import deepcopy

import numpy as np
import pytest
import torch
import zarr
from torch import nn

from atlas.cache.score_store import find as find_scores
from atlas.cache.stacks import places
from atlas.inputs import calls, row_inputs
from atlas.inputs.audit import process
from atlas.study.errors import UserError
from atlas.study.study import Study
from stages import attribute, certify, correlate, score, select, tile
from tests.support import forms, stored
from tests.support.cells import C, last_line, study
from tests.support.scores import read
from tests.support.study import ROOT, environment, tiny, write

__all__ = ["study"]

SUPPORT = ROOT / "tests/support"


@pytest.fixture(scope="module")
def told(tmp_path_factory):
    """What is told of every form, each called once in one process, on a copy of the project."""
    house = tmp_path_factory.mktemp("forms") / "house"
    for name in ("atlas", "stages"):
        shutil.copytree(ROOT / name, house / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("forms.py", "forms_inputs.py"):
        shutil.copy(SUPPORT / name, house)
    forms.write(house)
    known = {**environment(house), "SCALE": "2"}
    for script in ("prepare.py", "forms.py"):
        done = subprocess.run(
            [sys.executable, script], cwd=house, env=known, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr[-3000:]
    return json.loads((house / "told.json").read_text())


@pytest.mark.parametrize("form", forms.FAULTS)
def test_what_a_function_must_not_do_is_told(told, form):
    due = forms.FAULTS[form][1]
    if due is not None:
        assert told[form].startswith(f"Fault: form: atlas/metrics/{form}.py: form ")
        assert due in told[form]
        assert "\n" not in told[form]
    assert "AFTERWARDS" not in told[form]


@pytest.mark.parametrize("form", forms.SOUND)
def test_what_only_looks_like_it_is_not(told, form):
    assert told[form] == ""


@pytest.mark.parametrize("form", forms.RESULTS)
def test_what_it_gives_is_checked(told, form):
    assert told[form].startswith(forms.RESULTS[form][1])
    assert told[form] == "" or forms.RESULTS[form][1]


def test_a_module_that_no_key_holds_is_not_found_by_its_name(told):
    assert told["sys_modules"].startswith("KeyError: 'atlas.metrics.grid'")


TEMPORARY = """
import tempfile
from atlas.inputs import calls\nfrom atlas.inputs.audit import reads
from atlas.inputs.audit.reading import Held, Reading
from atlas.study.schema.settings import Entry

assert tempfile.tempdir is None
reading = Reading(Entry("methods", "control", "one", "center", {}, {}), Held(frozenset(), frozenset(), frozenset(), ()))
with reads.watching(reading):
    with tempfile.TemporaryFile() as file:
        file.write(b"1")
assert not reading.faults, reading.faults
"""


def test_the_first_temporary_file_of_a_process_may_be_a_functions(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", TEMPORARY], cwd=tmp_path, env=environment(ROOT), capture_output=True, text=True,
        check=False, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


BUILT = """
import contextlib, os, sys
from pathlib import Path
from atlas.inputs.audit.building import building
from atlas.model import loading
from atlas.study.errors import UserError

def suppressed(read):
    with contextlib.suppress(Exception):
        read()

RESNET = {"family": "residual", "function": "small_resnet", "widths": [4, 4], "blocks": 1}
VISION = {"family": "torchvision", "name": "resnet18", "side": None}
for network in (RESNET, VISION):
    assert loading.build(network, classes=3, watch=building)
real = loading.find
for read in (
    lambda: os.environ.get("SCALE", "1"),
    lambda: suppressed(lambda: os.environ["SCALE"]),
    lambda: Path(sys.argv[1]).read_text(),
    lambda: os.system("true"),
):
    loading.find = lambda *which: read() and None or real(*which)
    try:
        loading.build(RESNET, classes=3, watch=building)
        print("nothing")
    except UserError as told:
        print(told)
"""


def test_a_network_that_reads_what_its_key_does_not_hold_is_told(tmp_path):
    (tmp_path / "run.py").write_text(BUILT)
    done = subprocess.run(
        [sys.executable, "run.py", str(ROOT / "params.yaml")], cwd=tmp_path, env=environment(ROOT),
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    told = done.stdout.splitlines()
    assert len(told) == 4
    due = "reads the environment (SCALE)", "reads the environment (SCALE)", "reads params.yaml", "starts a process"
    for line, one in zip(told, due, strict=True):
        assert line.startswith(f"atlas/networks/residual.py: small_resnet {one}")


CENTER = {"function": "center", "sigma": 0.25, "channels": "sum"}
METHODS = {"one": CENTER, "two": {**CENTER, "sigma": 0.3}, "three": {**CENTER, "sigma": 0.4}}
METRICS = {
    "localization": {"pointing_game": {"tolerance": 4}, "relevance_rank": {}},
    "complexity": {"complexity": {}, "sparseness": {}},
    "stability": {"max_sensitivity": {"samples": 2, "noise": "uniform", "scale": 0.2}},
}
VOTES = {"form": "strict", "sigma": 0.15, "levels": [50, 30], "n0": 3, "n": 12, "images": 4, "grids": 0}
TEST = {"smoothings": ["noise"], "level": 30, "tau": [0.75], "alpha": 0.05, "correction": "none"}


@pytest.fixture
def prepared(study):
    params = tiny()
    params["methods"], params["metrics"] = {"control": METHODS}, METRICS
    params["certify"] = {"noise": {**VOTES, "tile": None, "methods": ["one", "two"]}}
    params["metrics"] = {**METRICS, "certified": {"certified_important": TEST}}
    write(study, params)
    select.main(study, C)
    tile.main(study, C)
    return study


def instead(monkeypatch, name, change):
    """Let a function do something else: `change` is given what it would be called with, and the function."""
    find = calls.find

    def other(kind, family, function):
        found = find(kind, family, function)
        return (lambda *given, **settings: change(found, *given, **settings)) if function == name else found

    monkeypatch.setattr(calls, "find", other)


def run(study):
    for verb in (attribute, certify, score):
        verb.main(study, C, "control")


def arrays(study):
    """All scores, maps and votes, by where they lie."""
    found = {
        f"{kind}/{group}/{name}/{one}": values
        for kind in ("maps", "votes")
        for store in sorted((study / "data" / kind).glob("*/*.zarr"))
        for group, listed in places(store, kind).items()
        for name in listed
        for one, values in stored.rows(store, group, name).items()
        if one in ("attribution", "counts", "tied")
    }
    for store in sorted((study / "data/scores").glob("*/*.zarr")):
        for metric in find_scores(store).places:
            found[f"{store.relative_to(study)}/{metric}/score"] = read(store, metric)["score"]
    return found


def same(one, other):
    assert one.keys() == other.keys()
    for name, values in one.items():
        np.testing.assert_array_equal(values, other[name], err_msg=name)


@pytest.fixture
def due(prepared, tmp_path):
    """What a run without faults gives."""
    apart = shutil.copytree(prepared, tmp_path / "due")
    run(apart)
    return arrays(apart)


class TestCells:
    """Whole cells in which one function does what it must not: no other rows are lost, or wrong."""

    def test_a_metric_that_writes_into_maps_changes_no_other_score(self, prepared, due, monkeypatch):
        attribute.main(prepared, C, "control")
        certify.main(prepared, C, "control")
        with monkeypatch.context() as broken:
            instead(
                broken,
                "pointing_game",
                lambda found, *given, **settings: found(given[0].neg_(), *given[1:], **settings),
            )
            with pytest.raises(UserError) as told:
                score.main(prepared, C, "control")
        assert str(told.value).count("writes into maps") == 3
        for name in METHODS:
            assert f"pointing_game ({name}): pointing_game: atlas/metrics/localization.py" in str(told.value)
        assert "\n" not in str(told.value)
        assert not (prepared / "data/scores").exists()
        computed = last_line(prepared)["computed"]
        assert "pointing_game" not in computed, "no row of a call that wrote is kept"
        assert computed == {"relevance_rank": 36, "complexity": 36, "sparseness": 36, "max_sensitivity": 36,
                            "certified_important": 8}  # fmt: skip
        score.main(prepared, C, "control")
        assert last_line(prepared)["computed"] == {"pointing_game": 36}
        same(arrays(prepared), due)

    def test_a_method_that_writes_into_images_changes_no_other_map(self, prepared, due, monkeypatch):
        def wrong(found, images, **settings):
            if settings["sigma"] == 0.3:
                images.data.zero_()
            return found(images, **settings)

        for verb, named in (
            (attribute, "two"),
            (certify, r"two \(noise\)"),
            (score, r"max_sensitivity \(two\)"),
        ):
            with monkeypatch.context() as broken:
                instead(broken, "center", wrong)
                with pytest.raises(
                    UserError, match=rf"{named}: two: atlas/methods/control.py: center writes into images"
                ):
                    verb.main(prepared, C, "control")
            others = last_line(prepared)["rows_computed"]
            verb.main(prepared, C, "control")
            assert 0 < last_line(prepared)["rows_computed"] <= others
        same(arrays(prepared), due)

    @pytest.mark.parametrize(
        ("give", "told"),
        [
            (lambda found: found.numpy(), "TypeError: attributions that are a numpy.ndarray"),
            (lambda found: found[1:], "ValueError: attributions of the shape"),
            (lambda found: found[:, 0], "ValueError: attributions of the shape"),
            (lambda found: None, "TypeError: attributions that are a NoneType"),
            (lambda found: found.long(), "TypeError: attributions of torch.int64"),
            (lambda found: [][1], "IndexError: list index out of range"),
            (lambda found: sys.exit(1), r"RuntimeError: raised SystemExit\(1\)"),
            (lambda found: found * 1e30 * 1e30, ""),
        ],
    )
    def test_a_method_that_gives_something_else_costs_its_own_rows(self, prepared, monkeypatch, give, told):
        def other(found, images, **settings):
            made = found(images, **settings)
            return give(made) if settings["sigma"] == 0.3 else made

        instead(monkeypatch, "center", other)
        if not told:
            attribute.main(prepared, C, "control")
            return
        with pytest.raises(UserError, match=f"two: {told}.*images test_"):
            attribute.main(prepared, C, "control")
        computed = last_line(prepared)["computed"]
        assert computed == {f"{name}/{of}": 12 for name in ("one", "three") for of in ("images", "grids")}
        assert not (prepared / "data/maps").exists()

    def test_one_undefined_map_costs_its_image(self, prepared, due, monkeypatch):
        """The map of one image, and of the noisy samples of another, are not finite."""
        shown = row_inputs.images(Study(prepared), C)
        known = row_inputs.tensors(shown, np.arange(12), "cpu")["images"]

        def other(found, images, **settings):
            made = found(images, **settings).clone()
            if settings["sigma"] == 0.3 and images.shape[-1] == 64:
                clean = [any(torch.equal(image, one) for one in known) for image in images]
                for row, image in enumerate(images):
                    near = (known - image).abs().mean(dim=(1, 2, 3)).argmin()
                    made[row, 0, 3, 4] = torch.nan if (near == 2 if clean[row] else near == 1) else made[row, 0, 3, 4]
            return made

        instead(monkeypatch, "center", other)
        run(prepared)
        found = arrays(prepared)
        assert found.keys() == due.keys()
        maps = [name for name in found if name.endswith("attribution")]
        for name in maps:
            without = [2] if name == "maps/images/two/attribution" else []
            assert np.isnan(found[name][without]).all()
            np.testing.assert_array_equal(*(np.delete(one[name], without, axis=0) for one in (found, due)))
        votes = next(name.rpartition("/")[0] for name in found if "two/noise/counts" in name and "images" in name)
        assert (found[f"{votes}/tied"][1] == 2**16 - 1).all()
        assert not found[f"{votes}/counts"][1].any()
        np.testing.assert_array_equal(*(np.delete(one[f"{votes}/counts"], 1, axis=0) for one in (found, due)))
        for name in [name for name in found if name.endswith("score")]:
            lost = {"certified_important": [1], "max_sensitivity": [1, 2]}.get(name.split("/")[-2], [2])
            assert np.isnan(found[name][1, lost]).all(), name
            left = np.delete(found[name][1], lost, axis=0), np.delete(due[name][1], lost, axis=0)
            np.testing.assert_array_equal(*left, err_msg=name)
            np.testing.assert_array_equal(found[name][[0, -1] if len(found[name]) > 2 else 0],
                                          due[name][[0, -1] if len(found[name]) > 2 else 0])  # fmt: skip
        correlate.main(prepared, C)
        pearson = zarr.open_array(prepared / "data/similarity" / f"{C}.zarr/pearson", mode="r")[...]
        assert np.isnan(pearson[2]).any()
        assert not np.isnan(np.delete(pearson, 2, axis=0)).any()
        computed = last_line(prepared)
        run(prepared)
        assert last_line(prepared)["rows_computed"] == 0, computed


def test_classes_of_one_name_are_watched_apart_and_may_be_copied():
    """A module that is loaded twice makes its classes twice."""

    def made() -> type[nn.Module]:
        class Layer(nn.Module):
            def forward(self, given):
                return given

        Layer.__module__ = "tower"
        return Layer

    kinds = [made(), made()]
    own = [kind.forward for kind in kinds]
    process.watch_layers(kinds)
    try:
        before = process.state()
        deepcopy(kinds[0]())
        assert process.restored(before, False) == []
        assert [kind.forward for kind in kinds] == own
        kinds[1].forward = own[0]
        (changed,) = process.restored(before, False)
        assert changed.endswith("Layer holds")
        assert [kind.forward for kind in kinds] == own
    finally:
        process.forget_layers()
