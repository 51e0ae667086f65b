"""One function and one line of params.yaml are a new method: run, ranked and tested without another edit."""

import shutil
import subprocess
import sys

import pytest
import yaml
from study import ROOT, environment

METHOD = '''

from stages.model.arrays import Attributions


def gradient_squared(classifier: Classifier, images: Images, targets: Targets, *, power: int) -> Attributions:
    """Raise the gradient to a power."""
    return classifier.gradient(images, targets, "logit") ** power
'''
METRIC = '''

def peak(maps: Maps) -> Scores:
    """Give the share of the map that its strongest pixel has."""
    return torch.stack([one.abs().max() / one.abs().sum() for one in maps])
'''


@pytest.fixture
def house(tmp_path):
    for name in ("stages", "flows", "tests", "docs"):
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
    with (house / "stages/methods/gradient.py").open("a") as file:
        file.write(METHOD)
    add(house, "methods", "gradient", "gradient_squared", {"power": 2, "channels": "sum"})
    # Of the tests of every method those of the new one, and all that are of no method alone.
    files = [f"tests/{name}.py" for name in ("test_methods", "test_readme", "test_references")]
    said = judged(house, *files, "-k", "gradient_squared or test_readme or test_references or family or uncounted")
    assert " passed" in said, said
    assert "failed" not in said, said


def test_a_new_method_that_depends_on_its_company_fails(house):
    with (house / "stages/methods/gradient.py").open("a") as file:
        file.write(METHOD.replace("** power", "** power / len(images)"))
    add(house, "methods", "gradient", "gradient_squared", {"power": 2, "channels": "sum"})
    said = judged(house, "tests/test_methods.py", "-k", "gradient_squared")
    assert "gradient_squared" in said.partition("short test summary")[2]


def test_a_new_metric_is_judged(house):
    file = house / "stages/metrics/complexity.py"
    facts = '{"long_name": "Peak", "units": "1", "better": "higher", "reference": "chalasani2020concise"}'
    file.write_text(file.read_text().replace("ATTRS = {", f'ATTRS = {{"peak": {facts},', 1) + METRIC)
    add(house, "metrics", "complexity", "peak", {})
    said = judged(house, "tests/test_metrics.py", "tests/test_references.py", "-k", "peak or test_references")
    assert " passed" in said, said
    assert "failed" not in said, said
