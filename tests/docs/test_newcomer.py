"""One function and one line of params.yaml are a new method: run, ranked and tested without another edit."""

import re
import shutil
import subprocess
import sys

import pytest
import yaml

from tests.support.study import ROOT, environment


def shown(page: str, language: str, opening: str) -> str:
    """The block of a page that begins so."""
    blocks = re.findall(rf"```{language}\n(.*?)```", (ROOT / page).read_text(), re.DOTALL)
    (found,) = [block for block in blocks if block.startswith(opening)]
    return "\n\n" + found


METHOD = shown("README.md", "python", "from atlas.model.arrays")
METRIC = shown("docs/add-a-metric.md", "python", "def peak")
FACTS = shown("docs/add-a-metric.md", "python", "ATTRS = {").strip().removeprefix("ATTRS = {").removesuffix("}")


def test_the_page_on_methods_shows_the_method_of_the_readme():
    assert shown("docs/add-a-method.md", "python", "from atlas.model.arrays") == METHOD


@pytest.fixture
def house(tmp_path):
    for name in ("atlas", "stages", "flows", "tests", "docs"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "dvc.yaml", "REFERENCES.bib", "README.md", "Makefile"):
        shutil.copy(ROOT / name, tmp_path / name)
    return tmp_path


def judged(house, *tests: str) -> str:
    """Run whole files of tests, as a newcomer would, and give what they said."""
    command = [sys.executable, "-m", "pytest", "-rf", *tests]
    done = subprocess.run(command, cwd=house, env=environment(house), capture_output=True, text=True, check=False)
    return done.stdout


def add(house, kind: str, family: str, name: str, entry: dict) -> None:
    params = yaml.safe_load((ROOT / "params.yaml").read_text())
    params[kind][family][name] = entry
    (house / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False))


def test_a_new_method_is_judged(house):
    with (house / "atlas/methods/gradient.py").open("a") as file:
        file.write(METHOD)
    add(house, "methods", "gradient", "gradient_squared", {"power": 2, "channels": "sum"})
    # Of the tests of every method those of the new one, and all that are of no method alone.
    names = ("methods/test_every_method", "docs/test_readme", "docs/test_references")
    files = [f"tests/{name}.py" for name in names]
    said = judged(house, *files, "-k", "gradient_squared or test_readme or test_references or family or uncounted")
    assert " passed" in said, said
    assert "failed" not in said, said


def test_a_new_method_that_depends_on_its_batch_fails(house):
    with (house / "atlas/methods/gradient.py").open("a") as file:
        file.write(METHOD.replace("** power", "** power / len(images)"))
    add(house, "methods", "gradient", "gradient_squared", {"power": 2, "channels": "sum"})
    said = judged(house, "tests/methods/test_every_method.py", "-k", "gradient_squared")
    assert "gradient_squared" in said.partition("short test summary")[2]


def test_a_new_metric_is_judged(house):
    file = house / "atlas/metrics/complexity.py"
    file.write_text(file.read_text().replace("ATTRS = {", f"ATTRS = {{{FACTS},", 1) + METRIC)
    add(house, "metrics", "complexity", "peak", {})
    said = judged(
        house, "tests/metrics/test_every_metric.py", "tests/docs/test_references.py", "-k", "peak or test_references"
    )
    assert " passed" in said, said
    assert "failed" not in said, said
