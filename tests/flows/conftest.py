"""What several tests of the flow share."""

import os
import sys
from pathlib import Path

import pytest

from tests.support import dvc_project
from tests.support.study import ROOT


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A small project of DVC, whose stages write how they were called."""
    place = dvc_project.write(tmp_path / "project")
    monkeypatch.chdir(place)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    return place
