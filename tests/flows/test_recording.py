"""A cell is recorded as DVC records it; what failed is told by its command's last line."""

import os
import shutil
import subprocess
import sys
import time

import pytest

from atlas.study.command import RECORDED
from atlas.study.errors import UserError
from flows import recording
from flows.recording import KEPT, kept_stderr, record
from flows.workers import Killed
from tests.support.saying import PARAMS
from tests.support.study import ROOT, files, run


def test_cells_are_recorded_as_dvc_records_them(project):
    def by_dvc(*cells: str) -> str:
        run(project, "dvc", "repro", "-q", "-s", *cells)
        return (project / "dvc.lock").read_text()

    def by_record(*cells: str) -> str:
        for cell in cells:
            record(str(project), cell)
        return (project / "dvc.lock").read_text()

    made = {}
    for way in (by_dvc, by_record):
        (project / "params.yaml").write_text(PARAMS)
        first = way("say@one", "say@two", "copy")
        (project / "params.yaml").write_text(PARAMS.replace("1e-5", "2e-5"))
        made[way] = first, way("say@one"), files(project / ".dvc" / "cache" / "runs")
        (project / "dvc.lock").unlink()
        shutil.rmtree(project / ".dvc" / "cache")
    theirs, ours = made.values()
    assert ours == theirs
    assert theirs[0] != theirs[1]
    assert theirs[0].count("outs:") == 3
    assert len(theirs[2]) == 4  # each run is filed


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
