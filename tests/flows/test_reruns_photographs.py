"""Change a photograph, a box or the fit, run again: which rows are computed, of pictures in files."""

import csv
import hashlib
import shutil
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
import zarr
from PIL import Image
from safetensors.torch import save_file

from atlas.cache.tables import KEY
from atlas.networks.residual import small_resnet
from tests.support import stored, study
from tests.support.scores import read
from tests.support.study import ROOT, build, computed, write

repro = partial(study.repro, faster=True)
PICTURES, CLASSES, NETWORK = 8, ["cat", "dog"], {"widths": [4, 4, 8], "blocks": 1}
METHODS = {"gradient": ["gradient", "input_x_gradient"], "control": ["uniform"]}
METRICS = {"localization": ["pointing_game", "relevance_rank"], "faithfulness": ["deletion"]}
OF_BOXES, METRIC_NAMES = ("pointing_game", "relevance_rank"), ("pointing_game", "relevance_rank", "deletion")
NAMES = [name for names in METHODS.values() for name in names]
ROWS = ("score", "correlate", "cost")  # these stages, and what they need, make all rows
RAW = Path("data/raw/photos")


def drawn(file: Path, seed: int) -> None:
    """Draw a picture of noise, of a size of its own."""
    pixels = np.random.default_rng(seed).integers(0, 256, (40 + seed % 3, 48, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(file)


def settings(sha256: str) -> dict:
    """The default study's settings, of a table of pictures and a network whose weights are given."""
    params = yaml.safe_load((ROOT / "params.yaml").read_text())
    params["engine"]["batch"] = 4
    params["datasets"] = {
        "photos": {
            "family": "table",
            "path": str(RAW),
            "file": "photos.csv",
            "fit": {"mode": "crop", "size": 32, "resize": 36},
        }
    }
    params["classifiers"] = {
        "net": {
            "dataset": "photos",
            "network": {"family": "residual", "function": "small_resnet", **NETWORK},
            "weights": {"file": "data/raw/net.safetensors", "sha256": sha256},
            "preprocess": {"mean": [0.5] * 3, "std": [0.25] * 3},
            "images": {"count": PICTURES},
        }
    }
    params["robustness_eval"], params["certify"] = None, {}
    for kind, chosen in (("methods", METHODS), ("metrics", METRICS)):
        params[kind] = {
            family: {name: params[kind][family][name] for name in names} for family, names in chosen.items()
        }
    params["metrics"]["localization"]["pointing_game"]["tolerance"] = 0
    params["metrics"]["faithfulness"]["deletion"] = {"pixels": 512, "baseline": "black", "relative": False}
    return params


@pytest.fixture(scope="module")
def photographed(tmp_path_factory):
    """A study of eight pictures, JPEG and PNG, with a box each, that `dvc repro` has brought up to scores and costs."""
    house = tmp_path_factory.mktemp("photographed") / "house"
    raw = house / RAW
    raw.mkdir(parents=True)
    lines = ["path,label,x0,y0,x1,y1"]
    for number in range(PICTURES):
        file = f"{number}.{('jpg', 'png')[number // 2 % 2]}"
        drawn(raw / file, number)
        lines.append(f"{file},{CLASSES[number % 2]},{10 + number},8,{30 + number},32")
    (raw / "photos.csv").write_text("\n".join(lines) + "\n")
    torch.manual_seed(0)
    weights = raw.parent / "net.safetensors"
    save_file(small_resnet(classes=len(CLASSES), **NETWORK).state_dict(), weights)
    build(house, settings(hashlib.sha256(weights.read_bytes()).hexdigest()))
    repro(house, *ROWS)
    return house


@pytest.fixture
def house(photographed, tmp_path):
    return Path(shutil.copytree(photographed, tmp_path / "house", symlinks=True))


def keys(house: Path) -> dict[str, np.ndarray]:
    """The keys of all maps and scores, `row key`, by method or by metric and method."""
    found = {}
    for family, names in METHODS.items():
        scores = {one: read(house / f"data/scores/net/{family}.zarr", one) for one in METRIC_NAMES}
        for name in names:
            found[name] = stored.rows(house / f"data/maps/net/{family}.zarr", "images", name)[KEY]
            for metric in METRIC_NAMES:
                row = scores[metric]["method"][:].tolist().index(name)
                found[f"{metric} {name}"] = scores[metric][KEY][row]
    return found


def images(house: Path) -> list[str]:
    """The evaluation images, in their order; costs are measured on the first."""
    return zarr.open_group(house / "data/images/net.zarr/images", mode="r")["image"][:].tolist()


def changed(before: dict[str, np.ndarray], after: dict[str, np.ndarray]) -> dict[str, list[int]]:
    """The rows that have another key, where there are any."""
    rows = {name: np.flatnonzero((before[name] != after[name]).any(axis=1)).tolist() for name in before}
    return {name: found for name, found in rows.items() if found}


@pytest.mark.parametrize("kind", [".jpg", ".png"])
def test_a_replaced_photograph_makes_its_own_rows_anew(house, kind):
    ids = images(house)
    row = max(at for at, name in enumerate(ids) if name.endswith(kind))
    before = keys(house)
    drawn(house / RAW / ids[row], 100)
    assert computed(repro(house, *ROWS)) == {
        "predict:": 1,
        **{f"attribute:{name}:images": 1 for name in NAMES},
        # The map that looks at no picture is the same, and so is what is judged of it by boxes alone.
        **{f"score:{name}": 2 for name in OF_BOXES},
        "score:deletion": 3,
        "correlate:": 1,
    }
    looking = [name for name in NAMES if name != "uniform"]
    judged = [f"{metric} {name}" for metric in METRIC_NAMES for name in looking]
    assert changed(before, keys(house)) == {name: [row] for name in [*NAMES, *judged, "deletion uniform"]}
    assert computed(repro(house, *ROWS)) == {}


def test_a_corrected_box_makes_its_scores_of_localization_anew_and_no_map(house):
    ids = images(house)
    before, file = keys(house), house / RAW / "photos.csv"
    rows = list(csv.DictReader(file.read_text().splitlines()))
    next(one for one in rows if one["path"] == ids[-1])["y1"] = "24"
    with file.open("w", newline="") as opened:
        writer = csv.DictWriter(opened, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    assert computed(repro(house, *ROWS)) == {f"score:{name}": len(NAMES) for name in OF_BOXES}
    judged = [f"{metric} {name}" for metric in OF_BOXES for name in NAMES]
    assert changed(before, keys(house)) == {name: [PICTURES - 1] for name in judged}


def test_another_fit_makes_all_maps_anew(house):
    params = yaml.safe_load((house / "params.yaml").read_text())
    params["datasets"]["photos"]["fit"] = {"mode": "squash", "size": 32}
    write(house, params)
    assert computed(repro(house, *ROWS)) == {
        "predict:": PICTURES,
        **{f"attribute:{name}:images": PICTURES for name in NAMES},
        **{f"score:{name}": PICTURES * len(NAMES) for name in METRIC_NAMES},
        "correlate:": PICTURES,
        "cost:methods": len(NAMES),
        "cost:metrics": len(METRIC_NAMES),
    }
