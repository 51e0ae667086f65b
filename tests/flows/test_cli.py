"""The command line tells what failed."""

from typer.testing import CliRunner

from flows import cli
from flows.plan import Plan


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
