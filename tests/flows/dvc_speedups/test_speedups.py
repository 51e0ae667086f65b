"""What saves time changes nothing, and is off on request and for a version of DVC that it does not know."""

import shutil
from importlib.metadata import version
from pathlib import Path

import pytest
from dvc.dvcfile import Lockfile

from flows import dvc_speedups, reproduce
from flows.plan import Plan
from flows.recording import record
from tests.support.dvc_project import PARAMS
from tests.support.study import files

OWN = Lockfile._load_yaml, Lockfile.dump_stages


def replaced() -> bool:
    """Whether DVC's own functions are replaced inside the `with` block, and not after it."""
    with dvc_speedups.speedups(Path()):
        found = Lockfile._load_yaml, Lockfile.dump_stages
    assert (Lockfile._load_yaml, Lockfile.dump_stages) == OWN
    return found != OWN


def test_the_installed_version_is_known():
    assert version("dvc") in dvc_speedups.KNOWN
    assert replaced()
    assert dvc_speedups.unknown_version() is None


def test_they_are_off_by_a_variable_of_the_environment(monkeypatch):
    monkeypatch.setenv("ATLAS_DVC_SPEEDUPS", "0")
    assert not replaced()
    monkeypatch.setattr(dvc_speedups, "KNOWN", ())
    assert dvc_speedups.unknown_version() is None  # as asked for: nothing to say


def test_they_are_off_for_a_version_that_is_not_known(monkeypatch):
    monkeypatch.setattr(dvc_speedups, "KNOWN", ("1.0.0", "2.0.0"))
    assert not replaced()


@pytest.mark.parametrize(("known", "lines"), [(("1.0.0", "2.0.0"), 1), (dvc_speedups.KNOWN, 0)])
def test_a_run_says_once_that_they_are_off(monkeypatch, tmp_path, capsys, known, lines):
    monkeypatch.setattr(dvc_speedups, "KNOWN", known)
    monkeypatch.setattr(reproduce, "clean", lambda study: [])
    monkeypatch.setattr(reproduce, "plan", lambda study: Plan({}, {}))
    assert reproduce.reproduce.fn(str(tmp_path), 1) == []
    line = f"DVC {version('dvc')} is used without the speedups of flows/dvc_speedups, which know {', '.join(known)}\n"
    assert capsys.readouterr().err == line * lines


@pytest.mark.parametrize("off", ["variable", "version"])
def test_off_or_not_dvc_records_the_same(project, monkeypatch, off):
    def made() -> tuple:
        (project / "params.yaml").write_text(PARAMS)
        for cell in ("say@one", "say@two", "copy"):
            record(str(project), cell)
        (project / "params.yaml").write_text(PARAMS.replace("1e-5", "2e-5"))
        record(str(project), "say@one")
        found = (project / "dvc.lock").read_text(), files(project / ".dvc" / "cache")
        (project / "dvc.lock").unlink()
        shutil.rmtree(project / ".dvc" / "cache")
        return found

    sped_up = made()
    assert "&id002" in sped_up[0]
    if off == "variable":
        monkeypatch.setenv("ATLAS_DVC_SPEEDUPS", "0")
    else:
        monkeypatch.setattr(dvc_speedups, "KNOWN", ("1.0.0",))
    assert made() == sped_up
