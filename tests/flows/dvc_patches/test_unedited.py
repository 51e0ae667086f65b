"""Settings that are edited after a cell's command has last read them are not recorded as those of its output."""

import pytest
from dvc.stage import run as running

from atlas.study.errors import UserError
from flows.recording import record
from tests.support.dvc_project import PARAMS
from tests.support.study import files


@pytest.mark.parametrize("text", [PARAMS.replace("1e-5", "1e-6"), "", "{", None])
def test_settings_edited_between_an_output_and_its_record_are_not_recorded(project, monkeypatch, text):
    """DVC reads them after the command has ended, which has looked at them for the last time."""
    record(str(project), "say@one")
    locked, filed = (project / "dvc.lock").read_text(), files(project / ".dvc/cache/runs")
    params = project / "params.yaml"
    edit = params.unlink if text is None else lambda: params.write_text(text)
    called = running._run
    monkeypatch.setattr(running, "_run", lambda *given, **how: (called(*given, **how), edit()))
    with pytest.raises(UserError) as told:
        record(str(project), "say@two")
    assert (project / "two.json").is_file()
    assert (project / "dvc.lock").read_text() == locked
    assert files(project / ".dvc/cache/runs") == filed
    assert len(str(told.value).splitlines()) == 1
    if text == PARAMS.replace("1e-5", "1e-6"):
        assert str(told.value) == "params.yaml was edited while say@two was recorded; no row is lost: run again"
    monkeypatch.setattr(running, "_run", called)
    params.write_text(PARAMS)
    record(str(project), "say@two")
    assert "say@two" in (project / "dvc.lock").read_text()


def test_a_comment_in_settings_is_no_edit_of_them(project, monkeypatch):
    called, params = running._run, project / "params.yaml"
    edit = lambda: params.write_text(f"# later\n{PARAMS}")  # noqa: E731
    monkeypatch.setattr(running, "_run", lambda *given, **how: (called(*given, **how), edit()))
    record(str(project), "say@one")
    assert "say@one" in (project / "dvc.lock").read_text()
