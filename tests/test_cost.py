"""What maps and scores cost is measured once, alone, in passes that depend on no batch."""

import shutil

import numpy as np
import pytest
import zarr
from study import tiny, write
from test_stages import C, collected, last_line

from stages import attribute, certify, cost, score, select, tile
from stages.params import load
from stages.problem import Problem

__all__ = ["collected"]

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
NOISY = {"samples": 10, "noise": "uniform", "scale": 0.2}
TEST = {"smoothings": ["noise"], "level": 30, "tau": [0.75], "alpha": 0.05, "correction": "bonferroni"}
METRICS = {
    "localization": {"pointing_game": {"tolerance": 4}},
    "grid": {"grid_pointing_game": {"tile": 2, "exclude": ["gradient"]}},
    "faithfulness": {"deletion": {"pixels": 1024, "baseline": "black", "relative": False, "count": 8}},
    "faithfulness_regions": {"sufficiency": {"threshold": 0.6}},
    "stability": {"max_sensitivity": NOISY, "relative_output_stability": {**NOISY, "floor": 0.01}},
    "stability_variants": {"local_lipschitz_quantus": NOISY},
    "randomization": {
        "model_randomization": {"parts": 2, "order": "cascading", "similarity": "spearman", "seed": 0},
        "random_logit": {"similarity": "spearman"},
    },
    "certified": {"certified_important": TEST, "certified_deletion": {**TEST, "baseline": "mean"}},
}
VOTES = {"form": "strict", "sigma": 0.15, "levels": [50, 30], "first": 3, "rest": 12, "images": 4, "grids": 0}
NONE = {"forward": 0, "backward": 0, "head": 0}


def settings() -> dict:
    params = tiny()
    params["methods"], params["metrics"] = METHODS, METRICS
    params["certify"] = {"noise": {**VOTES, "tile": None, "methods": ["gradient", "uniform"]}}
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


@pytest.fixture
def study(scored, tmp_path):
    return shutil.copytree(scored, tmp_path / "study")


def run(study, *families) -> None:
    for family in families:
        attribute.main(study, C, family)
        certify.main(study, C, family)
        score.main(study, C, family)


def known(study, of: str) -> dict[str, dict[str, int]]:
    """The costs of methods or metrics that there are, by name."""
    group = zarr.open_group(study / "data/cost" / f"{C}.zarr" / f"{of}s", mode="r")
    there = group["key"][:].any(axis=1)
    fields = [name for name in ("forward", "backward", "head", "explained") if name in group]
    return {
        name: {field: int(group[field][at]) for field in fields}
        for at, name in enumerate(group[of][:].tolist())
        if there[at]
    }


def test_x(study):
    cost.main(study, C)
    print(known(study, "method"), known(study, "metric"), last_line(study))
    assert 0
