"""A key holds all that a row's value depends on and nothing else: each case edits a small house of its own."""

import textwrap

import pytest

from stages.cache import keys
from stages.study import params, signatures
from stages.study.problem import Problem

METHOD = '''
"""A family."""
import numpy as np
from stages.methods._helper import double
from stages.kernel import Classifier

FACTOR = 2
OTHER = 3
ATTRS = {"first": {"long_name": "First"}}


def first(classifier: Classifier, images, *, steps: int):
    """Explain."""
    return _inner(images) * FACTOR


def _inner(images):
    # a comment
    return double(np.abs(images))


def second(images):
    return images * OTHER
'''
HELPER = """
def double(x):
    return 2 * x


def triple(x):
    return 3 * x
"""
KERNEL = """
class Base:
    def run(self):
        return 1


class Classifier(Base):
    def go(self):
        return self.run()
"""


@pytest.fixture
def house(tmp_path, monkeypatch):
    """A project of three modules; calling it edits one and gives the digest of `first`."""
    stages = tmp_path / "stages"
    (stages / "methods").mkdir(parents=True)
    files = {"methods/family.py": METHOD, "methods/_helper.py": HELPER, "kernel.py": KERNEL}
    for name, text in files.items():
        (stages / name).write_text(text)
    for package in (stages, stages / "methods"):
        (package / "__init__.py").write_text("")
    monkeypatch.setattr(signatures, "HOUSE", stages)
    monkeypatch.setattr(keys, "HOUSE", stages)

    def edited(name: str | None = None, old: str = "", new: str = "") -> bytes:
        if name:
            text = (stages / name).read_text()
            assert old in text
            (stages / name).write_text(text.replace(old, new))
        keys.read.cache_clear()
        keys._definition.cache_clear()
        return keys.code(("stages.methods.family", "first"))

    yield edited
    keys.read.cache_clear()
    keys._definition.cache_clear()


@pytest.mark.parametrize(
    ("name", "old", "new"),
    [
        ("methods/family.py", "# a comment", "# another comment"),
        ("methods/family.py", '"""Explain."""', '"""Explain better."""'),
        ("methods/family.py", '"""A family."""', '"""The family."""'),
        ("methods/family.py", "return images * OTHER", "return images - OTHER"),
        ("methods/family.py", "OTHER = 3", "OTHER = 4"),
        ("methods/family.py", '"First"', '"The first"'),
        ("methods/family.py", "* FACTOR", "  *  FACTOR"),
        ("methods/_helper.py", "return 3 * x", "return 4 * x"),
    ],
)
def test_what_a_function_does_not_run_leaves_its_digest(house, name, old, new):
    before = house()
    assert house(name, old, new) == before


@pytest.mark.parametrize(
    ("name", "old", "new"),
    [
        ("methods/family.py", "* FACTOR", "/ FACTOR"),
        ("methods/family.py", "FACTOR = 2", "FACTOR = 5"),
        ("methods/family.py", "np.abs", "np.sign"),
        ("methods/family.py", "def first(", "@cache\ndef first("),
        ("methods/family.py", "steps: int", "steps: float"),
        ("methods/family.py", "import numpy as np", "import numpy as np\nnp.seterr(all='raise')"),
        ("methods/_helper.py", "return 2 * x", "return x + x"),
        ("kernel.py", "return self.run()", "return -self.run()"),
        ("kernel.py", "return 1", "return 2"),
    ],
)
def test_whatever_a_function_reaches_changes_its_digest(house, name, old, new):
    before = house()
    assert house(name, old, new) != before


def test_imports_inside_a_function_are_followed(house):
    house(
        "methods/family.py",
        "return _inner(images) * FACTOR",
        "from stages.methods._helper import triple\n    return triple(images)",
    )
    before = house()
    assert house("methods/_helper.py", "return 3 * x", "return 4 * x") != before


def test_a_module_used_by_attribute_is_followed(house):
    house("methods/family.py", "from stages.methods._helper import double", "from stages.methods import _helper")
    house("methods/family.py", "double(np.abs(images))", "_helper.double(np.abs(images))")
    before = house()
    assert house("methods/_helper.py", "return 3 * x", "return 4 * x") == before
    assert house("methods/_helper.py", "return 2 * x", "return x + x") != before


def test_a_new_version_of_a_package_changes_the_digest(house, monkeypatch):
    before = house()
    real = keys.version
    monkeypatch.setattr(keys, "version", lambda name: "99" if name == "numpy" else real(name))
    assert house() != before


def test_what_cannot_be_followed_is_an_error(house):
    with pytest.raises(ValueError, match=r"imports \* from stages\.methods\._helper"):
        house("methods/family.py", "from stages.methods._helper import double", "from stages.methods._helper import *")


def test_a_name_that_is_nowhere_is_an_error(house):
    with pytest.raises(ValueError, match=r"stages\.methods\._helper does not define 'double'"):
        house("methods/_helper.py", "def double", "def renamed")


def test_parts_of_a_digest_do_not_run_into_each_other():
    assert keys.digest("ab", "c") != keys.digest("a", "bc")
    assert keys.digest(b"ab", b"") != keys.digest(b"a", b"b")
    assert keys.digest({"a": 1, "b": 2}) == keys.digest({"b": 2, "a": 1})


def test_numbers_that_differ_in_the_last_digit_differ():
    assert keys.digest({"sigma": 0.1}) != keys.digest({"sigma": 0.1 + 1e-16})


def test_options_that_choose_rows_are_not_in_an_entrys_digest():
    def bound(**options):
        given = {"pixels": 4, "baseline": "blur", "relative": False, **options}
        return params.entry("metrics", "faithfulness", "insertion", given, "here")

    study = {"engine": {"batch": 1}, "stores": {"dtype": "float32"}}
    plain = keys.entry(bound(), study)
    assert keys.entry(bound(count=3, exclude=["rise"]), study) == plain
    assert keys.entry(bound(count=3)._replace(name="renamed"), study) == plain
    assert keys.entry(bound()._replace(settings={"pixels": 5}), study) != plain
    for changed in ({"engine": {"batch": 2}}, {"stores": {"dtype": "float16"}}):
        assert keys.entry(bound(), {**study, **changed}) != plain


def test_docstrings_of_fields_are_no_code():
    with_text = keys._bare(keys.ast.parse('class A:\n    x: int\n    """Of what."""\n    y: int'))
    without = keys._bare(keys.ast.parse("class A:\n    x: int\n    y: int"))
    assert keys.ast.dump(with_text) == keys.ast.dump(without)


def test_docstrings_of_methods_and_classes_are_no_code():
    with_text = keys._bare(
        keys.ast.parse(
            textwrap.dedent('class A:\n    """Text."""\n    def f(self):\n        """Text."""\n        return 1')
        )
    )
    without = keys._bare(keys.ast.parse("class A:\n    def f(self):\n        return 1"))
    assert keys.ast.dump(with_text) == keys.ast.dump(without)


def test_a_file_edited_after_the_process_began_is_told(house, tmp_path, monkeypatch):
    file = tmp_path / "stages/methods/_helper.py"
    monkeypatch.setitem(keys.BEGAN, file, (file.stat().st_mtime_ns, file.stat().st_size))
    house()
    with pytest.raises(Problem, match=r"stages/methods/_helper\.py was edited while this was running"):
        house("methods/_helper.py", "return 2 * x", "return x + x  # longer")


def test_a_name_bound_twice_is_followed_both_ways(house):
    before = house("methods/family.py", "FACTOR = 2", "double = np.vectorize(double)\nFACTOR = 2")
    assert house("methods/_helper.py", "return 2 * x", "return x + x") != before


def test_an_import_inside_a_function_is_followed_past_a_name_of_the_module(house):
    text = "    from stages.methods._helper import triple\n    return triple(double(np.abs(images)))\n\n\ntriple = 1"
    before = house("methods/family.py", "    return double(np.abs(images))", text)
    assert house("methods/_helper.py", "return 3 * x", "return 4 * x") != before


def test_a_local_name_is_not_the_import_of_that_name(house):
    before = house("methods/family.py", "return double(np.abs(images))", "return [double + 1 for double in images]")
    assert house("methods/_helper.py", "return 2 * x", "return x + x") == before


@pytest.mark.parametrize("call", ["eval('images')", "__import__('os')", "find('methods', 'family', 'second')"])
def test_code_that_is_looked_up_by_name_is_refused(house, call):
    with pytest.raises(ValueError, match="looked up by name while it runs cannot be told"):
        house("methods/family.py", "return double(np.abs(images))", f"return {call}")


def test_no_method_or_metric_depends_on_how_stores_are_written():
    given = params.load(signatures.HOUSE.parent)
    for kind in ("methods", "metrics"):
        for listed in params.entries(given, kind).values():
            for entry in listed.values():
                reached, packages = keys.closure(((f"stages.{kind}.{entry.family}", entry.function),))
                assert "zarr" not in packages, entry.name
                assert not {module for module, _ in reached} & {
                    "stages.cache.stores",
                    "stages.cache.tables",
                    "stages.cache.rows",
                }
