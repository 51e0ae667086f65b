"""Every reference that a method or metric gives is in REFERENCES.bib, and every name in params.yaml has its facts."""

import ast
import re
from pathlib import Path

from atlas.study.params import entries, load
from atlas.study.schema.signatures import attributes

ROOT = Path(__file__).parents[2]


def known() -> set[str]:
    return set(re.findall(r"@\w+\{(\w+),", (ROOT / "REFERENCES.bib").read_text()))


def test_no_reference_is_given_twice():
    keys = re.findall(r"@\w+\{(\w+),", (ROOT / "REFERENCES.bib").read_text())
    assert len(keys) == len(set(keys))


def test_every_reference_is_known():
    for kind in ("methods", "metrics"):
        for file in (ROOT / "atlas" / kind).glob("[a-z]*.py"):
            for node in ast.walk(ast.parse(file.read_text())):
                if isinstance(node, ast.FunctionDef) and not node.name.startswith("_"):
                    for reference in attributes(kind, file.stem, node.name)["reference"].split():
                        assert reference.strip(",") in known(), f"{file.name}: {node.name}: {reference}"


def test_every_metric_says_its_direction_and_every_entry_its_name():
    params = load(ROOT)
    for kind in ("methods", "metrics"):
        for family, listed in entries(params, kind).items():
            for entry in listed.values():
                facts = attributes(kind, family, entry.function)
                assert facts["long_name"], entry.name
                assert facts["units"], entry.name
                assert kind == "methods" or facts["better"] in ("higher", "lower"), entry.name
