"""Studies without grids, boxes, masks, background images, or an attack to evaluate by; methods on some of the images
alone."""

import json
import shutil

import numpy as np
import pytest
import torch
import xarray as xr
import zarr
from safetensors.torch import save_file

from atlas.networks.residual import small_resnet
from atlas.share import open_maps
from atlas.study.errors import UserError
from atlas.study.params import load
from stages import aggregate, attribute, certify, collect, correlate, cost, predict, score, select, tile
from tests.support.results import opened
from tests.support.study import GRIDS, IMAGES, tiny, write

C = "resnet_vanilla"
VOTES = {"form": "strict", "sigma": 0.15, "levels": [50, 30], "n0": 3, "n": 40, "images": 4, "grids": 1}
TEST = {"smoothings": ["noise"], "level": 30, "tau": [0.75], "alpha": 0.05, "correction": "none"}


def settings() -> dict:
    params = tiny()
    methods = params["methods"]
    del methods["noise"]
    methods["path"] = {"expected_gradients": {"samples": 2, "output": "logit", "channels": "sum"}}
    params["certify"] = {"noise": {**VOTES, "tile": None, "methods": ["gradient", "uniform"]}}
    params["metrics"]["certified"] = {"abstained": TEST, "certified_localization": TEST}
    params["metrics"]["certified_grid"] = {"grid_abstained": TEST}
    params["metrics"]["segmentation"] = {"mae": {}}
    params["robustness_eval"] = None
    return params


@pytest.fixture(scope="module")
def collected(tmp_path_factory):
    house = tmp_path_factory.mktemp("absent")
    write(house, settings())
    collect.main(house, "shapes")
    classes = zarr.open_group(house / "data/datasets/shapes.zarr", mode="r").attrs["classes"]
    folder = house / "data/classifiers" / C
    folder.mkdir(parents=True)
    torch.manual_seed(0)
    network = small_resnet(classes=len(classes), widths=[4, 4, 8], blocks=1)
    save_file(network.state_dict(), folder / "weights.safetensors")
    source = {"file": "net.pth", "tag": None, "sha256": "0" * 64, "entry": None, "rename": None, "accuracy": None}
    card = {"classes": classes, "mean": [0.5] * 3, "std": [0.25] * 3, "accuracy": 0.9, "source": source}
    (folder / "card.json").write_text(json.dumps(card))
    predict.main(house, C)
    return house


@pytest.fixture
def house(collected, tmp_path):
    return shutil.copytree(collected, tmp_path / "house")


def run(house, params) -> xr.Dataset:
    """All stages from the selection of images on; the summary of the results."""
    write(house, params)
    select.main(house, C)
    tile.main(house, C)
    for family in params["methods"]:
        for stage in (attribute, certify, score):
            stage.main(house, C, family)
    correlate.main(house, C)
    cost.main(house, C)
    aggregate.main(house)
    return opened(house)


def told(summary) -> dict:
    return summary.attrs["absent"][C]


def asked(summary, metric: str) -> dict[str, int]:
    own = summary["asked"].sel(classifier=C, metric=metric)
    return dict(zip(own["method"].values.tolist(), own.values.tolist(), strict=True))


def test_without_grids_all_that_needs_none_is_made(house):
    params = settings()
    params["classifiers"][C]["grids"] = None
    summary = run(house, params)
    reason = f"the classifier {C} has no grids: classifiers.{C}.grids is null"
    assert told(summary) == dict.fromkeys(["grid_pointing_game", "grid_abstained"], reason)
    assert "grid_pointing_game" not in summary["metric"]
    assert np.isfinite(summary["mean"].sel(metric="deletion")).all()
    assert (house / "data/maps" / C / "gradient.zarr/images").is_dir()
    assert not (house / "data/maps" / C / "gradient.zarr/grids").exists()
    with pytest.raises(UserError, match=rf"classifiers\.{C}\.grids is null: there are no maps of grids"):
        open_maps(C, "gradient", on="grids", study=house)
    for family in params["methods"]:
        score.main(house, C, family)
    lines = [json.loads(line) for line in (house / ".atlas/log.jsonl").read_text().splitlines()]
    assert [line["rows_computed"] for line in lines[-3:]] == [0, 0, 0]


def without_boxes(house) -> None:
    """The dataset as one whose source knows neither boxes nor masks."""
    store = zarr.open_group(house / "data/datasets/shapes.zarr", mode="r+")
    store.attrs["known"] = []
    store["boxes"][:] = -1
    del store["mask"]


def test_without_boxes_and_masks_what_asks_for_them_is_refused_once(house):
    without_boxes(house)
    params = settings()
    params["classifiers"][C]["images"] = {"count": 10}
    summary = run(house, params)
    boxes, masks = (f"the dataset shapes has no {name}" for name in ("boxes", "masks"))
    absent = told(summary)
    assert absent["pointing_game"] == boxes
    assert absent["relevance_rank"] == masks
    assert absent["mae"] == masks
    assert {"certified_localization"} < set(absent)
    assert not set(absent) & set(summary["metric"].values.tolist())
    assert asked(summary, "grid_pointing_game")["gradient"] == 4 * GRIDS
    assert asked(summary, "abstained")["gradient"] == 4
    stored = zarr.open_group(house / "data/images" / f"{C}.zarr/images", mode="r")
    assert not {"mask", "boxes"} & set(stored)
    reasons = summary.attrs["unsupported"][C]
    told_of = "there are no background images: classifiers.resnet_vanilla.images.background is 0"
    assert reasons["expected_gradients"]["deletion"] == told_of


def test_a_rule_on_boxes_that_nobody_knows(house):
    without_boxes(house)
    with pytest.raises(
        UserError, match="images: boxes_exactly = 1, but the dataset shapes has neither boxes nor masks"
    ):
        select.main(house, C)


def test_a_method_on_some_images_and_on_no_grids(house):
    params = settings()
    params["methods"]["gradient"]["gradient"] |= {"count": 5}
    params["methods"]["gradient"]["input_x_gradient"] |= {"count": 9, "grids": False}
    summary = run(house, params)
    assert asked(summary, "pointing_game") == {
        "gradient": 5, "input_x_gradient": 9, "uniform": IMAGES, "center": IMAGES, "expected_gradients": IMAGES,
    }  # fmt: skip
    assert asked(summary, "deletion")["gradient"] == 5
    assert asked(summary, "grid_pointing_game") == {
        "gradient": 4 * GRIDS, "input_x_gradient": 0, "uniform": 4 * GRIDS, "center": 4 * GRIDS,
        "expected_gradients": 4 * GRIDS,
    }  # fmt: skip
    reasons = summary.attrs["unsupported"][C]
    assert reasons["input_x_gradient"]["grid_pointing_game"] == "methods.gradient.input_x_gradient says grids: false"
    maps = open_maps(C, "gradient", study=house)
    assert np.isfinite(maps[:5]).all()
    assert np.isnan(maps[5:]).all()
    del params["methods"]["gradient"]["gradient"]["count"]
    write(house, params)
    attribute.main(house, C, "gradient")
    line = json.loads((house / ".atlas/log.jsonl").read_text().splitlines()[-1])
    assert line["computed"] == {"gradient/images": IMAGES - 5}


def test_a_method_on_more_images_than_there_are(house):
    params = settings()
    params["methods"]["control"]["uniform"]["count"] = IMAGES + 1
    write(house, params)
    select.main(house, C)
    tile.main(house, C)
    with pytest.raises(UserError, match=r"methods.control.uniform: count = 13: there are 12 images; expected at most"):
        attribute.main(house, C, "control")


def test_sections_that_may_be_left_out(tmp_path):
    params = settings()
    params |= {"certify": None, "metrics": tiny()["metrics"]}
    for section in ("images", "grids"):
        del params["classifiers"][C][section]
    write(tmp_path, params)
    found = load(tmp_path)
    assert (found["certify"], found["robustness_eval"]) == ({}, None)
    assert found["classifiers"][C]["grids"] is found["classifiers"][C]["preprocess"] is None
    assert found["classifiers"][C]["images"] == {
        "boxes_exactly": None, "box_area_at_most": 1.0, "correct_by": [], "confidence_at_least": 0.0, "count": None,
        "background": 0, "target": "label",
    }  # fmt: skip


def test_a_classifier_of_another_dataset_cannot_say_which_images_are_right(tmp_path):
    params = settings()
    params["datasets"]["others"] = {**params["datasets"]["shapes"], "family": "shapes"}
    params["classifiers"]["other"] = {**params["classifiers"][C], "dataset": "others"}
    params["classifiers"][C]["images"] = {"correct_by": ["other"]}
    write(tmp_path, params)
    with pytest.raises(
        UserError, match="correct_by names 'other', which is of the dataset others; expected classifiers"
    ):
        load(tmp_path)
