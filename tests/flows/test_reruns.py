"""Change something, run again: which rows are computed. Each case is really run, by DVC, on a tiny study."""

import hashlib
import json
import re
import shutil
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

from atlas.cache.stacks import places
from tests.support import results, study
from tests.support.study import GRIDS, IMAGES, build, computed, files, run, tiny, write

repro = partial(study.repro, faster=True)
MAPS = IMAGES + 4 * GRIDS
ROWS = ("score", "correlate", "cost")  # these stages, and what they need, make all rows
PER_METHOD = {"pointing_game": IMAGES, "relevance_rank": IMAGES, "grid_pointing_game": 4 * GRIDS, "deletion": 8}


@pytest.fixture
def house(baseline, tmp_path) -> Path:
    return Path(shutil.copytree(baseline, tmp_path / "house", symlinks=True))


def maps(*methods: str) -> dict[str, int]:
    return {
        f"attribute:{name}:{kind}": rows
        for name in methods
        for kind, rows in (("images", IMAGES), ("grids", 4 * GRIDS))
    }


def scores(methods: int, **metrics: int) -> dict[str, int]:
    return {f"score:{name}": rows * methods for name, rows in (metrics or PER_METHOD).items()}


def edit(name: str, old: str, new: str) -> Callable[[Path], None]:
    def change(house: Path) -> None:
        text = (house / name).read_text()
        assert old in text, f"{name} has no {old!r}"
        (house / name).write_text(text.replace(old, new))

    return change


def setting(change: Callable[[dict], object]) -> Callable[[Path], None]:
    def changed(house: Path) -> None:
        params = tiny()
        change(params)
        write(house, params)

    return changed


def reordered(params: dict) -> None:
    for kind in ("methods", "metrics"):
        params[kind] = {family: dict(reversed(listed.items())) for family, listed in reversed(params[kind].items())}


def spelled_anew(old: str, new: str) -> Callable[[Path], None]:
    """Rename a module of methods, wherever it is imported or looked for."""

    def change(house: Path) -> None:
        (house / f"atlas/methods/{old}.py").rename(house / f"atlas/methods/{new}.py")
        before, after = (f"atlas.methods.{name.replace('/', '.')} " for name in (old, new))
        for file in [file for package in ("atlas", "stages") for file in (house / package).rglob("*.py")]:
            file.write_text(file.read_text().replace(before, after))

    return change


def renamed_family(house: Path) -> None:
    """Rename the module of a family, and the family in params.yaml: its cells have other names then."""
    spelled_anew("noise", "noisy")(house)

    def renamed(params: dict) -> None:
        params["methods"] = {("noisy" if name == "noise" else name): one for name, one in params["methods"].items()}

    setting(renamed)(house)


def moved_method(house: Path) -> None:
    """Move a method from its family's module to another's, with what is said of it, and its entry in params.yaml."""
    source, target = house / "atlas/methods/control.py", house / "atlas/methods/gradient.py"
    text = source.read_text()
    function = re.search(r"^def center\(.*?\n(?=\n\ndef )", text, re.MULTILINE | re.DOTALL).group()
    about = re.search(r'^    "center": \{.*?^    \},\n', text, re.MULTILINE | re.DOTALL).group()
    source.write_text(text.replace(function, "").replace(about, ""))
    text = target.read_text() + "\n\n" + function
    text = text.replace("from torch import Tensor", "import numpy as np\nimport torch\nfrom torch import Tensor", 1)
    text = text.replace("import Images,", "import Attributions, Images,", 1)
    text = text.replace("schema.types import Layer, Output,", "schema.types import Layer, Output, Positive,", 1)
    target.write_text(text.replace("ATTRS = {\n", "ATTRS = {\n" + about, 1))

    def moved_entry(params: dict) -> None:
        params["methods"]["gradient"]["center"] = params["methods"]["control"].pop("center")

    setting(moved_entry)(house)


SIMILAR = {"correlate:": IMAGES}


def costs(**rows: int) -> dict[str, int]:
    return {f"cost:{table}": number for table, number in rows.items()}


CASES = {
    "nothing": (lambda house: None, {}),
    "a helper that is renamed": (spelled_anew("shared/noise", "shared/copies"), {}),
    "a family that is renamed, and its module": (renamed_family, {}),
    "a method that moves to another family": (moved_method, {}),
    "a comment in a method's file": (
        edit("atlas/methods/noise.py", "def smoothgrad(", "# A comment.\ndef smoothgrad("), {},
    ),
    "a method's code": (
        edit("atlas/methods/gradient.py", "return (activations - ", "return 2 * (activations - "),
        {**maps("input_x_gradient"), **scores(1), **SIMILAR, **costs(methods=1)},
    ),
    "a method's code that gives the same maps": (
        edit("atlas/methods/gradient.py", "return (activations - ", "return 1 * (activations - "),
        {**maps("input_x_gradient"), **costs(methods=1)},
    ),
    "one setting of a method": (
        setting(lambda params: params["methods"]["noise"]["smoothgrad"].update(samples=3)),
        {**maps("smoothgrad"), **scores(1), **SIMILAR, **costs(methods=1)},
    ),
    "a new method": (
        setting(lambda params: params["methods"]["control"].update(canny={"sigma": 1.0, "channels": "sum"})),
        {**maps("canny"), **scores(1), **SIMILAR, **costs(methods=1)},
    ),
    "the reduction of channels in the verb": (
        edit("atlas/inputs/explain.py", "sized.amax(dim=1)", "sized.max(dim=1).values"),
        {**maps("gradient", "input_x_gradient", "smoothgrad", "uniform", "center"), **costs(methods=5)},
    ),
    "the reduction of channels of an entry": (
        setting(lambda params: params["methods"]["gradient"]["gradient"].update(channels="max_abs")),
        {**maps("gradient"), **scores(1), **SIMILAR, **costs(methods=1, metrics=4)},  # the first that metrics judge
    ),
    "a metric's setting": (
        setting(lambda params: params["metrics"]["localization"]["pointing_game"].update(tolerance=9)),
        {**scores(5, pointing_game=IMAGES), **costs(metrics=1)},
    ),
    "a metric's code": (
        edit("atlas/metrics/grid.py", "    return ", "    return 1 * "),
        {**scores(5, grid_pointing_game=4 * GRIDS), **costs(metrics=1)},
    ),
    "what a metric's code does not reach": (
        edit("atlas/metrics/grid.py", "def grid_pointing_game(", "LIMIT = 1\n\n\ndef grid_pointing_game("), {},
    ),
    "a metric on more images": (
        setting(lambda params: params["metrics"]["faithfulness"]["deletion"].update(count=11)), scores(5, deletion=3),
    ),
    "the order of entries": (setting(reordered), {}),
    "a name that is looked up while it runs": (
        edit("atlas/methods/gradient.py", "return (activations - ", "return len([vars]) * (activations - "),
        {**maps("input_x_gradient"), **costs(methods=1)},
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_a_change_computes_what_depends_on_it_and_nothing_else(house, case):
    change, expected = CASES[case]
    change(house)
    assert computed(repro(house, *ROWS)) == expected


def test_a_new_helper_is_seen_by_dvc_and_by_keys(house):
    helper, family = house / "atlas/methods/_extra.py", "atlas/methods/noise.py"
    helper.write_text("def doubled(attributions):\n    return 2 * attributions\n")
    plain = "from atlas.methods.shared.noise import"
    edit(family, plain, f"from atlas.methods._extra import doubled\n{plain}")(house)
    gradients = "noisy_gradients(classifier, images, targets, seeds, samples, spread, extent, output).signed(sign)"
    edit(family, f"return {gradients}", f"return doubled({gradients})")(house)
    expected = {**maps("smoothgrad"), **scores(1), **SIMILAR, **costs(methods=1)}
    assert computed(repro(house, *ROWS)) == expected
    edit("atlas/methods/_extra.py", "2 *", "3 *")(house)
    assert computed(repro(house, *ROWS)) == expected


def test_a_package_that_no_stage_uses_makes_nothing_stale(house):
    with (house / "uv.lock").open("a") as lock:
        lock.write('\n[[package]]\nname = "dvc-s3"\nversion = "3.3.0"\n')
    stale = json.loads(run(house, "dvc", "status", "--json").stdout)
    assert set(stale) - {"report"} == {"versions"}  # the report was never made
    assert repro(house, *ROWS) == {}
    assert not json.loads(run(house, "dvc", "status", "--json", *ROWS).stdout)


def test_another_version_of_a_package_that_a_package_requires_makes_its_rows_anew(house):
    """SciPy, which scikit-image requires: of the methods, `canny` alone imports that."""
    change = setting(lambda params: params["methods"]["control"].update(canny={"sigma": 1.0, "channels": "sum"}))
    change(house)
    repro(house, *ROWS)
    edit(
        "atlas/cache/fingerprint/packages.py",
        "found[name] = version(name)",
        "found[name] = '9' if name == 'scipy' else version(name)",
    )(house)
    with (house / "uv.lock").open("a") as lock:
        lock.write("# scipy 9\n")
    found = computed(repro(house, *ROWS))
    assert {name: rows for name, rows in found.items() if name.startswith("attribute:")} == maps("canny")


# A stage runs its `main` with a check that always fails, where there is no output yet.
UNPLACED = """
import shutil, sys
from importlib import import_module
from pathlib import Path
from atlas.cache.stacks import places
from atlas.study import unedited
from atlas.study.errors import UserError

def edited():
    raise UserError("edited")

for verb, names, output in [
    ("versions", [], "versions"), ("collect", ["shapes"], "datasets/shapes.zarr"),
    ("prepare", ["resnet_vanilla"], "classifiers/resnet_vanilla"),
    ("predict", ["resnet_vanilla"], "predictions/resnet_vanilla.zarr"),
    ("select", ["resnet_vanilla"], "images/resnet_vanilla.zarr"),
    ("tile", ["resnet_vanilla"], "grids/resnet_vanilla.zarr"),
    ("attribute", ["resnet_vanilla", "gradient"], "maps/resnet_vanilla/gradient.zarr"),
    ("certify", ["resnet_vanilla", "gradient"], "votes/resnet_vanilla/gradient.zarr"),
    ("score", ["resnet_vanilla", "gradient"], "scores/resnet_vanilla/gradient.zarr"),
    ("correlate", ["resnet_vanilla"], "similarity/resnet_vanilla.zarr"),
    ("cost", ["resnet_vanilla"], "cost/resnet_vanilla.zarr"),
    ("aggregate", [], "results"), ("report", [], "report"),
]:
    place, aside = Path("data", output), Path("aside")
    if place.exists():
        place.rename(aside)
    stage = import_module(f"stages.{verb}")
    before, unedited.check = unedited.check, edited
    try:
        stage.main(Path(), *names)
    except UserError as problem:
        assert str(problem) == "edited", (verb, problem)
    else:
        raise AssertionError(f"{verb} did not look whether anything was edited")
    assert not place.exists(), verb
    unedited.check = before
    if aside.exists():
        aside.rename(place)
"""


def test_every_stage_looks_for_edits_before_it_puts_its_output_in_place(house):
    run(house, sys.executable, "-c", UNPLACED)


def test_ten_more_images_compute_those_images(house):
    change = setting(lambda params: params["classifiers"]["resnet_vanilla"]["images"].update(count=IMAGES + 10))
    change(house)
    found = computed(repro(house, *ROWS))
    methods = ("gradient", "input_x_gradient", "smoothgrad", "uniform", "center")
    assert found == {
        **{f"attribute:{name}:images": 10 for name in methods},
        **scores(5, pointing_game=10, relevance_rank=10),
        "correlate:": 10,
    }


def test_another_seed_leaves_nothing_of_the_first(house, tmp_path):
    """The seed chooses the images, trains the classifier, breaks ties and draws noise."""
    setting(lambda params: params.update(seed=1))(house)
    found = computed(repro(house, "aggregate"))
    methods = ("gradient", "input_x_gradient", "smoothgrad", "uniform")
    assert {name: found[name] for name in maps(*methods)} == maps(*methods)
    assert found["score:deletion"] == 5 * 8
    fresh = build(tmp_path / "fresh", {**tiny(), "seed": 1})
    repro(fresh, "aggregate")
    assert files(house / "data") == files(fresh / "data")


def test_a_retrained_classifier_computes_all_that_names_it(house):
    change = setting(lambda params: params["classifiers"]["resnet_vanilla"]["train"].update(epochs=2))
    change(house)
    found = computed(repro(house, *ROWS))
    assert {name for name in found if name.startswith("attribute:") and name.endswith("images")} == {
        f"attribute:{name}:images" for name in ("gradient", "input_x_gradient", "smoothgrad")
    }
    assert found["score:deletion"] == 5 * 8
    assert found["score:pointing_game"] == 3 * IMAGES


def adopting(house: Path, weights: dict) -> None:
    """Have the classifier take weights from a file in place of training, normalized as it was."""
    file = house / "data/raw/net.safetensors"
    file.parent.mkdir(exist_ok=True)
    save_file(weights, file)
    card = json.loads((house / "data/classifiers/resnet_vanilla/card.json").read_text())
    sha256 = hashlib.sha256(file.read_bytes()).hexdigest()

    def adopted(params: dict) -> None:
        entry = params["classifiers"]["resnet_vanilla"]
        del entry["train"]
        entry["weights"] = {"file": "data/raw/net.safetensors", "sha256": sha256}
        entry["preprocess"] = {"mean": card["mean"], "std": card["std"]}

    setting(adopted)(house)


def test_another_checkpoint_makes_exactly_what_names_the_classifier_anew(house):
    weights = load_file(house / "data/classifiers/resnet_vanilla/weights.safetensors")
    adopting(house, weights)
    assert computed(repro(house, *ROWS)) == {}  # the same weights, wherever they are from
    adopting(house, {**weights, "head.2.bias": weights["head.2.bias"] + 0.1})
    found = computed(repro(house, *ROWS))
    named = {name for name in found if name.startswith("attribute:") and name.endswith("images")}
    assert named <= {f"attribute:{name}:images" for name in ("gradient", "input_x_gradient", "smoothgrad")}
    assert all(found[f"attribute:{name}:images"] == IMAGES for name in ("gradient", "input_x_gradient", "smoothgrad"))
    assert found["score:deletion"] == 5 * 8
    before = (house / "data/raw/net.safetensors").read_bytes()
    assert computed(repro(house, *ROWS)) == {}
    assert (house / "data/raw/net.safetensors").read_bytes() == before


def test_without_grids_nothing_is_trained_or_made_anew(house):
    before = files(house / "data/classifiers")
    setting(lambda params: params["classifiers"]["resnet_vanilla"].update(grids=None))(house)
    assert computed(repro(house, *ROWS)) == {}
    assert files(house / "data/classifiers") == before


def test_what_is_removed_is_in_no_result(house):
    def cut(params: dict) -> None:
        del params["methods"]["gradient"]["input_x_gradient"]
        del params["methods"]["noise"]

    setting(cut)(house)
    run(house, "atlas", "clean")
    assert not (house / "data/maps/resnet_vanilla/noise.zarr").exists()
    assert computed(repro(house, "aggregate")) == SIMILAR
    assert "input_x_gradient" not in places(house / "data/maps/resnet_vanilla/gradient.zarr", "the maps")["images"]
    for table in results.names(house):
        opened = results.opened(house, table)
        for name in ("method", "method_other"):
            if name in opened:
                assert list(opened[name].values) == ["gradient", "uniform", "center"], table
    numbers = json.loads((house / "data/metrics.json").read_text())
    assert set(numbers["mean_rank"]["resnet_vanilla"]) == {"gradient", "uniform", "center"}
