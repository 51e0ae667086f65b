"""The notebook of the documentation runs, and its page shows what it showed."""

import json
import os
import re
import shutil
import subprocess
import sys

import pytest

from tests.support.study import ROOT

NOTEBOOK = ROOT / "docs/notebook.ipynb"
CELLS = json.loads(NOTEBOOK.read_text())["cells"]


def execute(file, home) -> subprocess.CompletedProcess:
    """Run a notebook as `make notebook` does; its kernel keeps nothing outside of a folder."""
    (command,) = re.findall(
        r"(?m)^notebook: setup\n\t\$\(UV\) run --no-sync python (.*)$", (ROOT / "Makefile").read_text()
    )
    known = {**os.environ, "HOME": str(home), "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"}
    return subprocess.run(
        [sys.executable, str(ROOT / command), str(file)],
        env=known,
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )


def kinds(cells: list[dict]) -> list[list[str]]:
    """What each cell shows: tables, pictures, texts."""
    return [sorted({kind for one in cell.get("outputs", []) for kind in one.get("data", one)}) for cell in cells]


def test_it_runs_again_and_shows_the_same_kinds_of_things(tmp_path):
    again = tmp_path / "notebook.ipynb"
    shutil.copy(NOTEBOOK, again)
    done = execute(again, tmp_path)
    assert done.returncode == 0, done.stderr
    cells = json.loads(again.read_text())["cells"]
    assert [cell["source"] for cell in cells] == [cell["source"] for cell in CELLS]
    assert kinds(cells) == kinds(CELLS)


def test_an_exception_in_a_cell_fails(tmp_path):
    broken = json.loads(NOTEBOOK.read_text())
    broken["cells"] = [{**CELLS[2], "source": ["1 / 0"], "outputs": []}]
    (tmp_path / "notebook.ipynb").write_text(json.dumps(broken))
    done = execute(tmp_path / "notebook.ipynb", tmp_path)
    assert done.returncode != 0
    assert "ZeroDivisionError" in done.stderr


def test_it_was_run_from_the_first_cell_to_the_last():
    code = [cell for cell in CELLS if cell["cell_type"] == "code"]
    assert [cell["execution_count"] for cell in code] == [*range(1, len(code) + 1)]
    streams = [
        one for cell in code for one in cell["outputs"] if one["output_type"] not in ("execute_result", "display_data")
    ]
    assert streams == []


@pytest.mark.parametrize("shows", ["image/png", "text/html"])
def test_it_shows_pictures_and_tables(shows):
    assert sum(shows in kind for kind in kinds(CELLS)) >= 2
