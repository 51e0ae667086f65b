"""Kill the stage that makes maps, again and again: the next run goes on, and the store comes out the same."""

import json
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from study import build, environment, files, run, tiny

CELL = ("stages.attribute", "resnet_vanilla", "noise")
BATCH = 4


@pytest.fixture(scope="module")
def house(tmp_path_factory) -> Path:
    params = tiny()
    params["engine"]["batch"] = BATCH
    params["classifiers"]["resnet_vanilla"]["images"]["count"] = 60
    params["methods"]["noise"]["smoothgrad"]["samples"] = 64
    house = build(tmp_path_factory.mktemp("kill") / "house", params)
    for verb, name in (
        ("collect", "shapes"),
        *((verb, "resnet_vanilla") for verb in ("train", "predict", "select", "tile")),
    ):
        run(house, sys.executable, "-m", f"stages.{verb}", name)
    return house


def journal(house: Path) -> list[Path]:
    return list((house / ".atlas/cells/attribute@resnet_vanilla-noise/journal").glob("*.npz"))


def rows(house: Path) -> int:
    total = 0
    for file in journal(house):
        with np.load(file) as batch:
            total += len(batch["key"])
    return total


def test_ten_kills(house, tmp_path):
    whole = Path(shutil.copytree(house, tmp_path / "whole"))
    run(whole, sys.executable, "-m", *CELL)
    chance = random.Random(0)
    for _ in range(10):
        before = len(journal(house))
        process = subprocess.Popen(
            [sys.executable, "-m", *CELL], cwd=house, env=environment(house), stderr=subprocess.DEVNULL
        )
        while len(journal(house)) == before and process.poll() is None:
            time.sleep(0.005)
        time.sleep(chance.uniform(0, 0.1))
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL, "it was over before it could be killed: make the study larger"
        assert not (house / "data/maps").exists()
    saved = rows(house)
    assert saved >= 10 * BATCH
    run(house, sys.executable, "-m", *CELL)
    last = json.loads((house / ".atlas/log.jsonl").read_text().splitlines()[-1])
    assert last["rows_wanted"] == 60 + 4 * 3
    assert last["rows_reused"] == saved
    assert files(house / "data/maps") == files(whole / "data/maps")
