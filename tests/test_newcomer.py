"""One function and one line of params.yaml are a new method: run, ranked and tested without another edit."""

import re
import shutil
import subprocess
import sys

import pytest
import yaml
from study import ROOT, environment

METHODS = '''

from stages.model.arrays import Attributions


def gradient_squared(classifier: Classifier, images: Images, targets: Targets, *, power: int) -> Attributions:
    """Raise the gradient to a power."""
    return classifier.gradient(images, targets, "logit") ** power


def gradient_shared(classifier: Classifier, images: Images, targets: Targets, *, power: int) -> Attributions:
    """Raise the gradient to a power, and divide it by how many images there are, which is wrong."""
    return classifier.gradient(images, targets, "logit") ** power / len(images)
'''
METRIC = '''

def peak(maps: Maps) -> Scores:
    """Give the share of the map that its strongest pixel has."""
    return torch.stack([one.abs().max() / one.abs().sum() for one in maps])
'''


@pytest.fixture(scope="module")
def judged(tmp_path_factory) -> dict[str, set[str]]:
    """Run the tests of two new methods, one of them wrong, and of a new metric; give what passed and what failed.

    Of the tests of every method and metric those of the new ones, and all that are of none alone.
    """
    house = tmp_path_factory.mktemp("newcomer")
    for name in ("stages", "flows", "tests", "docs"):
        shutil.copytree(ROOT / name, house / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "dvc.yaml", "REFERENCES.bib", "README.md", "Makefile"):
        shutil.copy(ROOT / name, house / name)
    with (house / "stages/methods/gradient.py").open("a") as file:
        file.write(METHODS)
    file = house / "stages/metrics/complexity.py"
    facts = '{"long_name": "Peak", "units": "1", "better": "higher", "reference": "chalasani2020concise"}'
    file.write_text(file.read_text().replace("ATTRS = {", f'ATTRS = {{"peak": {facts},', 1) + METRIC)
    readme = house / "README.md"
    readme.write_text(
        readme.read_text().replace("| `complexity` | `complexity`,", "| `complexity` | `peak`, `complexity`,")
    )
    params = yaml.safe_load((ROOT / "params.yaml").read_text())
    for name in ("gradient_squared", "gradient_shared"):
        params["methods"]["gradient"][name] = {"power": 2, "channels": "sum"}
    params["metrics"]["complexity"]["peak"] = {}
    (house / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False))
    files = [f"tests/test_{name}.py" for name in ("methods", "metrics", "readme", "references")]
    chosen = "gradient_squared or gradient_shared or peak or test_readme or test_references or family or uncounted"
    command = [sys.executable, "-m", "pytest", "-rA", *files, "-k", chosen]
    done = subprocess.run(command, cwd=house, env=environment(house), capture_output=True, text=True, check=False)
    summary = done.stdout.rpartition("short test summary")[2]
    return {
        word: set(re.findall(rf"^{word}\w* (\S+)", summary, re.MULTILINE)) for word in ("PASSED", "FAILED", "ERROR")
    } | {"said": done.stdout[-5000:] + done.stderr[-2000:]}


def of(tests: set[str], *words: str) -> set[str]:
    return {test for test in tests if any(word in test for word in words)}


def test_a_new_method_is_judged(judged):
    assert of(judged["PASSED"], "[gradient_squared]"), judged["said"]
    for file in ("test_readme", "test_references"):
        assert of(judged["PASSED"], file), judged["said"]
    assert not judged["FAILED"] - of(judged["FAILED"], "gradient_shared"), judged["said"]
    assert not judged["ERROR"], judged["said"]


def test_a_new_method_that_depends_on_its_company_fails(judged):
    assert of(judged["FAILED"], "company_and_order[gradient_shared]"), judged["said"]


def test_a_new_metric_is_judged(judged):
    assert of(judged["PASSED"], "[complexity-peak]", "[peak]"), judged["said"]
    assert not of(judged["FAILED"], "peak"), judged["said"]
