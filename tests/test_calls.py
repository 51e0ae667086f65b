"""What methods and metrics must not do is an error that names them, and spoils nothing else."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import forms
import pytest
from study import ROOT, environment

HERE = Path(__file__).parent


@pytest.fixture(scope="module")
def told(tmp_path_factory):
    """What is told of every form, each called once in one process, on a copy of the project."""
    house = tmp_path_factory.mktemp("forms") / "house"
    shutil.copytree(ROOT / "stages", house / "stages", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("forms.py", "judging_forms.py"):
        shutil.copy(HERE / name, house)
    forms.write(house)
    known = {**environment(house), "SCALE": "2"}
    for script in ("prepare.py", "forms.py"):
        done = subprocess.run(
            [sys.executable, script], cwd=house, env=known, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr[-3000:]
    return json.loads((house / "told.json").read_text())


@pytest.mark.parametrize("form", forms.FAULTS)
def test_what_a_function_must_not_do_is_told(told, form):
    due = forms.FAULTS[form][1]
    if due is not None:
        assert told[form].startswith(f"Fault: form: stages/metrics/{form}.py: form ")
        assert due in told[form]
        assert "\n" not in told[form]
    assert "AFTERWARDS" not in told[form]


@pytest.mark.parametrize("form", forms.SOUND)
def test_what_only_looks_like_it_is_not(told, form):
    assert told[form] == ""


@pytest.mark.parametrize("form", forms.RESULTS)
def test_what_it_gives_is_checked(told, form):
    assert told[form].startswith(forms.RESULTS[form][1])
    assert told[form] == "" or forms.RESULTS[form][1]


def test_a_module_that_no_key_holds_is_not_found_by_its_name(told):
    assert told["sys_modules"].startswith("KeyError: 'stages.metrics.grid'")
