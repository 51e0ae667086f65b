"""The README shows what the default study made: its methods, its figure, its leaderboard; its lines open results."""

import re
from pathlib import Path

import made_up
import matplotlib.pyplot as plt
import yaml
from judging import FAMILIES
from reported import housed

from stages import aggregate
from stages.study.params import entries, load
from stages.study.signatures import signature
from stages.study.smoothing import check_judging, smoothings

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
METHODS = {name for family in entries(load(ROOT), "methods").values() for name in family}


def test_the_table_is_of_methods_that_there_are():
    shown = set(re.findall(r"^\| \d+ \| `(\w+)` \|", README, re.MULTILINE))
    assert shown
    assert shown <= METHODS


def test_it_shows_the_leaderboard_as_the_report_writes_it():
    assert (ROOT / "docs" / "leaderboard.md").read_text().strip() in README


def test_the_methods_it_lists_are_there():
    listed = re.findall(r"^\| `(\w+)` \| (`.*`) \|$", README, re.MULTILINE)
    assert {family for family, _ in listed} >= set(load(ROOT)["methods"])
    for family, names in listed:
        for name in re.findall(r"`(\w+)`", names):
            assert signature("methods", family, name), name


def test_the_metrics_it_lists_are_all_there_are():
    listed = re.findall(r"^\| `(\w+)` \| (`[^|]*`) \| \w[^|`]* \|$", README, re.MULTILINE)
    told = {family: set(re.findall(r"`(\w+)`", names)) for family, names in listed}
    assert told == {family: set(names) for family, names in FAMILIES.items()}


def test_its_entries_are_right():
    for block in re.findall(r"```yaml\n(.*?)```", README, re.DOTALL):
        given = yaml.safe_load(block)
        if "classifiers" in given:
            continue  # of a study of one's own: tests/test_own_images.py makes it
        known = smoothings(given, METHODS) if "certify" in given else {}
        for listed in entries(given, "metrics").values() if known else []:
            for metric in listed.values():
                check_judging(metric, METHODS, known)
        for kind, families in given.items():
            for family, names in families.items():
                shipped = {name: given for name, given in names.items() if name not in ("gradient_squared", "peak")}
                if shipped and kind != "certify":
                    entries({kind: {family: shipped}}, kind)


def test_the_lines_that_open_results_run_on_a_study_of_these_classifiers(tmp_path_factory, monkeypatch):
    (lines,) = re.findall(r"```python\n(from stages.share.*?)```", README, re.DOTALL)
    monkeypatch.setattr(made_up, "CLASSIFIERS", [*load(ROOT)["classifiers"]])
    with housed(tmp_path_factory, made_up) as study:
        aggregate.main(study)
        monkeypatch.chdir(study)
        exec(lines, {})
    (image,) = plt.gca().collections
    assert image.get_array().size == made_up.SIDE**2
    plt.close("all")


def test_its_figures_are_there():
    for figure in re.findall(r"!\[[^\]]+\]\(([^)]+)\)", README):
        assert (ROOT / figure).is_file(), figure


def test_its_commands_are_there():
    targets = re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert {"reproduce", "test"} <= set(targets)
    asked = set(re.findall(r"^make (\S+)", README, re.MULTILINE))
    assert asked - {"studies/mine/dvc.yaml"} <= set(targets)  # the one that test_studies has made by a rule of its own
