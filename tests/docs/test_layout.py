"""Tests lie as the code does, and no suite hangs on another: what several share is in tests/support."""

import ast
from collections.abc import Iterator
from pathlib import Path

TESTS = Path(__file__).parents[1]
SUITES = {file.relative_to(TESTS).as_posix(): file for file in sorted(TESTS.rglob("test_*.py"))}
SUPPORT = sorted((TESTS / "support").rglob("*.py"))


def imported(file: Path) -> Iterator[str]:
    """Yield what of the tests a file imports, at its top and inside functions."""
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            names = [one.name for one in node.names]
        elif isinstance(node, ast.ImportFrom):
            whole = "." * node.level + (node.module or "")
            names = [f"{whole}.{one.name}" for one in node.names]
        else:
            continue
        yield from (name for name in names if name.startswith((".", "tests.", "test_", "conftest")) or name == "tests")


def test_a_suite_imports_no_other_and_what_they_share_imports_none():
    for file in [*SUITES.values(), TESTS / "conftest.py", *SUPPORT]:
        assert [name for name in imported(file) if not name.startswith("tests.support.")] == [], file


def test_an_import_of_a_suite_is_seen(tmp_path):
    lines = [
        "import tests.study.test_params",
        "from tests.study import test_params",
        "from tests.study.test_params import STUDY",
        "from test_params import STUDY",
        "from .test_params import STUDY",
        "from tests import conftest",
    ]
    (tmp_path / "one.py").write_text("\n".join(["import re", "from tests.support import made_up", *lines]))
    assert len([name for name in imported(tmp_path / "one.py") if not name.startswith("tests.support.")]) == len(lines)


def test_folders_are_those_of_the_code():
    folders = {Path(suite).parts[0] for suite in SUITES}
    there = {folder.name for place in (TESTS.parent, TESTS.parent / "atlas") for folder in place.iterdir()}
    assert folders <= there
    assert {folder.name for folder in TESTS.iterdir() if (folder / "__init__.py").is_file()} == {*folders, "support"}
