"""What several tests share: a tiny study that DVC has run once."""

from pathlib import Path

import pytest
from study import build, repro, tiny


@pytest.fixture(scope="session")
def baseline(tmp_path_factory) -> Path:
    """A tiny study that `dvc repro` has brought up to date, but for the report. Copy it; change only the copy."""
    house = build(tmp_path_factory.mktemp("baseline") / "house", tiny())
    repro(house, "aggregate")
    return house
