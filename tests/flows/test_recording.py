"""A cell is recorded as DVC records it; what failed is told by its command's last line."""

import os
import pickle
import shutil
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Event

import pytest
from dvc.stage import PipelineStage

from atlas.study import unedited
from atlas.study.command import RECORDED
from atlas.study.errors import UserError
from flows import recording
from flows.recording import KEPT, Recorder, commit, kept_stderr, record
from flows.workers import Killed, Made, files_of
from tests.support.dvc_project import PARAMS
from tests.support.study import ROOT, files, run


def test_cells_are_recorded_as_dvc_records_them(project):
    def by_dvc(*cells: str) -> str:
        run(project, "dvc", "repro", "-q", "-s", *cells)
        return (project / "dvc.lock").read_text()

    def by_record(*cells: str) -> str:
        for cell in cells:
            record(str(project), cell)
        return (project / "dvc.lock").read_text()

    found = {}
    for way in (by_dvc, by_record):
        (project / "params.yaml").write_text(PARAMS)
        first = way("say@one", "say@two", "copy")
        (project / "params.yaml").write_text(PARAMS.replace("1e-5", "2e-5"))
        found[way] = first, way("say@one"), files(project / ".dvc" / "cache" / "runs")
        (project / "dvc.lock").unlink()
        shutil.rmtree(project / ".dvc" / "cache")
    theirs, ours = found.values()
    assert ours == theirs
    assert theirs[0] != theirs[1]
    assert theirs[0].count("outs:") == 3
    assert len(theirs[2]) == 4  # each run is filed


def made(*names: str) -> dict[str, Made]:
    """Run cells' commands by hand, and return what a worker would: the files that were read for them."""
    for name in names:
        environ = {**os.environ, "DVC_STAGE": f"say@{name}"}
        subprocess.run([sys.executable, "-m", "stages.say", name], check=True, env=environ)
    unedited.READ.clear()
    for file in (Path("params.yaml"), Path("stages/say.py")):
        unedited.read(file)
    outputs = {name: Path(f"{name}.json").absolute() for name in names}
    return {
        f"say@{name}": Made(0.0, f"python -m stages.say {name}", dict(unedited.READ), output, files_of(output))
        for name, output in outputs.items()
    }


NOTHING = Made(0.0, "", {}, Path("nothing"), {})


def test_cells_that_are_made_are_recorded_together_as_dvc_records_them(project):
    run(project, "dvc", "repro", "-q", "-s", "say@one", "say@two")
    theirs, filed = (project / "dvc.lock").read_text(), files(project / ".dvc/cache/runs")
    (project / "dvc.lock").unlink()
    shutil.rmtree(project / ".dvc/cache")
    assert commit(str(project), made("one", "two")) == {}
    assert (project / "dvc.lock").read_text() == theirs
    assert files(project / ".dvc/cache/runs") == filed
    assert run(project, "dvc", "status", "say@one", "say@two").stdout.strip() == "Data and pipelines are up to date."


@pytest.mark.parametrize("name", ["params.yaml", "stages/say.py"])
def test_what_was_edited_after_a_cell_was_made_is_not_recorded_as_what_made_it(project, name):
    assert commit(str(project), made("one")) == {}
    locked, filed = (project / "dvc.lock").read_text(), files(project / ".dvc/cache/runs")
    cells = made("one", "two")
    file = project / name
    before = file.read_text()
    file.write_text(before + "\nother: 1\n")
    failed = commit(str(project), cells)
    assert set(failed) == set(cells)
    for problem in failed.values():
        assert isinstance(problem, UserError)
        assert f"{name} was edited while" in str(problem)
    assert (project / "dvc.lock").read_text() == locked
    assert files(project / ".dvc/cache/runs") == filed
    file.write_text(before)  # as it was, though touched
    assert commit(str(project), cells) == {}


def test_a_cell_without_its_output_is_named_and_the_others_are_recorded(project):
    cells = made("one", "two")
    (project / "one.json").unlink()
    failed = commit(str(project), cells)
    assert set(failed) == {"say@one"}
    assert "one.json" in str(failed["say@one"])
    assert "say@two" in (project / "dvc.lock").read_text()
    assert "say@one" not in (project / "dvc.lock").read_text()


def test_an_output_that_was_changed_after_it_was_made_is_not_recorded(project):
    """As by `dvc checkout`, or by a process that was killed while DVC replaced its files by links."""
    cells = made("one", "two")
    (project / "one.json").write_text((project / "two.json").read_text())
    failed = commit(str(project), cells)
    assert {cell: str(problem) for cell, problem in failed.items()} == {
        "say@one": f"{project / 'one.json'} was changed after it was made; no row is lost: run again"
    }
    assert "say@one" not in (project / "dvc.lock").read_text()


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("stages.say ${item}", "stages.say ${item} twice"),
        ("cmd: python", "frozen: true\n      cmd: python"),
        ("two", "2"),
    ],
)
def test_a_cell_of_which_dvc_yaml_says_something_else_meanwhile_is_not_recorded(project, old, new):
    cells = made("two")
    text = (project / "dvc.yaml").read_text()
    assert old in text
    (project / "dvc.yaml").write_text(text.replace(old, new))
    failed = commit(str(project), cells)
    assert "dvc.yaml or params.yaml was edited while say@two was made" in str(failed["say@two"])
    assert not (project / "dvc.lock").exists()


class Unsendable(Exception):
    """Cannot be made from its own `args`, as unpickling does."""

    def __init__(self, one, other):
        super().__init__(f"{one} {other}")


def test_what_fails_in_any_way_fails_alone(project, monkeypatch):
    cells = made("one", "two")
    commits = PipelineStage.commit

    def full(self, *given, **how):
        if self.name == "say@one":
            raise Unsendable("no space", "left on device")
        return commits(self, *given, **how)

    monkeypatch.setattr(PipelineStage, "commit", full)
    failed = commit(str(project), cells)
    assert {cell: str(problem) for cell, problem in failed.items()} == {
        "say@one": "Unsendable: no space left on device"
    }
    assert pickle.loads(pickle.dumps(failed)).keys() == failed.keys(), "it is sent from another process"
    assert "say@two" in (project / "dvc.lock").read_text()


class Process:
    """Stands in for the process that records: the first call lasts until it is released."""

    def __init__(self):
        self.calls, self.release, self.killed = [], Event(), False

    def run(self, function, study, cells):
        self.calls.append(sorted(cells))
        if len(self.calls) == 1:
            self.release.wait()
        if self.killed:
            raise Killed("it was killed")
        return {cell: UserError("no") for cell in cells if cell == "bad"}


def test_cells_that_wait_are_recorded_together(tmp_path):
    process = Process()
    recorder = Recorder(tmp_path, process)
    with ThreadPoolExecutor(8) as threads:
        first = threads.submit(recorder.record, "first", NOTHING)
        while not process.calls:
            time.sleep(0.01)
        rest = {name: threads.submit(recorder.record, name, NOTHING) for name in ("a", "b", "bad")}
        while len(recorder._waiting) < 4:
            time.sleep(0.01)
        process.release.set()
        assert first.result() >= 0
        assert rest["a"].result() >= 0
        assert rest["b"].result() >= 0
        with pytest.raises(UserError, match="no"):
            rest["bad"].result()
    assert process.calls == [["first"], ["a", "b", "bad"]]
    process.killed = True
    with pytest.raises(Killed):
        recorder.record("a", NOTHING)
    process.killed = False
    recorder._waiting["b"] = NOTHING
    assert recorder.record("a", NOTHING) >= 0
    assert process.calls[-1] == ["a"], "what may have killed it is recorded alone"


def test_a_command_that_fails_fails_the_cell_and_is_heard(project, capfd):
    with pytest.raises(UserError, match=r"^bad is no number \(exit status 3\)$"):
        record(str(project), "say@bad")
    assert "error: bad is no number\n" in capfd.readouterr().err  # passed on, too
    with pytest.raises(UserError, match=r"^its command said nothing \(exit status 1\)$"):
        record(str(project), "say@silent")
    record(str(project), "say@one")


@pytest.mark.parametrize("shell", ["/bin/sh", "/bin/bash"])
def test_a_command_that_is_killed_is_told_apart(project, monkeypatch, shell):
    monkeypatch.setenv("SHELL", shell)
    with pytest.raises(Killed, match=r"its command was killed by SIGKILL \(out of memory\?\)"):
        record(str(project), "say@killed")
    record(str(project), "say@one")


@pytest.mark.parametrize(
    ("status", "kind", "message"),
    [
        (-9, Killed, "its command was killed by SIGKILL (out of memory?)"),
        (137, Killed, "its command was killed by SIGKILL (out of memory?)"),  # as a shell puts it
        (128, UserError, "last (exit status 128)"),
        (255, UserError, "last (exit status 255)"),
        (None, UserError, "last"),
    ],
)
def test_an_exit_status_says_whether_a_signal_ended_a_command(status, kind, message):
    from dvc.stage.exceptions import StageCmdFailedError

    found = recording._failure(str(StageCmdFailedError("a command", status)), "first\n error: last \n\n")
    assert type(found) is kind
    assert str(found) == message


def test_stderr_is_passed_on_as_it_is_written_and_its_end_is_kept(capfd):
    last = bytearray()
    with kept_stderr(last):
        os.write(2, b"begun\n")
        for _ in range(200):
            if (heard := capfd.readouterr().err) or time.sleep(0.05):
                break
        assert heard == "begun\n"
        subprocess.run([sys.executable, "-c", f"import os; os.write(2, b'x' * {2 * KEPT} + b'end')"], check=True)
    assert len(last) == KEPT
    assert last.endswith(b"xend")
    assert len(capfd.readouterr().err) == 2 * KEPT + 3


def test_a_process_that_outlives_its_command_holds_nothing_up(monkeypatch):
    monkeypatch.setattr(recording, "PATIENCE", 0.1)
    last = bytearray()
    with kept_stderr(last):
        left = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
        os.write(2, b"said\n")
    assert left.poll() is None
    left.kill()
    left.wait()
    assert last == b"said\n"


WAITS = """\"\"\"Wait.\"\"\"
import time
from pathlib import Path
from atlas.study.command import command
command(lambda folder: [Path("begun").touch(), time.sleep(60)])
"""


@pytest.mark.parametrize("recorded", [True, False])
def test_a_command_ends_with_the_process_that_records_it(tmp_path, recorded):
    """Else a second one would run beside it when the recording begins again; nobody's own `dvc repro` does that."""
    (tmp_path / "waits.py").write_text(WAITS)
    environment = {**os.environ, "PYTHONPATH": str(ROOT), RECORDED: "1" if recorded else ""}
    words = [sys.executable, "waits.py", "--study", ROOT]
    with subprocess.Popen(words, cwd=tmp_path, env=environment, stderr=subprocess.PIPE) as waiting:
        while not (tmp_path / "begun").exists():
            assert waiting.poll() is None
            time.sleep(0.05)
        waiting.stderr.close()
        if recorded:
            assert waiting.wait(timeout=10) == 1
        else:
            with pytest.raises(subprocess.TimeoutExpired):
                waiting.wait(timeout=1)
            waiting.kill()


def test_a_stderr_that_cannot_be_written_keeps_the_commands_last_line(monkeypatch):
    reading, writing = os.pipe()
    os.write(writing, b"the reason\n")
    os.close(writing)
    gone, closed = os.pipe()
    os.close(gone)
    last = bytearray()
    recording._pass_on(reading, closed, last)
    assert bytes(last) == b"the reason\n"
