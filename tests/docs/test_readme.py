"""README and docs/ show what the default study made, and nothing else; what they list is there, what they show runs."""

import re
import warnings
from pathlib import Path

import matplotlib.pyplot as plt
import pytest
import yaml

from atlas.study.params import entries, load
from atlas.study.schema.signatures import signature
from atlas.study.schema.smoothing import check_smoothings, read_smoothings
from stages import aggregate
from tests.support import made_up
from tests.support.metrics import FAMILIES
from tests.support.reported import housed

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
PAGES = {file.stem: file.read_text() for file in sorted((ROOT / "docs").glob("*.md"))}
TEXTS = {"README": README, **PAGES}
METHODS = {name for family in entries(load(ROOT), "methods").values() for name in family}
RANK = r"\d+\.\d \(\d+\.\d to \d+\.\d\)"  # as the leaderboard has ranks


def test_the_leaderboard_is_of_methods_that_there_are():
    line = rf"\| \d* \| `(\w+)` \| \w+ \| {RANK} \| [^|]+ \|(?: {RANK} \|)+"
    shown = [re.fullmatch(line, one)[1] for one in PAGES["leaderboard"].splitlines()[2:]]
    assert shown
    assert set(shown) <= METHODS


@pytest.mark.parametrize("page", TEXTS)
def test_a_rank_is_one_of_the_leaderboard(page):
    assert re.search(RANK, PAGES["leaderboard"])
    assert set(re.findall(RANK, TEXTS[page])) <= set(re.findall(RANK, PAGES["leaderboard"]))


def test_it_is_short_and_sends_to_the_leaderboard():
    assert len(README.splitlines()) <= 130
    assert "(docs/leaderboard.md)" in README


def test_the_methods_they_list_are_all_there_are():
    listed = re.findall(r"^\| `(\w+)` \| (`.*`) \|$", PAGES["methods"], re.MULTILINE)
    assert {family for family, _ in listed} >= set(load(ROOT)["methods"])
    for family, names in listed:
        for name in re.findall(r"`(\w+)`", names):
            assert signature("methods", family, name), name


def test_the_metrics_they_list_are_all_there_are():
    listed = re.findall(r"^\| `(\w+)` \| (`[^|]*`) \| \w[^|`]* \|$", PAGES["metrics"], re.MULTILINE)
    told = {family: set(re.findall(r"`(\w+)`", names)) for family, names in listed}
    assert told == {family: set(names) for family, names in FAMILIES.items()}


@pytest.mark.parametrize("page", ["README", "methods", "certify", "add-a-method", "add-a-metric"])
def test_entries_are_right(page):
    blocks = re.findall(r"```yaml\n(.*?)```", TEXTS[page], re.DOTALL)
    assert blocks
    for block in blocks:
        given = yaml.safe_load(block)
        if "classifiers" in given:
            continue  # of a study of one's own: tests/docs/test_own_images.py makes it
        known = read_smoothings(given, METHODS) if "certify" in given else {}
        for listed in entries(given, "metrics").values() if known else []:
            for metric in listed.values():
                check_smoothings(metric, METHODS, known)
        for kind, families in given.items():
            for family, names in families.items():
                shipped = {name: given for name, given in names.items() if name not in ("gradient_squared", "peak")}
                if shipped and kind != "certify":
                    entries({kind: {family: shipped}}, kind)


def test_the_lines_that_open_results_run_on_a_study_of_these_classifiers(tmp_path_factory, monkeypatch):
    (lines,) = re.findall(r"```python\n(from atlas import open.*?)```", README, re.DOTALL)
    others, stores = re.findall(r"```python\n(.*?)```", PAGES["results"], re.DOTALL)
    monkeypatch.setattr(made_up, "CLASSIFIERS", [*load(ROOT)["classifiers"]])
    with housed(tmp_path_factory, made_up) as study:
        aggregate.main(study)
        monkeypatch.chdir(study)
        exec(lines, {})
        exec(others, {})
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            exec(stores, opened := {})
        assert opened["summary"].equals(opened["everything"]["summary"].to_dataset())
    (image,) = plt.gca().collections
    assert image.get_array().size == made_up.SIDE**2
    plt.close("all")


def test_its_commands_are_there():
    targets = re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert {"reproduce", "test", "docs"} <= set(targets)
    asked = {name for text in TEXTS.values() for name in re.findall(r"(?m)(?:^|`)make ([^\s`]+)", text)}
    assert asked - {"studies/mine/dvc.yaml"} <= set(targets)  # the one that test_studies has made by a rule of its own
