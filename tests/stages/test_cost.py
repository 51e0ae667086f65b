"""What maps and scores cost is measured once, alone, in passes that depend on no batch."""

import shutil

import pytest
import zarr

from atlas.inputs import calls
from atlas.inputs.cell_runner import Cell, count_missing
from atlas.model import loading
from atlas.study.errors import Unsupported, UserError
from atlas.study.study import Study
from stages import attribute, certify, cost, score, select, tile
from tests.support import scores
from tests.support.cells import C, last_line, unfinished
from tests.support.study import tiny, write

METHODS = {
    "gradient": {"gradient": {"sign": "both", "output": "logit", "layer": "input", "channels": "abs_sum"}},
    "path": {
        "integrated_gradients": {
            "steps": 3, "baseline": "black", "rule": "midpoint", "sign": "both", "output": "logit", "layer": "input",
            "channels": "sum",
        },
    },
    "feature": {"ablation_cam": {"divisor": "logit", "layer": "final", "channels": "sum"}},
    "control": {"uniform": {"channels": "sum"}},
}  # fmt: skip
NOISY = {"samples": 10, "noise": "uniform", "scale": 0.2, "count": 2}
TEST = {"smoothings": ["noise"], "level": 30, "tau": [0.75], "alpha": 0.05, "correction": "bonferroni"}
METRICS = {
    "localization": {"pointing_game": {"tolerance": 4}},
    "grid": {"grid_pointing_game": {"tile": 2, "exclude": ["gradient"]}},
    "faithfulness": {"deletion": {"pixels": 1024, "baseline": "black", "relative": False, "count": 3}},
    "faithfulness_regions": {"sufficiency": {"threshold": 0.6, "count": 5}},
    "stability": {"max_sensitivity": NOISY, "relative_output_stability": {**NOISY, "floor": 0.01}},
    "stability_variants": {"local_lipschitz_quantus": NOISY},
    "randomization": {
        "model_randomization": {"parts": 2, "order": "cascading", "similarity": "spearman", "seed": 0, "count": 2},
        "random_logit": {"similarity": "spearman", "count": 2},
    },
    "certified": {"certified_important": TEST, "certified_deletion": {**TEST, "baseline": "mean"},
                  "certified_unimportant": {**TEST, "smoothings": ["clipped"]}},
}  # fmt: skip
VOTES = {"form": "strict", "sigma": 0.15, "levels": [50, 30], "n0": 3, "n": 40, "images": 2, "grids": 0}


def settings() -> dict:
    params = tiny()
    params["methods"], params["metrics"] = METHODS, METRICS
    params["certify"] = {"noise": {**VOTES, "tile": None, "methods": ["gradient", "uniform"]}}
    params["certify"]["clipped"] = {**params["certify"]["noise"], "form": "authors", "methods": ["gradient"]}
    return params


@pytest.fixture(scope="module")
def scored(collected, tmp_path_factory):
    """A study with all that costs are measured on."""
    study = shutil.copytree(collected, tmp_path_factory.mktemp("scored") / "study")
    write(study, settings())
    select.main(study, C)
    tile.main(study, C)
    run(study, *METHODS)
    return study


@pytest.fixture(scope="module")
def measured(scored):
    cost.main(scored, C)
    return scored


@pytest.fixture
def study(measured, tmp_path):
    return shutil.copytree(measured, tmp_path / "study")


def run(study, *families) -> None:
    for family in families:
        attribute.main(study, C, family)
        certify.main(study, C, family)
        score.main(study, C, family)


def judged_on(study) -> dict[str, cost.MeasuredRow]:
    """The rows that the costs of metrics are measured on, by metric."""
    return cost.plan(Cell(Study(study), C))[1].measured_on


def known(study, what: str) -> dict[str, dict[str, int]]:
    """The costs of methods or metrics that there are, by name."""
    group = zarr.open_group(study / "data/cost" / f"{C}.zarr" / f"{what}s", mode="r")
    there = group["key"][:].any(axis=1)
    fields = [name for name in ("forward", "backward", "head", "explained") if name in group]
    return {
        name: {field: int(group[field][at]) for field in fields}
        for at, name in enumerate(group[what][:].tolist())
        if there[at]
    }


def of(forward: int = 0, backward: int = 0, head: int = 0, **explained: int) -> dict[str, int]:
    return {"forward": forward, "backward": backward, "head": head, **explained}


def test_methods_take_the_passes_that_are_known_of_them(measured):
    assert known(measured, "method") == {
        "gradient": of(1, 1),
        "integrated_gradients": of(3, 3),
        "ablation_cam": of(1, 0, 9),  # as it is, and without each of 8 features
        "uniform": of(),
    }


def test_metrics_take_the_passes_that_are_known_of_them_and_none_of_the_methods(measured):
    assert known(measured, "metric") == {
        "pointing_game": of(explained=0),
        "grid_pointing_game": of(explained=0),
        "deletion": of(5, explained=0),
        "sufficiency": of(1, explained=0),
        "max_sensitivity": of(explained=10),
        "relative_output_stability": of(11, head=10, explained=10),
        "local_lipschitz_quantus": of(explained=10),
        "model_randomization": of(explained=2),
        "random_logit": of(1, explained=1),
        "certified_important": of(explained=43),
        "certified_deletion": of(3, explained=43),
        "certified_unimportant": of(explained=44),  # the authors' scale is of the map of the image itself
    }


def test_costs_do_not_depend_on_the_batch(measured, tmp_path, monkeypatch):
    study = shutil.copytree(measured, tmp_path / "study")
    for folder in ("data/cost", ".atlas"):
        shutil.rmtree(study / folder)
    sizes, loads = [], loading.load

    def larger(folder, name, network, engine, watch):
        sizes.append(engine["batch"])
        return loads(folder, name, network, {**engine, "batch": 7}, watch)

    monkeypatch.setattr(loading, "load", larger)
    cost.main(study, C)
    assert sizes == [1]
    assert last_line(study)["rows_computed"] == 16
    for what in ("method", "metric"):
        assert known(study, what) == known(measured, what)


def test_a_tile_that_a_metric_judges_alone_is_what_its_cost_is_measured_on(measured):
    measured_on = judged_on(measured)
    assert measured_on["grid_pointing_game"][:2] == ("integrated_gradients", 2)
    assert measured_on["deletion"][:2] == ("gradient", 0)


def test_a_score_that_is_undefined_is_not_what_a_cost_is_measured_on(study):
    for family, metric in (("gradient", "deletion"), ("gradient", "sufficiency")):
        scores.change(study / "data/scores" / C / f"{family}.zarr", metric, "score", (0, 0), float("nan"))
    measured_on = judged_on(study)
    assert measured_on["deletion"][:2] == ("gradient", 1)
    # Which looks at a whole set.
    assert measured_on["sufficiency"][:2] == ("gradient", 0)
    scores.change(study / "data/scores" / C / "gradient.zarr", "deletion", "score", (0,), float("nan"))
    assert judged_on(study)["deletion"][:2] == ("integrated_gradients", 0)


def test_what_is_known_is_not_measured_again(study):
    assert count_missing(cost.STAGE, study, C) == (16, 0)
    shutil.rmtree(study / "data/cost")
    cost.main(study, C)
    assert last_line(study)["rows_computed"] == 0
    assert known(study, "method")["gradient"] == of(1, 1)


def test_another_setting_of_a_method_has_it_and_what_is_measured_on_it_measured_again(study):
    params = settings()
    params["methods"] = {**METHODS, "path": {"integrated_gradients": {**METHODS["path"]["integrated_gradients"]}}}
    params["methods"]["path"]["integrated_gradients"]["steps"] = 4
    write(study, params)
    run(study, "path")
    assert count_missing(cost.STAGE, study, C) == (16, 2)
    with unfinished():
        cost.main(study, C)
    assert last_line(study)["computed"] == {"methods": 1, "metrics": 1}
    assert set(last_line(study)["passes"]) == {"integrated_gradients", "grid_pointing_game (integrated_gradients)"}
    cost.main(study, C)
    assert last_line(study)["rows_computed"] == 0
    assert known(study, "method")["integrated_gradients"] == of(4, 4)


def test_another_setting_of_a_metric_has_it_alone_measured_again(study):
    params = settings()
    params["metrics"] = {**METRICS, "faithfulness": {"deletion": {**METRICS["faithfulness"]["deletion"]}}}
    params["metrics"]["faithfulness"]["deletion"]["pixels"] = 2048
    write(study, params)
    score.main(study, C, "gradient")
    cost.main(study, C)
    assert last_line(study)["passes"] == {"deletion (gradient)": of(3, explained=0)}


def refusing(*names):
    """Return a `find` whose functions of these names cannot serve."""
    find = calls.find

    def refuses(*_, **__):
        raise Unsupported("it has no edges")

    return lambda kind, family, function: refuses if function in names else find(kind, family, function)


def test_what_cannot_serve_has_no_cost(study, monkeypatch):
    shutil.rmtree(study / "data/maps")
    shutil.rmtree(study / "data/scores")
    shutil.rmtree(study / ".atlas")
    monkeypatch.setattr(calls, "find", refusing("integrated_gradients", "pointing_game"))
    run(study, *METHODS)
    monkeypatch.undo()
    cost.main(study, C)
    assert set(known(study, "method")) == {"gradient", "ablation_cam", "uniform"}
    names = [name for listed in METRICS.values() for name in listed]
    assert list(known(study, "metric")) == [name for name in names if name != "pointing_game"]
    assert judged_on(study)["grid_pointing_game"].method == "ablation_cam"


@pytest.mark.parametrize(
    ("function", "told", "row"),
    [("deletion", r"deletion \(gradient\)", "metrics"), ("ablation_cam", "ablation_cam", "methods")],
)
def test_what_raises_is_named_and_loses_no_other_costs(study, monkeypatch, function, told, row):
    for folder in ("data/cost", ".atlas"):
        shutil.rmtree(study / folder)
    find = calls.find

    def broken(*_, **__):
        raise ValueError("of no use")

    monkeypatch.setattr(calls, "find", lambda *asked: broken if asked[2] == function else find(*asked))
    with pytest.raises(
        UserError, match=rf"these could not be measured, all other costs are kept: {told}: ValueError: of no use"
    ):
        cost.main(study, C)
    assert not (study / "data/cost").exists()
    monkeypatch.undo()
    cost.main(study, C)
    assert last_line(study)["computed"] == {row: 1}


def test_scores_that_are_not_there_are_named(study):
    shutil.rmtree(study / "data/scores" / C / "gradient.zarr/images")
    with pytest.raises(UserError, match=r"gradient\.zarr: there are no scores of \w+; run stages.score again"):
        cost.main(study, C)


def test_scores_of_a_method_that_is_no_longer_named_are_named(study):
    params = settings()
    params["methods"] = {**METHODS, "control": {"even": {**METHODS["control"]["uniform"], "function": "uniform"}}}
    params["certify"]["noise"]["methods"] = ["gradient"]
    write(study, params)
    told = "there are scores of uniform, which params.yaml does not name; run stages.score again"
    attribute.main(study, C, "control")
    for family in [name for name in METHODS if name != "control"]:
        shutil.rmtree(study / "data/scores" / C / f"{family}.zarr")
        shutil.copytree(study / "data/scores" / C / "control.zarr", study / "data/scores" / C / f"{family}.zarr")
    with pytest.raises(UserError, match=told):
        cost.main(study, C)
