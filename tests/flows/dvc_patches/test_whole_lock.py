"""Whenever its writer is killed, dvc.lock is the old one or the new one."""

from pathlib import Path

import pytest

from flows.recording import record


@pytest.mark.parametrize("speedups", ["0", "1"])
@pytest.mark.parametrize("comment", ["", "# mine\n"])
def test_a_lock_is_whole_whenever_its_writer_is_killed(project, monkeypatch, comment, speedups):
    """DVC itself empties the file first."""
    monkeypatch.setenv("ATLAS_DVC_SPEEDUPS", speedups)
    record(str(project), "say@one")
    file = project / "dvc.lock"
    file.write_text(comment + file.read_text())
    before, seen, replace = file.read_text(), [], Path.replace

    def replacing(self, to):
        if Path(to).name == file.name:
            seen.append(file.read_text())
        return replace(self, to)

    monkeypatch.setattr(Path, "replace", replacing)
    record(str(project), "say@two")
    assert seen == [before]
    assert file.read_text().startswith(before)
    assert "say@two" in file.read_text()
    assert not [*project.glob("dvc.lock.*")]


@pytest.mark.parametrize("speedups", ["0", "1"])
def test_what_a_killed_process_left_of_a_lock_is_not_read(project, monkeypatch, speedups):
    """Neither where there is no lock yet, nor where there is one."""
    monkeypatch.setenv("ATLAS_DVC_SPEEDUPS", speedups)
    for cell in ("say@one", "say@two"):
        (project / "dvc.lock.partial").write_text("schema: '2.0'\nstages:\n  say@thr")
        record(str(project), cell)
        assert cell in (project / "dvc.lock").read_text()
        assert "say@thr" not in (project / "dvc.lock").read_text()
