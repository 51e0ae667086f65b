"""Every command of docs/trials.md runs a test that there is."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TRIALS = (ROOT / "docs/trials.md").read_text()
COMMANDS = sorted(set(re.findall(r"`(tests/[\w/]+\.py)(?: -k (\"[^\"]+\"|\w+))?`", TRIALS)))


@pytest.mark.parametrize(("name", "keywords"), COMMANDS)
def test_a_trial_names_tests_that_there_are(name, keywords):
    tree = ast.parse((ROOT / name).read_text())
    known = [node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef) and "test_" in node.name]
    for keyword in keywords.strip('"').split(" or "):
        assert any(keyword in one for one in known), f"{name} has no test of '{keyword}'"


def test_a_trial_names_scripts_that_there_are():
    scripts = re.findall(r"`uv run python (\S+)`", TRIALS)
    assert scripts
    assert all((ROOT / script).is_file() for script in scripts)
