"""DVC records cells with less work than it takes by itself, and its lock and the commands come out alike."""

import os
import shutil
import sys
import time
from copy import deepcopy
from pathlib import Path

import psutil
import pytest
import yaml
from dvc.dependency.base import Dependency
from dvc.dvcfile import Lockfile
from dvc.output import Output
from dvc.repo import Repo
from dvc.stage import run as running
from dvc.stage.cache import StageCache
from dvc.stage.exceptions import StageCmdFailedError
from dvc.utils.serialize._yaml import dumps_yaml, parse_yaml
from dvc.utils.strictyaml import YAMLValidationError
from typer.testing import CliRunner

from atlas.study.errors import UserError
from flows import cli, commands, lock
from flows.plan import Plan
from flows.workers import Killed, record
from tests.support.study import ROOT, files, run

LOCK = (ROOT / "dvc.lock").read_text()
STAGES = parse_yaml(LOCK, "dvc.lock")["stages"]
SAYS = """
import json, os, sys, time
from pathlib import Path
name = sys.argv[1]
if name == "bad":
    print("error: bad is no number", file=sys.stderr)
    sys.exit(3)
if name == "killed":
    os.kill(os.getpid(), 9)
if name == "long":
    Path("begun").write_text(str(os.getpid()))
    time.sleep(300)
Path(f"{name}.json").write_text(json.dumps([sys.argv[1:], os.getcwd(), sys.path[0], os.environ["DVC_STAGE"]]))
"""
PIPELINE = {
    "stages": {
        "say": {
            "foreach": ["one", "two", "bad", "killed", "long"],
            "do": {"cmd": "python -m stages.say ${item}", "params": ["shared"], "outs": ["${item}.json"]},
        },
        "copy": {"cmd": "cp one.json copied", "deps": ["one.json"], "outs": ["copied"]},
    }
}
PARAMS = "seen: &seen {a: 1e-5, b: '1e5'}\nshared: {first: *seen, second: *seen}\n"


@pytest.fixture(autouse=True)
def undone(monkeypatch):
    """What DVC does by itself is put back afterwards."""
    changed = ((Lockfile, "_load_yaml"), (Lockfile, "dump_stages"), (running, "_run"), (StageCache, "save"))
    for owner, name in changed:
        monkeypatch.setattr(owner, name, getattr(owner, name))


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A small project of DVC, whose stages say how they were called."""
    place = tmp_path / "project"
    (place / "stages").mkdir(parents=True)
    (place / "stages" / "__init__.py").touch()
    (place / "stages" / "say.py").write_text(SAYS)
    (place / "dvc.yaml").write_text(yaml.safe_dump(PIPELINE))
    (place / "params.yaml").write_text(PARAMS)
    Repo.init(str(place), no_scm=True).close()
    monkeypatch.chdir(place)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    return place


def plainly(project, *cells: str) -> str:
    """Return the lock that DVC writes by itself."""
    run(project, "dvc", "repro", "-q", "-s", *cells)
    return (project / "dvc.lock").read_text()


def test_a_lock_is_put_together_as_dvc_spells_it():
    blocks = lock.cut(LOCK)
    assert len(blocks) == len(STAGES)
    for name, stage in STAGES.items():
        assert lock.put(blocks, lock.spelled({name: stage})) == LOCK, name


@pytest.mark.parametrize("place", [0, 20, len(STAGES) - 1])
def test_what_changes_is_put_as_dvc_puts_it(place):
    """What stands at two places of a stage is spelled once, and numbered through the file."""
    stages, text = dict(STAGES), LOCK
    for name in (list(stages)[place], "score@new-one"):
        shared = {"first": [1, 2]}
        outer = {"within": shared}
        params = {"params.yaml": {"a": outer, "b": shared, "c": 1e-5, "d": outer}}
        stages[name] = {**deepcopy(STAGES["report"]), "params": params}
        text = lock.put(lock.cut(text), lock.spelled({name: stages[name]}))
        assert text == dumps_yaml({"schema": "2.0", "stages": stages})


@pytest.mark.parametrize(
    ("before", "after"), [("# mine\n", ""), ("", "datasets: []\n"), ("", "\n"), ("", "  x: 1"), ("x: 1\n", "")]
)
def test_what_is_not_as_dvc_writes_it_is_not_cut(before, after):
    assert lock.cut(before + LOCK + after) is None


def test_a_stage_that_names_what_stands_in_another_is_left_to_dvc():
    first, second = "  a:\n    cmd: &id001 []\n", "  b:\n    cmd: *id001\n"
    assert lock.put([first], second) is None


def test_cells_are_recorded_as_dvc_records_them(project):
    def recorded(*cells: str) -> str:
        for cell in cells:
            record(str(project), cell)
        return (project / "dvc.lock").read_text()

    made = {}
    for way in (lambda *cells: plainly(project, *cells), recorded):
        (project / "params.yaml").write_text(PARAMS)
        first = way("say@one", "say@two", "copy")
        (project / "params.yaml").write_text(PARAMS.replace("1e-5", "2e-5"))
        made[way] = first, way("say@one"), files(project / ".dvc" / "cache" / "runs")
        (project / "dvc.lock").unlink()
        shutil.rmtree(project / ".dvc" / "cache")
    theirs, ours = made.values()
    assert ours == theirs
    assert theirs[0] != theirs[1]
    assert "&id002" in theirs[0]
    assert theirs[0].count("outs:") == 3
    assert len(theirs[2]) == 4  # each run is filed


def test_inputs_are_walked_once_for_the_record(project, monkeypatch):
    walked = []
    build = Output._build
    monkeypatch.setattr(Output, "_build", lambda self, *given, **how: walked.append(self) or build(self, *given, **how))

    def walks(way) -> int:
        way("say@one", "copy")
        (project / "one.json").unlink()
        (project / "dvc.lock").unlink()
        shutil.rmtree(project / ".dvc" / "cache")
        number = sum(isinstance(one, Dependency) for one in walked)
        walked.clear()
        return number

    def by_itself(*cells: str) -> None:
        with Repo(str(project)) as repo:
            for cell in cells:
                repo.reproduce(cell, single_item=True)

    def recorded(*cells: str) -> None:
        for cell in cells:
            record(str(project), cell)

    theirs = walks(by_itself)  # first: recording changes DVC
    assert walks(recorded) == theirs - 2 > 0


def test_a_comment_in_the_lock_is_kept_as_dvc_keeps_it(project):
    record(str(project), "say@one")
    file = project / "dvc.lock"
    file.write_text("# mine\n" + file.read_text())
    record(str(project), "say@two")
    assert file.read_text().startswith("# mine\n")
    assert "say@two" in file.read_text()


def test_a_damaged_lock_is_told_as_dvc_tells_it(project):
    record(str(project), "say@one")
    file = project / "dvc.lock"
    file.write_text(file.read_text().replace("cmd:", "command:"))
    with Repo(str(project)) as repo, pytest.raises(YAMLValidationError, match=r"dvc\.lock"):
        repo.reproduce("say@two")


def test_a_command_is_called_as_dvc_calls_it(project):
    record(str(project), "say@one")
    ours = (project / "one.json").read_text()
    assert yaml.safe_load(ours) == [["one"], str(project), str(project), "say@one"]
    (project / "one.json").unlink()
    commands._as_dvc(
        None, ["python", "-m", "stages.say", "one"], cwd=project, env={**os.environ, "DVC_STAGE": "say@one"}
    )
    assert (project / "one.json").read_text() == ours


def test_a_command_finds_code_as_it_is_then(project):
    record(str(project), "say@one")
    code = project / "stages" / "say.py"
    code.write_text(code.read_text() + "Path(f'{name}.json').write_text('later')\n")
    record(str(project), "say@two")
    assert (project / "two.json").read_text() == "later"


@pytest.mark.parametrize("text", [PARAMS.replace("1e-5", "1e-6"), "", "{", None])
def test_settings_edited_between_an_output_and_its_record_are_not_recorded(project, monkeypatch, text):
    """DVC reads them after the command has ended, which has looked at them for the last time."""
    record(str(project), "say@one")
    locked, filed = (project / "dvc.lock").read_text(), files(project / ".dvc/cache/runs")
    params = project / "params.yaml"
    edit = params.unlink if text is None else lambda: params.write_text(text)
    called = commands._run
    monkeypatch.setattr(commands, "_run", lambda *given, **how: (called(*given, **how), edit()))
    with pytest.raises(UserError) as told:
        record(str(project), "say@two")
    assert (project / "two.json").is_file()
    assert (project / "dvc.lock").read_text() == locked
    assert files(project / ".dvc/cache/runs") == filed
    assert len(str(told.value).splitlines()) == 1
    if text == PARAMS.replace("1e-5", "1e-6"):
        assert str(told.value) == "params.yaml was edited while say@two was recorded; no row is lost: run again"
    monkeypatch.setattr(commands, "_run", called)
    params.write_text(PARAMS)
    record(str(project), "say@two")
    assert "say@two" in (project / "dvc.lock").read_text()


def test_a_comment_in_settings_is_no_edit_of_them(project, monkeypatch):
    called, params = commands._run, project / "params.yaml"
    edit = lambda: params.write_text(f"# later\n{PARAMS}")  # noqa: E731
    monkeypatch.setattr(commands, "_run", lambda *given, **how: (called(*given, **how), edit()))
    record(str(project), "say@one")
    assert "say@one" in (project / "dvc.lock").read_text()


def test_a_command_that_fails_fails_the_cell_and_is_heard(project, capfd):
    commands._server.cache_clear()  # the next one's stderr is what is captured here
    with pytest.raises(UserError, match=r"^bad is no number \(exit status 3\)$"):
        record(str(project), "say@bad")
    assert "bad is no number" in capfd.readouterr().err  # as it comes, too
    with pytest.raises(StageCmdFailedError, match="exited with 3"):
        commands._run(None, "python -m stages.say bad", cwd=str(project), env=dict(os.environ))
    record(str(project), "say@one")


def test_a_command_that_is_killed_is_told_apart(project):
    with pytest.raises(Killed, match=r"its command was killed by SIGKILL \(out of memory\?\)"):
        record(str(project), "say@killed")
    record(str(project), "say@one")


def test_a_command_ends_with_the_process_that_asked_for_it(project):
    """Twice: where the one who asks is killed, and where the process is that forks."""
    for depth in (0, 1):
        (project / "begun").unlink(missing_ok=True)
        code = f"import sys; sys.path[0] = {str(ROOT)!r}; from flows.workers import record; record('.', 'say@long')"
        asking = psutil.Popen([sys.executable, "-c", code], cwd=project)
        while not (project / "begun").is_file() or not (project / "begun").read_text():
            assert asking.poll() is None
            time.sleep(0.05)
        command = psutil.Process(int((project / "begun").read_text()))
        (asking if depth == 0 else asking.children()[0]).kill()
        command.wait(timeout=10)
        asking.wait(timeout=30)


def test_a_lock_is_whole_whenever_its_writer_is_killed(project, monkeypatch):
    """The old one or the new one: DVC itself empties the file first."""
    record(str(project), "say@one")
    before = (project / "dvc.lock").read_text()
    seen = []
    replace = Path.replace
    monkeypatch.setattr(
        Path, "replace", lambda self, to: seen.append((project / "dvc.lock").read_text()) or replace(self, to)
    )
    for way in (None, "# mine\n"):  # the latter is left to DVC
        if way:
            (project / "dvc.lock").write_text(way + before)
        seen.clear()
        record(str(project), "say@two")
        assert seen == [(way or "") + before]
        (project / "two.json").unlink()
        (project / "dvc.lock").write_text(before)


def test_cells_that_failed_are_told_where_no_draft_can_be_made(tmp_path, monkeypatch):
    from flows import draft, reproduce

    def fails(*_):
        failed = {"score@a-b": "score@a-b: no memory"}
        raise reproduce.NotMade(failed, {**failed, "aggregate": "it needs score@a-b, which was not made"})

    def raises(*_):
        raise OSError("the disk is full")

    monkeypatch.setattr(cli, "supervised", lambda work: work())
    monkeypatch.setattr(cli, "check", lambda study: None)
    monkeypatch.setattr(cli, "load", lambda study: {})
    monkeypatch.setattr(cli, "_clean", lambda study: 0)
    monkeypatch.setattr(cli.planning, "plan", lambda study: Plan({"score@a-b": []}, {}))
    monkeypatch.setattr(reproduce, "reproduce", fails)
    monkeypatch.setattr(draft, "draft", raises)
    done = CliRunner().invoke(cli.app, ["reproduce", "--keep-going", "--study", str(tmp_path)])
    assert done.exit_code == 1
    assert done.stderr.splitlines() == [
        "no draft could be made: OSError: the disk is full",
        "error: 1 cell failed and 1 was not run; all else was made",
        "  score@a-b failed: no memory",
        "  aggregate was not run: it needs score@a-b, which was not made",
    ]
