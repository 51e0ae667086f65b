"""A lock read and written stage by stage is the one that DVC reads and writes."""

from copy import deepcopy

import pytest
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
