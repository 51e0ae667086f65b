"""What is wrong with a study's files of DVC is told in one line, with exit status 2."""

import os
import shutil
from pathlib import Path

import pytest

from atlas.cache import locks
from atlas.study.errors import UserError
from flows.plan import at_work, clean
from flows.workers import Workers
from tests.support.forked import call
from tests.support.study import build, environment, run, tiny


@pytest.fixture(scope="module")
def ready(tmp_path_factory):
    return build(tmp_path_factory.mktemp("told") / "house", tiny())


@pytest.fixture
def house(ready, tmp_path):
    return Path(shutil.copytree(ready, tmp_path / "house"))


def replaced(name: str, old: bytes, new: bytes):
    def change(house: Path) -> None:
        data = (house / name).read_bytes()
        assert old in data
        (house / name).write_bytes(data.replace(old, new, 1))

    return change


def written(name: str, data: bytes):
    return lambda house: (house / name).write_bytes(data)


CASES = {
    "merge conflict": (replaced("dvc.yaml", b"  tile:", b"<<<<<<< HEAD\n  tile:"), "marks a merge conflict (<<<<"),
    "merge conflict in settings": (replaced("params.yaml", b"seed:", b"=======\nseed:"), "params.yaml: line 1 marks"),
    "empty lock": (written("dvc.lock", b""), "dvc.lock: is empty; `git checkout dvc.lock`"),
    "binary lock": (written("dvc.lock", bytes(range(256))), "dvc.lock: is not readable as text"),
    "bytes of nothing": (written("dvc.lock", b"\0" * 99), "dvc.lock: holds bytes that are not text"),
    "text": (written("dvc.lock", b"hello"), "dvc.lock: expected a dictionary; `git checkout dvc.lock`"),
    "the same cell twice": (
        written("dvc.lock", b"schema: '2.0'\nstages:\n" + b"  a:\n    cmd: b\n" * 2),
        'dvc.lock: line 5: found duplicate key "a"; `git checkout dvc.lock`',
    ),
    "the same stage twice": (
        replaced("dvc.yaml", b"  report:", b"  report:\n    cmd: a\n  report:"),
        'dvc.yaml: line ',
    ),
    "a cycle": (replaced("dvc.yaml", b"      - data/scores\n", b"      - data/report\n"), "dvc.yaml: "),
    "one output of two stages": (
        replaced("dvc.yaml", b"      - data/versions:", b"      - data/datasets/shapes.zarr:"), "dvc.yaml: "
    ),
    "an unknown word": (replaced("dvc.yaml", b"    cmd:", b"    cmdd:"), "dvc.yaml: extra keys not allowed"),
    "no such variable": (replaced("dvc.yaml", b"${datasets}", b"${dataset}"), "failed to parse 'stages.collect.fore"),
    "no dvc.yaml": (lambda house: (house / "dvc.yaml").unlink(), "dvc.yaml: there is no such file; a study is"),
    "no .dvc": (lambda house: shutil.rmtree(house / ".dvc"), "no repository of DVC (no folder .dvc here or above)"),
    "no .git": (lambda house: shutil.rmtree(house / ".git"), "no repository of Git (no folder .git)"),
    "configuration": (written(".dvc/config", b"[core\nx"), ".dvc/config, .dvc/config.local, or your own"),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_it_is_one_line(house, case):
    change, said = CASES[case]
    change(house)
    done = call(["atlas", "status"], house, environment(house))
    assert done.returncode == 2
    assert said in done.stderr
    assert done.stderr.startswith("error: ")
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["reproduce", "--workers", "0"], "--workers: 0; expected at least 1"),
        (["reproduce", "--workers", "-3"], "--workers: -3; expected at least 1"),
        (["serve", "--cron", "0 3 * * *", "--workers", "0"], "--workers: 0; expected at least 1"),
        (["serve", "--cron", "bad"], "--cron: 'bad' is no cron expression; expected five fields"),
        (["pull", "nope"], "'nope' does not exist as an output or a stage name in 'dvc.yaml'; expected"),
        (["pull", "dvc.yaml:nope"], "Stage 'nope' not found inside 'dvc.yaml' file; expected"),
        (["pull"], "not all outputs are here, and no remote is set to bring them from; `dvc remote add --default"),
        (["compare", "HEAD~1"], "has no revision 'HEAD~1' (Empty git repo); `git log`"),
    ],
    ids=lambda given: " ".join(given) if isinstance(given, list) else "",
)
def test_what_a_command_cannot_take_is_one_line(ready, words, said):
    done = call(["atlas", *words], ready, environment(ready), timeout=120)
    assert said in done.stderr
    assert done.returncode == 2
    assert done.stderr.startswith("error: ")
    assert len(done.stderr.splitlines()) == 1
    assert not done.stdout


def test_no_workers_are_refused_where_a_schedule_asks_for_them():
    with pytest.raises(UserError, match="workers: 0; expected at least 1"):
        Workers(0)


def test_status_says_that_a_run_is_under_way(ready):
    with at_work(ready):
        said = run(ready, "atlas", "status").stdout
    assert said == f"A run or a pull is under way on . (process {os.getpid()}): ask again when it has ended.\n"
    assert "stale cells" in run(ready, "atlas", "status").stdout


def test_debugging_shows_where(house):
    (house / "dvc.lock").write_text("hello")
    done = call(["atlas", "--debug", "status"], house, environment(house))
    assert "Traceback" in done.stderr
    assert done.returncode == 2


def test_what_a_living_process_makes_is_not_deleted(house):
    """Outputs that are being made, and the scratch of cells of entries that were renamed meanwhile."""
    output = house / "data/maps/resnet_vanilla/noise.zarr"
    living = locks.temporary_path(output)
    living.mkdir()
    dead = output.with_name(".noise.zarr.0.partial")
    dead.mkdir()
    cell, other = (house / ".atlas/cells" / name for name in ("attribute@gone-noise", "attribute@old-noise"))
    held = locks.take(cell / "lock")
    (other / "journal").mkdir(parents=True)
    gone = clean(house)
    assert living.is_dir()
    assert cell.is_dir()
    assert {one.name for one in gone} == {dead.name, other.name}
    locks.drop(living)
    os.close(held)
    assert clean(house) == [cell]
    assert not list(output.parent.glob(".*"))
