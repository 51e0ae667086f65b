"""A bad entry is one message that names the file, the entry, what was given and what is accepted."""

import ast
import importlib
import os
import shutil
import subprocess
import sys
from copy import deepcopy
from pathlib import Path
from typing import Literal

import pytest
import scipy.stats
import yaml

from atlas.study import params
from atlas.study.command import command
from atlas.study.errors import UserError
from atlas.study.params import entries, load, network, path, settings
from atlas.study.parsing import parsed
from atlas.study.schema import ranges, signatures, types
from atlas.study.schema.signatures import attributes, signature
from atlas.study.schema.smoothing import check_smoothings, radius, read_smoothings

STUDY = Path(__file__).parents[2]
DUMPER = getattr(yaml, "CSafeDumper", yaml.SafeDumper)


@pytest.fixture
def given():
    return yaml.safe_load((STUDY / "params.yaml").read_text())


def told(tmp_path, given) -> str:
    (tmp_path / "params.yaml").write_text(yaml.dump(given, Dumper=DUMPER, sort_keys=False))
    with pytest.raises(UserError) as problem:
        load(tmp_path)
    return str(problem.value)


def test_the_default_study_is_good():
    load(STUDY)


def test_an_unknown_method(tmp_path, given):
    given["methods"]["cam"]["gradcamm"] = {"channels": "sum"}
    message = told(tmp_path, given)
    assert "params.yaml: methods.cam.gradcamm: atlas/methods/cam.py has no function 'gradcamm'; it has: " in message
    assert "gradcam, " in message


def test_an_unknown_family(tmp_path, given):
    given["methods"]["camm"] = {"my_cam": {"function": "gradcam", "channels": "sum"}}
    message = told(tmp_path, given)
    assert "methods.camm.my_cam: atlas/methods has no family 'camm'; there are: " in message
    assert "cam, cam_averaged, control" in message


def test_a_misspelt_setting(tmp_path, given):
    entry = given["methods"]["noise"]["smoothgrad"]
    entry["smaples"] = entry.pop("samples")
    message = told(tmp_path, given)
    assert message.startswith("params.yaml: methods.noise.smoothgrad: ")
    assert "the setting 'samples' is missing" in message
    assert "unknown setting 'smaples' = 16" in message
    assert "Accepted by smoothgrad of atlas/methods/noise.py: samples: int, spread: float" in message


@pytest.mark.parametrize(
    ("value", "expected"),
    [("16", "'samples' = '16': expected int, got str"), (1.5, "'samples' = 1.5: expected int, got float")],
)
def test_a_wrong_type(tmp_path, given, value, expected):
    given["methods"]["noise"]["smoothgrad"]["samples"] = value
    assert expected in told(tmp_path, given)


def test_a_wrong_choice(tmp_path, given):
    given["methods"]["cam"]["gradcam"]["channels"] = "mean"
    assert "'channels' = 'mean': expected Literal['sum', 'abs_sum', 'max_abs'], got str" in told(tmp_path, given)


def test_a_missing_option(tmp_path, given):
    del given["methods"]["cam"]["gradcam"]["channels"]
    assert "methods.cam.gradcam: the setting 'channels' is missing" in told(tmp_path, given)


def test_a_name_that_dvc_would_join_wrongly(tmp_path, given):
    given["methods"]["cam"]["grad-cam"] = {"function": "gradcam", "channels": "sum"}
    assert "methods.cam.grad-cam: the name 'grad-cam' must be of a-z, 0-9 and _" in told(tmp_path, given)


def test_a_name_of_two_lines_is_told_in_one(tmp_path, given):
    given["classifiers"]["a\nb"] = given["classifiers"].pop(next(iter(given["classifiers"])))
    assert told(tmp_path, given).startswith(r"params.yaml: classifiers.a\nb: the name 'a\nb' must be of a-z")


def test_a_name_in_two_families(tmp_path, given):
    given["methods"]["control"]["gradcam"] = {"function": "uniform", "channels": "sum"}
    assert "methods.control.gradcam: the name 'gradcam' stands in family 'cam' already" in told(tmp_path, given)


def test_a_classifier_of_no_dataset(tmp_path, given):
    given["classifiers"]["resnet_robust"]["dataset"] = "imagenet"
    assert "classifiers.resnet_robust.dataset: no dataset 'imagenet'; known: shapes" in told(tmp_path, given)


def test_a_missing_section(tmp_path, given):
    del given["engine"]
    assert told(tmp_path, given).endswith("params.yaml: the section 'engine' is missing")


@pytest.mark.parametrize("section", ["certify", "robustness_eval"])
def test_a_missing_section_that_may_say_nothing(tmp_path, given, section):
    del given[section]
    due = f"params.yaml: the section '{section}' is missing; write `{section}: null` to leave it empty"
    assert told(tmp_path, given).endswith(due)


def test_all_missing_sections_at_once(tmp_path, given):
    for section in ("certify", "robustness_eval"):
        del given[section]
    message = "params.yaml: the sections 'robustness_eval', 'certify' are missing"
    due = "write `robustness_eval: null` and `certify: null` to leave them empty"
    assert told(tmp_path, given).endswith(f"{message}; {due}")
    del given["engine"], given["stores"]
    assert "the sections 'engine', 'stores', 'robustness_eval', 'certify' are missing; " in told(tmp_path, given)


@pytest.mark.parametrize("at", ["data/maps/photos", "data/photos", "./data/datasets", "../study/data/images/x", "LINK"])
def test_a_dataset_from_what_the_stages_make(tmp_path, given, at):
    study = tmp_path / "study"
    (study / "data/raw").mkdir(parents=True)
    (study / "data/datasets").mkdir()
    if at == "LINK":
        at = "data/raw/photos"
        (study / at).symlink_to(study / "data/datasets")
    given["datasets"]["shapes"]["path"] = at
    due = f"params.yaml: datasets.shapes.path = '{at}': lies among what the stages make and delete; expected another"
    assert due in told(study, given)


@pytest.mark.parametrize("at", ["data", ".", ".."])
def test_a_dataset_of_a_folder_that_holds_what_the_stages_make(tmp_path, given, at):
    given["datasets"]["shapes"]["path"] = at
    assert f"datasets.shapes.path = '{at}': holds what the stages make and delete" in told(tmp_path, given)


@pytest.mark.parametrize("at", ["data/raw", "data/raw/photos", "elsewhere", "data/../photos", "/photos", "LINK"])
def test_a_dataset_from_elsewhere(tmp_path, given, at):
    if at == "LINK":
        at = "data/raw/photos"
        (tmp_path / "data/raw").mkdir(parents=True)
        (tmp_path / at).symlink_to("/usr")
    given["datasets"]["shapes"]["path"] = at
    (tmp_path / "params.yaml").write_text(yaml.dump(given, Dumper=DUMPER, sort_keys=False))
    assert load(tmp_path)["datasets"]["shapes"]["path"] == at


def test_no_file(tmp_path):
    with pytest.raises(UserError, match=r"params\.yaml: there is no such file"):
        load(tmp_path)


def test_no_yaml(tmp_path):
    (tmp_path / "params.yaml").write_text("seed: [1\n")
    with pytest.raises(UserError, match=r"params\.yaml: not YAML"):
        load(tmp_path)


def test_a_verbs_settings(given):
    rules = {**given["classifiers"]["resnet_vanilla"]["images"], "cout": 3}
    with pytest.raises(UserError, match=r"classifiers\.x\.images: unknown setting 'cout' = 3\. Accepted by eligible"):
        settings("classifiers.x.images", rules, "stages/select", "eligible")


def test_a_networks_settings(given):
    given["classifiers"]["resnet_vanilla"]["network"]["width"] = 3
    with pytest.raises(UserError, match=r"classifiers\.resnet_vanilla\.network: unknown setting 'width' = 3"):
        network(given, "resnet_vanilla")


def test_one_entry_may_name_another_function(given):
    bound = entries(given, "methods")["noise"]["gag_85"]
    assert (bound.function, bound.settings["percentile"], bound.options) == (
        "gag",
        85,
        {"channels": "abs_sum", "count": None, "grids": True, "reverse": None},
    )


def test_signatures_are_read_from_source():
    found = signature("methods", "noise", "smoothgrad")
    assert found.inputs == ["classifier", "images", "targets", "seeds"]
    assert list(found.settings) == ["samples", "spread", "extent", "output", "sign"]
    assert found.settings["spread"] is float
    assert found.settings["extent"] == Literal["image", "batch"]


def test_attributes_are_read_from_source():
    assert attributes("metrics", "faithfulness", "deletion")["better"] == "lower"
    assert attributes("methods", "cam", "no_such_function")["long_name"] == "no such function"


def test_paths():
    assert path(Path("s"), "maps", "c", "cam").as_posix() == "s/data/maps/c/cam.zarr"
    assert path(Path("s"), "classifiers", "c").as_posix() == "s/data/classifiers/c"


@pytest.mark.parametrize(
    ("section", "name", "value", "expected"),
    [
        ("engine", "device", "gpu", "engine: 'device' = 'gpu': expected Literal['cpu', 'cuda'], got str"),
        ("engine", "batch", 0, "engine: 'batch' = 0: expected at least 1"),
        ("stores", "dtype", "float64", "stores: 'dtype' = 'float64': expected Literal['float32', 'float16'], got str"),
    ],
)
def test_the_engine_and_the_stores(tmp_path, given, section, name, value, expected):
    given[section][name] = value
    assert expected in told(tmp_path, given)


@pytest.mark.parametrize(
    ("section", "name", "expected"),
    [
        ("grids", "confidence_at_leest", "classifiers.resnet_robust.grids: unknown setting 'confidence_at_leest' = 1"),
        ("images", "cout", "classifiers.resnet_robust.images: unknown setting 'cout' = 1"),
        ("train", "epoch", "classifiers.resnet_robust.train: unknown setting 'epoch' = 1"),
    ],
)
def test_a_misspelt_rule_is_found_before_anything_runs(tmp_path, given, section, name, expected):
    given["classifiers"]["resnet_robust"][section] = {**given["classifiers"]["resnet_robust"][section], name: 1}
    assert expected in told(tmp_path, given)


def test_a_misspelt_setting_of_the_adversary(tmp_path, given):
    given["classifiers"]["resnet_robust"]["train"]["adversary"]["stepsize"] = 1.0
    assert "classifiers.resnet_robust.train.adversary: unknown setting 'stepsize' = 1.0" in told(tmp_path, given)


def test_a_misspelt_section_of_a_classifier(tmp_path, given):
    given["classifiers"]["resnet_robust"]["image"] = given["classifiers"]["resnet_robust"].pop("images")
    assert "classifiers.resnet_robust: missing: nothing; unknown: image; expected: dataset, grids, images," in told(
        tmp_path, given
    )


def test_a_metric_on_no_image_and_one_that_excludes_no_method(tmp_path, given):
    given["metrics"]["faithfulness"]["deletion"]["count"] = 0
    assert "metrics.faithfulness.deletion: 'count' = 0: expected at least 1" in told(tmp_path, given)
    given["metrics"]["faithfulness"]["deletion"].update(count=3, exclude=["rize"])
    assert "metrics.faithfulness.deletion: exclude names rize, which is no method" in told(tmp_path, given)


def test_an_empty_family(tmp_path, given):
    given["methods"]["gradient"] = None
    assert "methods.gradient = None: expected a mapping of names" in told(tmp_path, given)


@pytest.mark.parametrize(
    ("names", "value"),
    [
        (("methods",), None),
        (("methods", "cam"), ["gradcam"]),
        (("methods", "cam", "gradcam"), 3),
        (("datasets",), None),
        (("classifiers",), {}),
        (("classifiers", "resnet_robust"), None),
        (("classifiers", "resnet_robust", "network"), "residual"),
        (("classifiers", "resnet_robust", "grids"), 3),
        (("classifiers", "resnet_robust", "images"), [3]),
        (("engine",), 4),
    ],
)
def test_what_should_be_a_mapping(tmp_path, given, names, value):
    place = given
    for name in names[:-1]:
        place = place[name]
    place[names[-1]] = value
    got = "an empty one" if value == {} else type(value).__name__
    assert f"{'.'.join(names)} = {value!r}: expected a mapping of names, got {got}" in told(tmp_path, given)


@pytest.mark.parametrize(
    ("names", "value", "least"),
    [
        (("classifiers", "resnet_robust", "images", "count"), -5, 1),
        (("classifiers", "resnet_robust", "grids", "tiles_per_side"), 0, 1),
        (("methods", "noise", "smoothgrad", "samples"), 0, 1),
        (("methods", "noise", "gag_85", "percentile"), -1, 0),
        (("aggregate", "min_count"), -1, 0),
    ],
)
def test_least_values(tmp_path, given, names, value, least):
    place = given
    for name in names[:-1]:
        place = place[name]
    place[names[-1]] = value
    assert f"'{names[-1]}' = {value}: expected at least {least}" in told(tmp_path, given)


def places(value, *names):
    """Every number in the default study, and in what its entries could say: where it stands."""
    if isinstance(value, dict):
        for name, part in value.items():
            yield from places(part, *names, name)
    elif isinstance(value, list):
        for number, part in enumerate(value):
            yield from places(part, *names, number)
    elif isinstance(value, int | float) and not isinstance(value, bool):
        yield names


DEFAULTS = yaml.safe_load((STUDY / "params.yaml").read_text())


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -1, True, 2**70, 1e300])
def test_every_number_of_the_default_study_has_a_range(tmp_path, monkeypatch, value):
    """Whatever number is replaced by what no setting takes, one line names the entry, the setting and what is due."""
    takes_negative = {"sanity_threshold"}
    read = parsed(yaml.dump([value], Dumper=DUMPER).encode())  # YAML gives each value as it is: it is read here alone
    assert repr(read) == repr([value])
    (tmp_path / "params.yaml").touch()
    for names in places(DEFAULTS):
        if value == -1 and names[-1] in takes_negative:
            continue
        given = deepcopy(DEFAULTS)
        place = given
        for name in names[:-1]:
            place = place[name]
        place[names[-1]] = value
        monkeypatch.setattr(params, "parsed", lambda content, given=given: given)
        with pytest.raises(UserError) as problem:
            load(tmp_path)
        message = str(problem.value)
        settings = [name for name in names if isinstance(name, str)]
        assert message.startswith("params.yaml: "), names
        assert "expected" in message, names
        assert "\n" not in message, names
        assert settings[-1] in message, names
        assert settings[0] in message, names


@pytest.mark.parametrize(
    ("names", "value", "due"),
    [
        (("methods", "control", "center", "sigma"), 0.0, "'sigma' = 0.0: expected more than 0"),
        (("methods", "control", "center", "sigma"), 1e-300, "'sigma' = 1e-300: expected at least 1e-12"),
        (("methods", "control", "canny", "sigma"), float("nan"), "'sigma' = nan: expected a finite number, at least 0"),
        (("methods", "relevance", "lrp", "epsilon"), 0, "'epsilon' = 0.0: expected more than 0"),
        (("methods", "masking", "rise", "probability"), 1.5, "'probability' = 1.5: expected more than 0 and at most 1"),
        (("metrics", "imputation", "road", "shares"), [0.3, 1.0], "= [0.3, 1.0]: expected each more than 0 and less t"),
        (("metrics", "imputation", "road", "shares"), [], "'shares' = []: expected a list of at least 1"),
        (("datasets", "shapes", "side"), [0.3, 0.4, 0.5], "'side' = [0.3, 0.4, 0.5]: expected a list of 2 numbers"),
        (("datasets", "shapes", "side"), [0.5, 0.4], "'side' = [0.5, 0.4]: expected the least, then the greatest"),
        (("datasets", "shapes", "chroma"), 0.81, "'chroma' = 0.81: expected at least 0 and at most 0.8"),
        (("classifiers", "resnet_vanilla", "network", "widths"), [], "'widths' = []: expected a list of at least 1"),
        (
            ("classifiers", "resnet_robust", "train", "adversarial_start"),
            1.1,
            "'adversarial_start' = 1.1: expected at least 0 and at most 1",
        ),
        (("classifiers", "resnet_robust", "train", "adversary", "step_size"), -1.0, "expected more than 0"),
        (("seed",), -1, "seed: 'seed' = -1: expected at least 0"),
        (("seed",), 2**63, "seed: 'seed' = 9223372036854775808: expected at most 9223372036854775807"),
        (("seed",), None, "seed: 'seed' = None: expected int, got NoneType"),
        (("aggregate", "level"), 1.0, "'level' = 1.0: expected more than 0 and less than 1"),
        (("engine", "threads"), 10**6, "'threads' = 1000000: expected at least 1 and at most 1024"),
    ],
)
def test_ranges(tmp_path, given, names, value, due):
    place = given
    for name in names[:-1]:
        place = place[name]
    place[names[-1]] = value
    assert due in told(tmp_path, given)


def every_setting():
    """The types of all settings that a function of the library or a stage takes, by function and name."""
    for file in [file for name in ("atlas", "stages") for file in signatures.HOUSE.with_name(name).rglob("*.py")]:
        module = file.relative_to(STUDY).with_suffix("").as_posix()
        for node in ast.parse(file.read_text()).body:
            if isinstance(node, ast.FunctionDef) and node.args.kwonlyargs and module.count("/") < 3:
                try:
                    taken = signatures.signature_in(module, node.name)
                except (
                    UserError,
                    ValueError,
                ):  # of a function that params.yaml does not call, or of what is no literal
                    continue
                yield from ((f"{module}: {node.name}.{name}", kind) for name, kind in taken.types.items())


def shared_types():
    return {name: kind for name, kind in vars(types).items() if hasattr(kind, "__metadata__")}


def test_numbers_of_a_setting_have_one_range():
    """Of `Count | list[Share]` one of both would hold nothing in check."""
    known = dict(every_setting())
    assert len(known) > 300
    assert [name for name, kind in known.items() if len(set(ranges._marks(kind, types.Range))) > 1] == []


def test_every_shared_type_is_used_and_says_what_it_is():
    used = repr([kind for _, kind in every_setting()])
    for name, kind in shared_types().items():
        assert ranges.description(kind).endswith("."), name
        assert repr(kind.__metadata__[-1]) in used, name


def test_what_is_accepted_is_told():
    assert ranges.accepted(types.Count) == "whole number, at least 1"
    assert ranges.accepted(types.Output) == "logit, probability, loss"
    assert ranges.accepted(types.Positive | None) == "more than 0 or null"
    assert ranges.accepted(types.Sizes) == "list of 2 numbers, each more than 0 and at most 1, least first"
    assert ranges.accepted(list[types.Split]) == "list, each train, test"
    assert ranges.accepted(dict[types.Split, str]) == "mapping of train, test to text"
    assert [ranges.accepted(kind) for kind in (bool, dict, str, float)] == ["true, false", "mapping", "text", "number"]


MINE = """
from typing import Annotated, Literal

from atlas.study.schema.types import Count, Output, Range


def plain(images, *, steps: int, slope: float, way: Literal["up", "down"]):
    return images


def named(images, *, steps: Count, turn: Annotated[float, Range(0, 180)], output: Output | None):
    return images


def unknown(images, *, steps: Whole):
    return images
"""


@pytest.fixture
def mine(tmp_path, monkeypatch):
    (tmp_path / "atlas/methods").mkdir(parents=True)
    (tmp_path / "atlas/methods/mine.py").write_text(MINE)
    monkeypatch.setattr(signatures, "HOUSE", tmp_path / "atlas")
    signatures.signature.cache_clear()
    yield lambda function, **given: params.entry("methods", "mine", function, {"channels": "sum", **given}, "here")
    signatures.signature.cache_clear()


def test_types_of_ones_own_method(mine):
    assert mine("plain", steps=0, slope=-1.5, way="up").settings == {"slope": -1.5, "steps": 0, "way": "up"}
    assert mine("named", steps=1, turn=180, output=None).settings == {"output": None, "steps": 1, "turn": 180}
    with pytest.raises(
        UserError, match=r"'steps' = 0: expected at least 1; 'turn' = 181.0: .* at least 0 and at most 180"
    ):
        mine("named", steps=0, turn=181.0, output="logit")
    due = r"'output' = 'logits': expected Optional\[Literal\['logit', 'probability', 'loss'\]\], got str"
    takes = r"steps: int, turn: float, output: Optional\[Literal\['logit', 'probability', 'loss'\]\], channels"
    with pytest.raises(UserError, match=rf"{due}.*{takes}"):
        mine("named", steps=1, turn=0.0, output="logits")
    told = (
        r"atlas/methods/mine\.py: the setting 'steps': settings are typed with builtins, Literal, Annotated and what "
    )
    with pytest.raises(UserError, match=told + r"atlas/study/schema/types\.py defines: name 'Whole' is not defined"):
        mine("unknown", steps=1)


@pytest.mark.parametrize(
    ("names", "key", "shown"),
    [
        ((), 1, "the sections: expected names that are text, got 1 of type int; put it in quotes"),
        (("methods",), True, "methods: expected names that are text, got True of type bool"),
        (("methods", "cam"), 3, "methods.cam: expected names that are text, got 3 of type int"),
        (
            ("methods", "cam", "gradcam"),
            None,
            "methods.cam.gradcam: expected names that are text, got None of type None",
        ),
        (("datasets",), 1.5, "datasets: expected names that are text, got 1.5 of type float"),
        (("classifiers",), 1, "classifiers: expected names that are text"),
        (("classifiers", "resnet_robust"), 1, "classifiers.resnet_robust: expected names that are text"),
        (("classifiers", "resnet_robust", "network"), 1, "network: expected names that are text"),
        (("certify",), 15, "certify: expected names that are text, got 15"),
        (("engine",), 2, "engine: expected names that are text"),
    ],
)
def test_names_that_are_no_text(tmp_path, given, names, key, shown):
    place = given
    for name in names:
        place = place[name]
    place[key] = {"channels": "sum"}
    assert shown in told(tmp_path, given)


@pytest.mark.parametrize("function", [3, ["gradcam"], None, "_private", "../cam", {"a": 1}])
def test_a_function_and_a_family_are_names(tmp_path, given, function):
    given["methods"]["cam"]["mine"] = {"function": function, "channels": "sum"}
    assert f"methods.cam.mine: function = {function!r}: expected a name of a-z" in told(tmp_path, given)
    del given["methods"]["cam"]["mine"]
    given["classifiers"]["resnet_vanilla"]["network"]["family"] = function
    assert f"classifiers.resnet_vanilla.network: family = {function!r}: expected a name" in told(tmp_path, given)


def test_a_metric_that_excludes_all_methods(tmp_path, given):
    judged = {name for listed in given["methods"].values() for name in listed}
    given["metrics"]["localization"]["pointing_game"]["exclude"] = sorted(judged)
    assert "metrics.localization.pointing_game: exclude names all methods; expected at least one" in told(
        tmp_path, given
    )
    del given["metrics"]["localization"]["pointing_game"]["exclude"]
    given["metrics"]["certified"]["abstained"] = {
        **given["metrics"]["certified"]["abstained"],
        "exclude": given["certify"]["noise_15"]["methods"],
    }
    assert "metrics.certified.abstained: exclude names all methods that its smoothings certify" in told(tmp_path, given)


def test_a_key_that_stands_twice(tmp_path):
    text = (STUDY / "params.yaml").read_text()
    twice = text.replace("  cam:\n    cam:", "  cam:\n    gradcam: {layer: final, channels: max_abs}\n    cam:", 1)
    first, second = (number + 1 for number, line in enumerate(twice.splitlines()) if line.startswith("    gradcam: "))
    (tmp_path / "params.yaml").write_text(twice)
    told = f"the key 'gradcam' of methods.cam stands on line {first} and on line {second}; expected once"
    with pytest.raises(UserError, match=rf"params\.yaml: {told}"):
        load(tmp_path)
    (tmp_path / "params.yaml").write_text(text + "\nseed: 1\n")
    with pytest.raises(
        UserError, match=r"params\.yaml: the key 'seed' stands on line 2 and on line \d+; expected once"
    ):
        load(tmp_path)


def test_merges_and_anchors_are_as_they_always_are():
    text = b"a: &a {x: 1, y: 2}\nb: &b {<<: *a, x: 3}\nc: {<<: *b, z: 4}\nd: [*a, *a]\ne: {<<: [*a, {w: 0}], x: 5}\n"
    assert parsed(text) == yaml.safe_load(text)


@pytest.mark.parametrize(
    ("content", "shown"),
    [
        (b"\xff\xfe\x00", r"not YAML: no UTF-8 text"),
        (b"seed: \x00", r"not YAML: "),
        (b"seed: [1\n", r"not YAML: .*line 2"),
        (b"<<<<<<< HEAD\nseed: 1\n=======\nseed: 2\n>>>>>>> other\n", r"not YAML: |stands on line"),
        (b"a: 2020-13-45\n", r"month must be in 1"),
        (b"a: !!python/object:os.system {}\n", r"not YAML: could not determine a constructor"),
        (b"a: {? [1, 2] : 3}\n", r"not YAML"),
        (b"", r"expected a mapping of sections, got NoneType"),
        (b"- 1\n", r"expected a mapping of sections, got list"),
        (b"a: {<<: 1}\n", r"not YAML: "),
    ],
)
def test_what_is_no_study(tmp_path, content, shown):
    (tmp_path / "params.yaml").write_bytes(content)
    with pytest.raises(UserError, match=rf"params\.yaml: ({shown})") as problem:
        load(tmp_path)
    assert "\n" not in str(problem.value)


def test_a_folder_in_place_of_params(tmp_path):
    (tmp_path / "params.yaml").mkdir()
    with pytest.raises(UserError, match=r"params\.yaml: cannot be read \(Is a directory\)"):
        load(tmp_path)


def stage(tmp_path, *arguments, **environment):
    known = {**os.environ, "PYTHONPATH": str(STUDY), **environment}
    return subprocess.run(
        [sys.executable, "-m", *arguments, "--study", str(tmp_path)],
        capture_output=True,
        text=True,
        env=known,
        check=False,
    )


def test_a_stage_tells_a_mistake_in_one_line_and_a_traceback_where_it_is_asked_for(tmp_path, given):
    given["seed"] = True
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(given, sort_keys=False))
    done = stage(tmp_path, "stages.select", "resnet_vanilla", ATLAS_DEBUG="")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.splitlines() == [
        "error: params.yaml: seed: 'seed' = True: expected int, got bool. Accepted by every study: seed: int"
    ]
    done = stage(tmp_path, "stages.select", "resnet_vanilla", ATLAS_DEBUG="1")
    assert done.returncode == 2
    assert done.stderr.startswith("Traceback")


def test_a_stage_is_called_with_names_of_the_study(tmp_path, given):
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(given, sort_keys=False))
    done = stage(tmp_path, "stages.select", "no_such_classifier", ATLAS_DEBUG="")
    assert len(done.stderr.splitlines()) == 1
    assert done.returncode == 2
    assert (
        "params.yaml names no classifier 'no_such_classifier'; it names: resnet_vanilla, resnet_robust" in done.stderr
    )


@pytest.mark.parametrize(
    ("verb", "names", "kind"),
    [
        ("collect", ["no_such"], "dataset"),
        *[(verb, ["no_such"], "classifier") for verb in ("prepare", "predict", "select", "tile", "correlate", "cost")],
        *[(verb, ["no_such", "cam"], "classifier") for verb in ("attribute", "certify", "score")],
        *[(verb, ["resnet_vanilla", "no_such"], "family") for verb in ("attribute", "certify", "score")],
    ],
)
def test_a_stage_reads_params_yaml_once_and_checks_its_names(tmp_path, given, monkeypatch, capsys, verb, names, kind):
    read = []
    monkeypatch.setattr(params, "load", lambda folder: read.append(folder) or load(folder))
    monkeypatch.setattr(sys, "argv", [verb, "--study", str(tmp_path), *names])
    (tmp_path / "params.yaml").write_text(yaml.dump(given, Dumper=DUMPER, sort_keys=False))
    main = importlib.import_module(f"stages.{verb}").main
    with pytest.raises(SystemExit, match="2"):
        command(main, *(["dataset"] if kind == "dataset" else ["classifier", "family"][: len(names)]))
    assert f"params.yaml names no {kind} 'no_such'; it names: " in capsys.readouterr().err
    assert read == [tmp_path]


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ("maps, mask", "peak asks for mask; there are: all_images, all_maps, all_seeds, all_targets, boxes,"),
        ("maps, tiles, masks", "peak asks for tiles, and grids have no masks and no boxes"),
    ],
)
def test_what_a_metric_asks_for(tmp_path, given, monkeypatch, arguments, expected):
    house = tmp_path / "atlas"
    for name in ("atlas", "stages"):
        folder = signatures.HOUSE.with_name(name)
        shutil.copytree(folder, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    with (house / "metrics/complexity.py").open("a") as file:
        file.write(f"\n\ndef peak({arguments}):\n    return maps\n")
    given["metrics"]["complexity"]["peak"] = {}
    monkeypatch.setattr(signatures, "HOUSE", house)
    signatures.signature.cache_clear()
    try:
        assert expected in told(tmp_path, given)
    finally:
        signatures.signature.cache_clear()


@pytest.mark.parametrize(
    ("reverse", "told"),
    [
        ({"remain": 0.5, "swap": 0.3}, r"reverse = .*: expected shares, and remain \+ 2 \* swap at most 1"),
        ({"remain": 0.5, "mis": 0.3}, r"reverse: .*unknown setting 'mis' = 0.3"),
        ({"remain": -0.5, "swap": 0.3}, r"'remain' = -0.5: expected at least 0 and at most 1"),
        ([0.1, 0.2], r"'reverse' = \[0.1, 0.2\]: expected dict"),
    ],
)
def test_shares_of_a_reversed_map(given, reverse, told):
    given["methods"]["control"]["center"]["reverse"] = reverse
    with pytest.raises(UserError, match=told):
        entries(given, "methods")


def test_what_the_default_study_judges_is_enough_to_be_ranked(given):
    fewest, classifier = given["aggregate"]["min_count"], given["classifiers"]["resnet_vanilla"]
    tiles = classifier["grids"]["tiles_per_side"] ** 2
    for listed in entries(given, "metrics").values():
        for metric in listed.values():
            grids = "tiles" in signature("metrics", metric.family, metric.function).inputs
            kind, each = ("grids", tiles) if grids else ("images", 1)
            voted = [given["certify"][name][kind] for name in metric.options["smoothings"]]
            assert (metric.options["count"] or min([classifier[kind]["count"], *voted])) * each > fewest


CASE = "params.yaml: metrics.certified.abstained: tau = {}: on resnet_vanilla no pixel can be certified, not by all "
CASE += "{} votes of certify.noise_15 (alpha = {}, correction {}, 4096 pixels); expected {}"


@pytest.mark.parametrize(
    ("tau", "alpha", "correction", "rest", "expected"),
    [
        # 0.75 to the 39th is above 0.05 / 4096, to the 40th below; 0.05 / 4096 is 0.748 to the 39th.
        (
            0.75,
            0.05,
            "bonferroni",
            39,
            "at least 40 samples (noise_15.n), or tau of at most 0.748, or a higher alpha",
        ),
        (0.75, 0.05, "holm", 39, "at least 40 samples (noise_15.n), or tau of at most 0.748, or a higher alpha"),
        (0.75, 0.05, "none", 10, "at least 11 samples (noise_15.n), or tau of at most 0.741, or a higher alpha"),
        (0.99, 0.05, "holm", 60, "tau of at most 0.828, or a higher alpha"),
        (0.5, 0.05, "holm", 10, "at least 17 samples (noise_15.n), or a higher alpha"),
        (0.99, 1e-6, "holm", 10, "a higher alpha"),
    ],
)
def test_votes_that_certify_nothing_even_if_they_agree(tmp_path, given, tau, alpha, correction, rest, expected):
    del given["metrics"]["certified_grid"]
    test = {"smoothings": ["noise_15"], "tau": [tau, 0.6], "alpha": alpha, "correction": correction}
    given["metrics"]["certified"] = {"abstained": {**given["metrics"]["certified"]["abstained"], **test}}
    for one in given["certify"].values():
        one["n"] = rest
    assert told(tmp_path, given) == CASE.format(tau, rest, alpha, correction, expected)
    assert fewest(tau, alpha / (1 if correction == "none" else 4096)) > rest
    if "copies" in expected:
        for one in given["certify"].values():
            one["n"] = int(expected.split()[2])
        (tmp_path / "params.yaml").write_text(yaml.safe_dump(given, sort_keys=False))
        load(tmp_path)


def fewest(tau: float, threshold: float) -> int:
    """How many votes that all agree are rejected, by SciPy."""
    return next(n for n in range(1, 4000) if scipy.stats.binom.sf(n - 1, n, tau) <= threshold)


def test_of_a_sweep_some_shares_may_be_out_of_reach_but_not_the_first(tmp_path, given):
    given["metrics"]["certified"]["abstained"] = {**given["metrics"]["certified"]["abstained"], "tau": [0.75, 0.99]}
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(given, sort_keys=False))
    load(tmp_path)
    given["metrics"]["certified"]["abstained"]["tau"] = [0.99, 0.75]
    assert "abstained: tau = 0.99: on resnet_vanilla no pixel can be certified" in told(tmp_path, given)


def test_a_grid_has_the_pixels_of_its_tiles(tmp_path, given):
    """45 votes are enough for an image of 64 × 64 pixels, and for four, but not for nine."""
    del given["metrics"]["certified"]
    for one in given["certify"].values():
        one["n"] = 45
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(given, sort_keys=False))
    load(tmp_path)
    given["classifiers"]["resnet_robust"]["grids"] = {
        **given["classifiers"]["resnet_robust"]["grids"],
        "tiles_per_side": 3,
    }
    message = told(tmp_path, given)
    assert "grid_abstained: tau = 0.75: on resnet_robust no pixel can be certified, not by all 45 votes" in message
    assert "36864 pixels); expected at least 47 samples" in message


# What the papers' tables have, by the functions' names.
JUDGED = {
    "certified": {
        "grid_pointing_game", "certified_important", "certified_unimportant", "abstained", "certified_deletion",
        "certified_consistency", "parted_ties", "certified_localization", "grid_abstained",
        "certified_grid_pointing_game", "certified_nothing", "grid_parted_ties",
    },
    "expected_gradcam": {
        "faithfulness_estimate", "pixel_flipping", "insertion", "deletion", "ins_minus_del", "irof", "sufficiency",
        "infidelity", "local_lipschitz", "max_sensitivity", "avg_sensitivity", "relative_input_stability",
        "relative_output_stability", "complexity", "sparseness", "attribution_localization", "top_k_intersection",
        "relevance_rank", "relevance_mass", "infidelity_quantus", "local_lipschitz_quantus",
        "relative_input_stability_quantus",
    },
    "guided_absolutegrad": {
        "rcap", "dauc", "iauc", "log_cosh_dice", "sqrt_mae", "mae", "model_randomization",
    },
    "perturbation": {"deletion", "insertion", "perturbation"},
    "robust_cnns": {"pointing_game", "wsl", "deletion", "insertion"},
}  # fmt: skip


@pytest.mark.parametrize("study", JUDGED)
def test_the_metrics_of_the_papers_are_entries(study):
    bound = entries(yaml.safe_load((STUDY / "studies" / study / "metrics.yaml").read_text()), "metrics")
    assert {one.function for listed in bound.values() for one in listed.values()} == JUDGED[study]


def test_what_the_paper_certifies_is_judged_at_its_radii():
    folder = STUDY / "studies" / "certified"
    said = {
        name: yaml.safe_load((folder / f"{name}.yaml").read_text())[name] for name in ("methods", "certify", "metrics")
    }
    names = {name for listed in said["methods"].values() for name in listed}
    known = read_smoothings(said, names)
    for metric in (one for listed in entries(said, "metrics").values() for one in listed.values()):
        check_smoothings(metric, names, known)
    assert [radius(known[f"authors_{number}"].settings["sigma"], 0.75) for number in (15, 25, 33)] == pytest.approx(
        [0.1012, 0.1686, 0.2226], abs=5e-5
    )


STUDIES = sorted(one.parent for one in (STUDY / "studies").glob("*/methods.yaml"))


@pytest.mark.parametrize("folder", STUDIES, ids=lambda folder: folder.name)
def test_the_methods_of_the_papers_are_entries(folder):
    assert {one.name for one in STUDIES} == set(JUDGED)
    bound = entries(yaml.safe_load((folder / "methods.yaml").read_text()), "methods")
    assert sum(map(len, bound.values())) >= 9
