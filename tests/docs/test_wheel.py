"""The wheel outside of the repository, beside a project that has packages called `flows` and `stages` too."""

import os
import shutil
import subprocess
import sys
import zipfile

import pytest

from tests.support.study import ROOT

UV = os.environ.get("UV") or shutil.which("uv") or str(ROOT / ".uv" / "bin" / "uv")
EXPLAIN = """
import sys
sys.modules.update(dict.fromkeys(("dvc", "dvc_data", "dvc_objects", "prefect")))  # importing one fails
import torch
import atlas
from atlas.report.certification.published import CAVEATS, FILE
from atlas.report.template import environment

network = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.ReLU(), torch.nn.Flatten(), torch.nn.Linear(400, 5))
maps = atlas.explain(network.eval(), torch.rand(2, 3, 12, 12), [0, 1], "integrated_gradients", batch=16)
assert maps.shape == (2, 12, 12)
assert atlas.score(None, None, None, maps, "complexity").shape == (2,)
environment().get_template("report.html.j2")
assert FILE.is_file() and CAVEATS.is_file()
print(atlas.__file__)
"""


def run(place, *command: str, path=None) -> str:
    known = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}
    known |= {"PYTHONPATH": str(path)} if path else {}
    done = subprocess.run(command, cwd=place, env=known, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout.strip()


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """The wheel, built of what git knows."""
    source, out = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    for name in (
        "atlas",
        "flows",
        "stages",
        "pyproject.toml",
        "hatch_build.py",
        "params.yaml",
        "README.md",
        "LICENSE",
        ".gitignore",
    ):
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(ROOT / name, source / name)
    run(source, UV, "build", "--quiet", "--wheel", "--python", sys.executable, "--out-dir", str(out))
    (found,) = out.glob("*.whl")
    return found


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory):
    """A folder of packages with the wheel in it; what it requires is this environment's."""
    target = tmp_path_factory.mktemp("installed")
    options = ("--quiet", "--no-deps", "--offline", "--python", sys.executable, "--target", str(target))
    run(target, UV, "pip", "install", *options, str(wheel))
    return target


@pytest.fixture
def project(tmp_path):
    """A project with packages of the same names."""
    for name in ("flows", "stages"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text("OWNER = 'the user'\n")
        (tmp_path / name / "train.py").write_text(f"print('{name}.train of the user')\n")
    return tmp_path


def test_it_holds_all_that_the_packages_do(wheel):
    names = set(zipfile.ZipFile(wheel).namelist())
    folders = [ROOT / name for name in ("atlas", "flows", "stages")]
    files = {file for folder in folders for file in folder.rglob("*") if "__pycache__" not in file.parts}
    due = {file.relative_to(ROOT).as_posix() for file in files if file.is_file()} | {"atlas/params.yaml"}
    assert {name for name in names if ".dist-info/" not in name} == due
    assert {"atlas/py.typed", "atlas/__init__.pyi", "atlas/report/templates/report.css"} <= due


def test_it_explains_and_reads_its_files_elsewhere(installed, project):
    (project / "explain.py").write_text(EXPLAIN)
    assert run(project, sys.executable, "explain.py", path=installed) == str(installed / "atlas" / "__init__.py")


def test_a_project_s_own_packages_are_imported_there(installed, project):
    told = "import flows, stages, atlas, stages.train; print(flows.OWNER, stages.OWNER, atlas.__file__)"
    for script in (told, told.replace("flows, stages, atlas,", "atlas, flows, stages,")):
        (project / "script.py").write_text(script)
        said = run(project, sys.executable, "script.py", path=installed)
        assert said == f"stages.train of the user\nthe user the user {installed / 'atlas' / '__init__.py'}"
    assert run(project, sys.executable, "-m", "stages.train", path=installed) == "stages.train of the user"


def test_the_command_has_its_own_packages_there(installed, project):
    said = run(project, sys.executable, str(installed / "bin" / "atlas"), "--help", path=installed)
    assert "reproduce" in said
    assert "Bring every result up to date" in said
