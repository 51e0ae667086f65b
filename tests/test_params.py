"""A bad entry is one message that names the file, the entry, what was given and what is accepted."""

import shutil
from pathlib import Path
from typing import Literal

import pytest
import scipy.stats
import yaml

from stages.study import signatures
from stages.study.params import entries, load, network, path, settings
from stages.study.problem import Problem
from stages.study.signatures import attributes, signature
from stages.study.smoothing import check_judging, radius, smoothings

STUDY = Path(__file__).parent.parent


@pytest.fixture
def given():
    return yaml.safe_load((STUDY / "params.yaml").read_text())


def told(tmp_path, given) -> str:
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(given, sort_keys=False))
    with pytest.raises(Problem) as problem:
        load(tmp_path)
    return str(problem.value)


def test_the_default_study_is_good():
    load(STUDY)


def test_an_unknown_method(tmp_path, given):
    given["methods"]["cam"]["gradcamm"] = {"channels": "sum"}
    message = told(tmp_path, given)
    assert "params.yaml: methods.cam.gradcamm: stages/methods/cam.py has no function 'gradcamm'; it has: " in message
    assert "gradcam, " in message


def test_an_unknown_family(tmp_path, given):
    given["methods"]["camm"] = {"my_cam": {"function": "gradcam", "channels": "sum"}}
    message = told(tmp_path, given)
    assert "methods.camm.my_cam: stages/methods has no family 'camm'; there are: " in message
    assert "cam, cam_averaged, control" in message


def test_a_misspelt_setting(tmp_path, given):
    entry = given["methods"]["noise"]["smoothgrad"]
    entry["smaples"] = entry.pop("samples")
    message = told(tmp_path, given)
    assert message.startswith("params.yaml: methods.noise.smoothgrad: ")
    assert "the setting 'samples' is missing" in message
    assert "unknown setting 'smaples' = 16" in message
    assert "Accepted by smoothgrad of stages/methods/noise.py: samples: int, spread: float" in message


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


def test_a_name_in_two_families(tmp_path, given):
    given["methods"]["control"]["gradcam"] = {"function": "uniform", "channels": "sum"}
    assert "methods.control.gradcam: the name 'gradcam' stands in family 'cam' already" in told(tmp_path, given)


def test_a_classifier_of_no_dataset(tmp_path, given):
    given["classifiers"]["resnet_robust"]["dataset"] = "imagenet"
    assert "classifiers.resnet_robust.dataset: no dataset 'imagenet'; known: shapes" in told(tmp_path, given)


def test_a_missing_section(tmp_path, given):
    del given["engine"]
    assert told(tmp_path, given).endswith("params.yaml: the section 'engine' is missing")


def test_no_file(tmp_path):
    with pytest.raises(Problem, match=r"params\.yaml: there is no such file"):
        load(tmp_path)


def test_no_yaml(tmp_path):
    (tmp_path / "params.yaml").write_text("seed: [1\n")
    with pytest.raises(Problem, match=r"params\.yaml: not YAML"):
        load(tmp_path)


def test_a_verbs_settings(given):
    rules = {**given["classifiers"]["resnet_vanilla"]["images"], "cout": 3}
    with pytest.raises(Problem, match=r"classifiers\.x\.images: unknown setting 'cout' = 3\. Accepted by eligible"):
        settings("classifiers.x.images", rules, "select", "eligible")


def test_a_networks_settings(given):
    given["classifiers"]["resnet_vanilla"]["network"]["width"] = 3
    with pytest.raises(Problem, match=r"classifiers\.resnet_vanilla\.network: unknown setting 'width' = 3"):
        network(given, "resnet_vanilla")


def test_one_entry_may_name_another_function(given):
    bound = entries(given, "methods")["noise"]["gag_85"]
    assert (bound.function, bound.settings["percentile"], bound.options) == (
        "gag",
        85,
        {"channels": "abs_sum", "reverse": None},
    )


def test_signatures_are_read_from_source():
    found = signature("methods", "noise", "smoothgrad")
    assert found.evidence == ["classifier", "images", "targets", "seeds"]
    assert list(found.settings) == ["samples", "spread", "extent", "output", "sign"]
    assert found.settings["spread"] is float
    assert found.settings["extent"] == Literal["image", "batch"]


def test_attributes_are_read_from_source():
    assert attributes("metrics", "faithfulness", "deletion")["better"] == "lower"
    assert attributes("methods", "cam", "no_such_function")["long_name"] == "no such function"


def test_paths():
    assert path(Path("s"), "maps", "c", "cam").as_posix() == "s/data/maps/c/cam"
    assert path(Path("s"), "maps", "c", "cam", "gradcam").as_posix() == "s/data/maps/c/cam/gradcam.zarr"
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
    assert "classifiers.resnet_robust: missing: images; unknown: image" in told(tmp_path, given)


def test_a_metric_on_no_image_and_one_that_excludes_nobody(tmp_path, given):
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
        (("classifiers", "resnet_robust", "grids"), None),
        (("engine",), 4),
    ],
)
def test_what_should_be_a_mapping(tmp_path, given, names, value):
    place = given
    for name in names[:-1]:
        place = place[name]
    place[names[-1]] = value
    assert f"{'.'.join(names)} = {value!r}: expected a mapping of names, got {type(value).__name__}" in told(
        tmp_path, given
    )


@pytest.mark.parametrize(
    ("names", "value", "least"),
    [
        (("classifiers", "resnet_robust", "images", "count"), -5, 1),
        (("classifiers", "resnet_robust", "grids", "tiles_per_side"), 0, 1),
        (("methods", "noise", "smoothgrad", "samples"), 0, 1),
        (("methods", "noise", "gag_85", "percentile"), -1, 0),
        (("aggregate", "fewest"), -1, 0),
    ],
)
def test_least_values(tmp_path, given, names, value, least):
    place = given
    for name in names[:-1]:
        place = place[name]
    place[names[-1]] = value
    assert f"'{names[-1]}' = {value}: expected at least {least}" in told(tmp_path, given)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ("maps, mask", "peak asks for mask; there are: all_images, all_maps, all_seeds, all_targets, boxes,"),
        ("maps, tiles, masks", "peak asks for tiles, and grids have no masks and no boxes"),
    ],
)
def test_what_a_metric_asks_for(tmp_path, given, monkeypatch, arguments, expected):
    house = tmp_path / "stages"
    shutil.copytree(signatures.HOUSE, house, ignore=shutil.ignore_patterns("__pycache__"))
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
        ({"remain": -0.5, "swap": 0.3}, r"expected shares"),
        ([0.1, 0.2], r"'reverse' = \[0.1, 0.2\]: expected dict"),
    ],
)
def test_shares_of_a_reversed_map(given, reverse, told):
    given["methods"]["control"]["center"]["reverse"] = reverse
    with pytest.raises(Problem, match=told):
        entries(given, "methods")


def test_what_the_default_study_judges_is_enough_to_be_ranked(given):
    fewest, classifier = given["aggregate"]["fewest"], given["classifiers"]["resnet_vanilla"]
    tiles = classifier["grids"]["tiles_per_side"] ** 2
    for listed in entries(given, "metrics").values():
        for metric in listed.values():
            grids = "tiles" in signature("metrics", metric.family, metric.function).evidence
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
            "at least 40 copies (noise_15.rest), or tau of at most 0.748, or a higher alpha",
        ),
        (0.75, 0.05, "holm", 39, "at least 40 copies (noise_15.rest), or tau of at most 0.748, or a higher alpha"),
        (0.75, 0.05, "none", 10, "at least 11 copies (noise_15.rest), or tau of at most 0.741, or a higher alpha"),
        (0.99, 0.05, "holm", 60, "tau of at most 0.828, or a higher alpha"),
        (0.5, 0.05, "holm", 10, "at least 17 copies (noise_15.rest), or a higher alpha"),
        (0.99, 1e-6, "holm", 10, "a higher alpha"),
    ],
)
def test_votes_that_certify_nothing_even_if_they_agree(tmp_path, given, tau, alpha, correction, rest, expected):
    del given["metrics"]["certified_grid"]
    test = {"smoothings": ["noise_15"], "tau": [tau, 0.6], "alpha": alpha, "correction": correction}
    given["metrics"]["certified"] = {"abstained": {**given["metrics"]["certified"]["abstained"], **test}}
    for one in given["certify"].values():
        one["rest"] = rest
    assert told(tmp_path, given) == CASE.format(tau, rest, alpha, correction, expected)
    assert fewest(tau, alpha / (1 if correction == "none" else 4096)) > rest
    if "copies" in expected:
        for one in given["certify"].values():
            one["rest"] = int(expected.split()[2])
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
        one["rest"] = 45
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(given, sort_keys=False))
    load(tmp_path)
    given["classifiers"]["resnet_robust"]["grids"] = {
        **given["classifiers"]["resnet_robust"]["grids"],
        "tiles_per_side": 3,
    }
    message = told(tmp_path, given)
    assert "grid_abstained: tau = 0.75: on resnet_robust no pixel can be certified, not by all 45 votes" in message
    assert "36864 pixels); expected at least 47 copies" in message


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
    known = smoothings(said, names)
    for metric in (one for listed in entries(said, "metrics").values() for one in listed.values()):
        check_judging(metric, names, known)
    assert [radius(known[f"authors_{number}"].settings["sigma"], 0.75) for number in (15, 25, 33)] == pytest.approx(
        [0.1012, 0.1686, 0.2226], abs=5e-5
    )


STUDIES = sorted(one for one in (STUDY / "studies").iterdir() if one.is_dir())


@pytest.mark.parametrize("folder", STUDIES, ids=lambda folder: folder.name)
def test_the_methods_of_the_papers_are_entries(folder):
    assert {one.name for one in STUDIES} == set(JUDGED)
    bound = entries(yaml.safe_load((folder / "methods.yaml").read_text()), "methods")
    assert sum(map(len, bound.values())) >= 9
