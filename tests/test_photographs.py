"""The study of photographs: what it is of, and a small part of it, made."""

import csv
import importlib.util
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image
from study import ROOT

from stages import attribute, collect, predict, prepare, score, select, tile
from stages.share import open_maps

STUDY = ROOT / "studies" / "photographs"
METHODS = {"gradient": ["gradient"], "cam": ["gradcam"], "relevance": ["lrp"], "control": ["center"]}


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """A copy of the study with its raw data: one network, four photographs, a few methods and metrics."""
    study = tmp_path_factory.mktemp("photographs")
    for name in ("gather.py", "photographs.csv"):
        shutil.copy(STUDY / name, study)
    spec = importlib.util.spec_from_file_location("gather", study / "gather.py")
    gather = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(gather)
    gather.main()
    gather.main()  # links that are there are no obstacle
    params = yaml.safe_load((STUDY / "params.yaml").read_text())
    classifier = params["classifiers"]["lite0"]
    classifier["images"] = {"count": 4, "correct_by": ["lite0"]}
    classifier["grids"] = None
    params["classifiers"] = {"lite0": classifier}
    params["engine"]["batch"] = 4
    params["methods"] = {
        family: {name: params["methods"][family][name] for name in names} for family, names in METHODS.items()
    }
    params["metrics"] = {"localization": params["metrics"]["localization"]}
    params["certify"] = {}
    (study / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False))
    return study


def test_every_object_is_in_its_photograph(study):
    rows = list(csv.DictReader((STUDY / "photographs.csv").read_text().splitlines()))
    place = study / "data/raw/photographs"
    files = sorted(file.name for file in place.glob("*.jpg"))
    assert len(files) == 20
    assert sorted({row["path"] for row in rows}) == files
    for row in rows:
        x0, y0, x1, y1 = (int(row[name]) for name in ("x0", "y0", "x1", "y1"))
        with Image.open(place / row["path"]) as photograph:
            width, height = photograph.size
        assert 0 <= x0 < x1 <= width
        assert 0 <= y0 < y1 <= height
        assert row["label"] == row["path"].removesuffix(".jpg").rpartition("_")[2]


def test_a_part_of_it_is_made(study, monkeypatch):
    monkeypatch.chdir(study)
    here = Path()
    collect.main(here, "photographs")
    for stage in (prepare, predict, select, tile):
        stage.main(here, "lite0")
    card = json.loads(Path("data/classifiers/lite0/card.json").read_text())
    assert card["accuracy"] == 0.9
    for family in METHODS:
        attribute.main(here, "lite0", family)
    score.main(here, "lite0", "relevance")
    energy = [open_maps("lite0", name, study=here).load() for name in ("gradcam", "lrp")]
    assert all(maps.sizes == {"image": 4, "y": 224, "x": 224} for maps in energy)
    assert all(np.isfinite(maps).all() for maps in energy)
