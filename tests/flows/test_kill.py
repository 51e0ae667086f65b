"""Kill the stage that makes maps, again and again: the next run goes on, and the store comes out the same."""

import json
import os
import random
import shutil
import signal
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from tests.support.forked import call, start
from tests.support.study import build, environment, files, run, tiny

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
        *((verb, "resnet_vanilla") for verb in ("prepare", "predict", "select", "tile")),
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


@pytest.fixture(scope="module")
def whole(house, tmp_path_factory) -> Path:
    """The same study, undisturbed."""
    whole = Path(shutil.copytree(house, tmp_path_factory.mktemp("whole") / "house"))
    run(whole, sys.executable, "-m", *CELL)
    return whole


def test_ten_kills(house, whole, tmp_path):
    house = Path(shutil.copytree(house, tmp_path / "house"))
    chance = random.Random(0)
    for number in range(10):
        before = len(journal(house))
        process = start([sys.executable, "-m", *CELL], house, environment(house), os.devnull, os.devnull)
        if number % 3 == 2:  # on its way to the first batch: importing, asking for keys, reading the journal
            time.sleep(chance.uniform(0, 1))
        else:
            while len(journal(house)) == before and not process.ended():
                time.sleep(0.005)
            time.sleep(chance.uniform(0, 0.1))
        if not process.ended():
            process.kill()
        assert process.wait() == -signal.SIGKILL, "it was over before it could be killed: make the study larger"
        assert not (house / "data/maps").exists()
        assert rows(house) >= before * BATCH
    saved = rows(house)
    assert saved >= 7 * BATCH
    run(house, sys.executable, "-m", *CELL)
    last = json.loads((house / ".atlas/log.jsonl").read_text().splitlines()[-1])
    assert last["rows_wanted"] == 60 + 4 * 3
    assert last["rows_reused"] == saved
    assert files(house / "data/maps") == files(whole / "data/maps")


KILLED_AT_A_RENAME = """
import os, runpy, signal, sys
from pathlib import Path

left, module = int(sys.argv.pop(1)), sys.argv.pop(1)
rename = Path.rename

def dying(self, target):
    global left
    if left == 0:
        os.kill(os.getpid(), signal.SIGKILL)
    left -= 1
    return rename(self, target)

Path.rename = dying
runpy.run_module(module, run_name="__main__", alter_sys=True)
"""


def finished(house: Path) -> dict[str, bytes]:
    """What is in place; what a killed process had set aside and its locks, DVC ignores and `atlas clean` deletes."""
    return {name: data for name, data in files(house / "data/maps").items() if ".partial" not in name}


def test_a_kill_at_any_rename_leaves_the_old_output_or_the_new(house, whole, tmp_path):
    """The outputs of an earlier run are in the way."""
    house = Path(shutil.copytree(whole, tmp_path / "house"))
    made = files(whole / "data/maps")
    for number in range(10):
        done = call([sys.executable, "-c", KILLED_AT_A_RENAME, str(number), *CELL], house, environment(house))
        assert finished(house) in ({}, made)
        if done.returncode == 0:
            break
        assert done.returncode == -signal.SIGKILL
    assert number >= 3, "it was to be killed at least when it set the old output aside and when it put the new in place"
    last = json.loads((house / ".atlas/log.jsonl").read_text().splitlines()[-1])
    assert last["rows_computed"] == 0
    assert finished(house) == made
    run(house, "atlas", "clean")
    assert files(house / "data/maps") == made
