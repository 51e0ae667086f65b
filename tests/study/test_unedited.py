"""What is edited while a stage runs ends it before its output is put in place; no old code runs under a new text."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from atlas.cache import stores
from atlas.study import params
from atlas.study.errors import UserError

ROOT = Path(__file__).parents[2]


@pytest.fixture
def study(tmp_path):
    (tmp_path / "params.yaml").write_text((ROOT / "params.yaml").read_text())
    params.load(tmp_path)
    return tmp_path


def put(study):
    stores.write(study / "data/out.zarr", {"": {"x": (("x",), np.arange(3))}}, {})


def test_an_output_is_put_in_place_where_nothing_was_edited(study):
    put(study)
    assert (study / "data/out.zarr").is_dir()


@pytest.mark.parametrize(
    ("old", "new"), [("seed: 0", "seed: 1"), ("methods:", "methods: {"), ("  batch: 64", "  batch: 64.0")]
)
def test_params_edited_meanwhile_end_the_stage(study, old, new):
    file = study / "params.yaml"
    file.write_text(file.read_text().replace(old, new, 1))
    with pytest.raises(UserError, match=r"params\.yaml was edited while this was running; no row is lost: run again"):
        put(study)
    assert not (study / "data/out.zarr").exists()


def test_params_that_went_end_the_stage(study):
    (study / "params.yaml").unlink()
    with pytest.raises(UserError, match="was edited while this was running"):
        put(study)


def test_an_edit_that_keeps_size_and_time_is_seen(study):
    file = study / "params.yaml"
    before = os.stat(file)
    file.write_text(file.read_text().replace("seed: 0", "seed: 1", 1))
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert os.stat(file).st_size == before.st_size
    with pytest.raises(UserError, match="was edited while this was running"):
        put(study)


def test_a_comment_in_params_is_no_edit(study):
    file = study / "params.yaml"
    file.write_text("# of today\n" + file.read_text())
    put(study)


def test_params_that_were_read_again_are_those_that_count(study):
    file = study / "params.yaml"
    file.write_text(file.read_text().replace("seed: 0", "seed: 1", 1))
    params.load(study)
    put(study)


def project(folder: Path, text: str) -> Path:
    """A project of the loader, the guard and one module."""
    (folder / "atlas/study").mkdir(parents=True)
    (folder / "stages").mkdir()
    for name in (
        "stages/__init__.py",
        *(f"atlas/{one}.py" for one in ("__init__", "importing", "study/__init__", "study/errors", "study/unedited")),
    ):
        (folder / name).write_text((ROOT / name).read_text())
    (folder / "stages/one.py").write_text(text)
    return folder


def python(folder: Path, code: str) -> str:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    told = {**kept, "PYTHONPATH": str(folder)}
    done = subprocess.run([sys.executable, "-c", code], cwd=folder, env=told, capture_output=True, text=True)
    return (done.stdout or done.stderr).strip().rpartition("\n")[2]


SAY = "from stages import one; print(one.VALUE)"


def test_bytecode_of_a_text_of_the_same_size_and_time_is_not_run(tmp_path):
    here = project(tmp_path, "VALUE = 1\n")
    file = here / "stages/one.py"
    os.utime(file, (1e9, 1e9))
    assert python(here, SAY) == "1"
    assert list((here / "stages/__pycache__").glob("one.*.pyc"))
    file.write_text("VALUE = 2\n")
    os.utime(file, (1e9, 1e9))
    assert python(here, SAY) == "2"


def test_bytecode_that_another_python_left_by_time_is_not_run(tmp_path):
    here = project(tmp_path, "VALUE = 1\n")
    file = here / "stages/one.py"
    os.utime(file, (1e9, 1e9))
    python(here, "import py_compile; py_compile.compile('stages/one.py')")
    file.write_text("VALUE = 2\n")
    os.utime(file, (1e9, 1e9))
    assert python(here, SAY) == "2"


def test_bytecode_is_used_and_damaged_bytecode_is_not(tmp_path):
    here = project(tmp_path, "VALUE = 1\n")
    assert python(here, SAY) == "1"
    (kept,) = (here / "stages/__pycache__").glob("one.*.pyc")
    before = kept.read_bytes()
    assert python(here, SAY) == "1"
    assert kept.read_bytes() == before
    kept.write_bytes(before[:20])
    assert python(here, SAY) == "1"


EDITED = """
from pathlib import Path
from stages import one
from atlas.study import unedited
from atlas.study.errors import UserError
file = Path("stages/one.py")
file.write_text("VALUE = 2\\n")
{reading}
try:
    unedited.check()
except UserError as problem:
    print(problem)
"""


@pytest.mark.parametrize("reading", ["", "unedited.read(file)"])
def test_a_module_edited_after_it_was_imported_is_told(tmp_path, reading):
    here = project(tmp_path, "VALUE = 1\n")
    told = python(here, EDITED.format(reading=reading).replace("\\\\n", "\\n"))
    assert told == "stages/one.py was edited while this was running; no row is lost: run again"


def test_every_file_of_the_code_counts_not_only_modules(tmp_path):
    here = project(tmp_path, "VALUE = 1\n")
    (here / "stages/page.j2").write_text("1")
    code = (
        "from pathlib import Path\nfrom atlas.study import unedited\nunedited.read_sources()\n"
        "Path('stages/page.j2').write_text('2')\nunedited.check()"
    )
    assert "stages/page.j2 was edited while this was running" in python(here, code)
