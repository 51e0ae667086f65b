"""A lock read and written stage by stage is the one that DVC reads and writes."""

import json
from copy import deepcopy

import pytest
from dvc.dvcfile import Lockfile
from dvc.repo import Repo
from dvc.utils.serialize._yaml import dumps_yaml, parse_yaml
from dvc.utils.strictyaml import YAMLValidationError

from flows.dvc_speedups import lock_by_stage as lock
from flows.recording import record
from tests.support.study import ROOT

LOCK = (ROOT / "dvc.lock").read_text()
STAGES = parse_yaml(LOCK, "dvc.lock")["stages"]


def test_a_lock_is_put_together_as_dvc_formats_it():
    blocks = lock.cut(LOCK)
    assert len(blocks) == len(STAGES)
    for name, stage in STAGES.items():
        assert lock.put(blocks, lock.formatted({name: stage})) == LOCK, name


@pytest.mark.parametrize("place", [0, 20, len(STAGES) - 1])
def test_what_changes_is_put_as_dvc_puts_it(place):
    """What stands at two places of a stage is written once, and numbered through the file."""
    stages, text = dict(STAGES), LOCK
    for name in (list(stages)[place], "score@new-one"):
        shared = {"first": [1, 2]}
        outer = {"within": shared}
        params = {"params.yaml": {"a": outer, "b": shared, "c": 1e-5, "d": outer}}
        stages[name] = {**deepcopy(STAGES["report"]), "params": params}
        text = lock.put(lock.cut(text), lock.formatted({name: stages[name]}))
        assert text == dumps_yaml({"schema": "2.0", "stages": stages})


@pytest.mark.parametrize(
    ("before", "after"), [("# mine\n", ""), ("", "datasets: []\n"), ("", "\n"), ("", "  x: 1"), ("x: 1\n", "")]
)
def test_what_is_not_as_dvc_writes_it_is_not_cut(before, after):
    assert lock.cut(before + LOCK + after) is None


def test_a_stage_that_names_what_stands_in_another_is_left_to_dvc():
    first, second = "  a:\n    cmd: &id001 []\n", "  b:\n    cmd: *id001\n"
    assert lock.put([first], second) is None


def test_a_comment_in_the_lock_is_kept_as_dvc_keeps_it(project):
    record(str(project), "say@one")
    file = project / "dvc.lock"
    file.write_text("# mine\n" + file.read_text())
    record(str(project), "say@two")
    assert file.read_text().startswith("# mine\n")
    assert "say@two" in file.read_text()


def test_a_damaged_lock_is_reported_as_dvc_reports_it(project):
    record(str(project), "say@one")
    file = project / "dvc.lock"
    file.write_text(file.read_text().replace("cmd:", "command:"))
    with (
        lock.lock_by_stage(project),
        Repo(str(project)) as repo,
        pytest.raises(YAMLValidationError, match=r"dvc\.lock"),
    ):
        repo.reproduce("say@two")


PARAMS = "  {}:\n    cmd: b\n    params:\n      params.yaml:\n        value: {}\n"
TEXTS = {
    "as usual": [PARAMS.format("a", "1e-05"), PARAMS.format("b", "[1, 1.0, yes, null, '1']")],
    "a date, and keys that are no text": [PARAMS.format("a", "2026-12-01"), PARAMS.format("b", "{1: 2}")],
    "what stands in another stage": [PARAMS.format("a", "&x [1]"), PARAMS.format("b", "*x")],
    "another content of the same stage": [PARAMS.format("a", "&x [2]"), PARAMS.format("b", "*x")],
    "other stages": [PARAMS.format("c", "1"), PARAMS.format("a", "1e-05")],
}


def test_what_is_kept_of_a_lock_is_what_dvc_parses(project):
    """In turns, since what is kept is of the lock before."""
    with Repo(str(project)) as repo:
        file = Lockfile(repo, str(project / "dvc.lock"))
        for text in [*TEXTS.values(), *TEXTS.values()]:
            (project / "dvc.lock").write_text(lock.HEAD + "".join(text))
            parsed = file._load_yaml()
            for _ in range(2):
                with lock.lock_by_stage(project):
                    found = file._load_yaml()
                assert repr(found) == repr(parsed)  # 1 is no 1.0, and in the same order
        kept = json.loads((project / ".atlas/lock.json").read_text())
        assert sorted(name for stage in kept.values() for name in stage) == ["a", "c"]
