"""The study of one classifier whose cells tests run: a copy for each test, and what its log says last."""

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from atlas.cache.rows import RowStore
from stages import attribute, select, tile

C = "resnet_vanilla"


@pytest.fixture
def study(collected, tmp_path):
    return shutil.copytree(collected, tmp_path / "study")


@pytest.fixture
def mapped(study):
    """A study with the maps of the controls."""
    select.main(study, C)
    tile.main(study, C)
    attribute.main(study, C, "control")
    return study


@contextmanager
def unfinished() -> Iterator[None]:
    """Leave the rows in the journal, as if the process had died before it assembled the output."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(RowStore, "finish", lambda *given: None)
        yield


def last_line(study) -> dict:
    return json.loads((study / ".atlas/log.jsonl").read_text().splitlines()[-1])
