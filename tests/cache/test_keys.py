"""A key holds all that a row's value depends on and nothing else: each case edits a small house of its own."""

import ast
import json
import sys

import pytest

from atlas.cache import keys
from atlas.cache.fingerprint import packages, source, syntax
from atlas.inputs import calls
from atlas.study import params, unedited
from atlas.study.errors import UserError
from atlas.study.schema import signatures
from atlas.study.study import Study
from tests.support.house import HELPER, forget, house

__all__ = ["house"]


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
        "from atlas.methods._helper import triple\n    return triple(images)",
    )
    before = house()
    assert house("methods/_helper.py", "return 3 * x", "return 4 * x") != before


def test_a_module_used_by_attribute_is_followed(house):
    house("methods/family.py", "from atlas.methods._helper import double", "from atlas.methods import _helper")
    house("methods/family.py", "double(np.abs(images))", "_helper.double(np.abs(images))")
    before = house()
    assert house("methods/_helper.py", "return 3 * x", "return 4 * x") == before
    assert house("methods/_helper.py", "return 2 * x", "return x + x") != before


MOVES = {
    "a helper that is renamed": ("methods/_helper.py", "methods/_twice.py", "methods._helper", "methods._twice"),
    "a helper that moves": ("methods/_helper.py", "shared/twice.py", "methods._helper", "shared.twice"),
    "a class that moves": ("kernel.py", "model/kernel.py", "atlas.kernel", "atlas.model.kernel"),
    "the function itself": ("methods/family.py", "methods/other.py", "", ""),
}


@pytest.mark.parametrize("how", ["by name", "by attribute", "inside", "inside by attribute"])
@pytest.mark.parametrize("move", MOVES)
def test_a_module_that_moves_changes_no_digest(house, how, move):
    if how == "by attribute":
        house("methods/family.py", "from atlas.methods._helper import double", "from atlas.methods import _helper")
        house("methods/family.py", "double(np.abs", "_helper.double(np.abs")
    elif how != "by name":
        house("methods/family.py", "from atlas.methods._helper import double\n", "")
        inside = "from atlas.methods._helper import double\n    " if how == "inside" else ""
        inside = inside or "from atlas.methods import _helper\n    "
        called = "double" if how == "inside" else "_helper.double"
        house("methods/family.py", "return double(np.abs", f"{inside}return {called}(np.abs")
    before, atlas = house(), signatures.HOUSE
    old, new, spelled, respelled = MOVES[move]
    (atlas / new).parent.mkdir(exist_ok=True)
    (atlas / old).rename(atlas / new)
    for file in atlas.rglob("*.py"):
        text = file.read_text().replace(spelled, respelled) if spelled else file.read_text()
        if how.endswith("attribute") and spelled.endswith("_helper"):
            place, _, name = respelled.rpartition(".")
            text = text.replace("from atlas.methods import _helper", f"from atlas.{place} import {name}")
            text = text.replace("_helper.double", f"{name}.double")
        file.write_text(text)
    forget()
    family = "other" if move == "the function itself" else "family"
    assert keys.code((f"atlas.methods.{family}", "first")) == before
    moved = atlas / new
    moved.write_text(moved.read_text().replace("return 2 * x", "return x").replace("FACTOR = 2", "FACTOR = 1"))
    moved.write_text(moved.read_text().replace("return 1\n", "return 5\n"))
    forget()
    assert keys.code((f"atlas.methods.{family}", "first")) != before


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("from numpy import sum as f", "from numpy import mean as f"),
        ("from math import sin as f", "from math import cos as f"),
        ("from math import sin as f", "from numpy import sin as f"),
        ("import numpy.linalg as f", "import numpy.fft as f"),
        ("from atlas.methods._helper import double as f", "from atlas.methods._helper import triple as f"),
        ("from atlas.methods._helper import double as f", "from atlas.methods._helper import double as abs"),
        ("from atlas.methods._helper import double as f", "from builtins import abs as f"),
    ],
)
def test_another_thing_under_the_same_name_changes_the_digest(house, old, new):
    house("methods/family.py", "import numpy as np", f"import numpy as np\n{old}")
    house("methods/family.py", "return double(np.abs(images))", "return f.norm(f(abs(images)))")
    before = house()
    assert house("methods/family.py", old, new) != before


def test_a_local_name_is_not_taken_for_a_module(house):
    """The use of the inner function, and of the module, are the same text but for the name."""
    house("methods/family.py", "from atlas.methods._helper import double", "from atlas.methods import _helper as f")
    house("methods/family.py", "import _helper as f", "import _helper as f, _helper as g")
    inner = "def f(x):\n        return x\n    f.double = abs\n    return f.double(np.abs(images))"
    house("methods/family.py", "return double(np.abs(images))", inner)
    before = house()
    assert house("methods/family.py", "return f.double", "return g.double") != before


TWO_MODULES = {
    "imports of two modules under one name": (
        "if images is None:\n        from atlas.methods import _helper as m\n"
        "    else:\n        from atlas import kernel as m\n    return m.double(images)"
    ),
    "an import inside of one that is outside": (
        "def inner(x):\n        from atlas import kernel as _helper\n        return _helper.double(x)\n"
        "    return inner(_helper.double(images))"
    ),
    "one import after the other": (
        "from atlas.methods import _helper as m\n    y = m.double(images)\n"
        "    from atlas import kernel as m\n    return m.double(y)"
    ),
}


@pytest.mark.parametrize("name", ["methods/_helper.py", "kernel.py"])
@pytest.mark.parametrize("form", TWO_MODULES)
def test_a_name_that_stands_for_two_modules_is_followed_to_both(house, form, name):
    house("kernel.py", "class Base", "def double(x):\n    return 2 * x\n\n\nclass Base")
    house("methods/family.py", "from atlas.methods._helper import double", "from atlas.methods import _helper")
    house("methods/family.py", "return double(np.abs(images))", TWO_MODULES[form])
    before = house()
    assert house(name, "return 2 * x", "return x + x") != before


def test_imports_of_two_modules_that_change_branches_change_the_digest(house):
    house("kernel.py", "class Base", "def double(x):\n    return x\n\n\nclass Base")
    first, second = "from atlas.methods import _helper as m", "from atlas import kernel as n"
    lines = (
        f"if images is None:\n        {first}\n    else:\n        {second}\n    try:\n        return m.double(images)"
    )
    lines += "\n    except UnboundLocalError:\n        return n.double(images)"
    house("methods/family.py", "from atlas.methods._helper import double\n", "")
    house("methods/family.py", "return double(np.abs(images))", lines)
    before = house()
    house("methods/family.py", first, "FIRST")
    house("methods/family.py", second, first)
    assert house("methods/family.py", "FIRST", second) != before


@pytest.mark.parametrize("asks", ["__name__", "__file__", "double.__module__", "getattr(double, '__module__', '')"])
def test_code_that_asks_where_it_stands_has_another_digest_elsewhere(house, asks):
    house("methods/family.py", "return double(np.abs(images))", f"return double({asks})")
    before, atlas = house(), signatures.HOUSE
    (atlas / "methods/family.py").rename(atlas / "methods/other.py")
    forget()
    assert keys.code(("atlas.methods.other", "first")) != before


def test_two_definitions_that_change_places_change_the_digest(house):
    """Both texts are reached before and after, by other names."""
    house("methods/family.py", "return double(np.abs(images))", "return double(np.abs(images)) - triple(images)")
    house("methods/family.py", "import double", "import double, triple")
    before = house()
    swapped = "import double as triple, triple as double"
    assert house("methods/family.py", "import double, triple", swapped) != before


def test_a_new_version_of_a_package_changes_the_digest(house, monkeypatch):
    before = house()
    real = packages.versions
    monkeypatch.setattr(packages, "versions", lambda names: real(names) | {"numpy": "99"})
    assert house() != before


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

    content = {"engine": {"batch": 1}, "stores": {"dtype": "float32"}}
    study = Study(".", content)
    plain = keys.entry(bound(), study)
    assert keys.entry(bound(count=3, exclude=["rise"]), study) == plain
    assert keys.entry(bound(count=3)._replace(name="renamed"), study) == plain
    assert keys.entry(bound()._replace(settings={"pixels": 5}), study) != plain
    for changed in ({"engine": {"batch": 2}}, {"stores": {"dtype": "float16"}}):
        assert keys.entry(bound(), Study(".", {**content, **changed})) != plain


TYPES = """
from typing import Annotated, Literal, NamedTuple

class Range(NamedTuple):
    least: float
    most: float

Count = Annotated[int, Range(1, 9), "How many."]
Output = Annotated[Literal["logit", "loss"], "Of what."]
"""
TYPED = """
from typing import Annotated, Literal

from atlas.study.schema.types import Count, Output, Range


def first(images, *, steps: Count, output: Output, turn: Annotated[float, Range(0, 180), "Of an image."]):
    return images * steps
"""
IMPORTED = "import Count, Output, Range\n"


@pytest.fixture
def typed(house, tmp_path):
    (tmp_path / "atlas/study/schema").mkdir(parents=True)
    (tmp_path / "atlas/study/schema/types.py").write_text(TYPES)
    (tmp_path / "atlas/methods/family.py").write_text(TYPED)
    return house


@pytest.mark.parametrize(
    ("name", "old", "new"),
    [
        ("study/schema/types.py", "Range(1, 9)", "Range(2, 99)"),
        ("study/schema/types.py", "How many.", "How many steps."),
        ("study/schema/types.py", '"loss"]', '"loss", "margin"]'),
        ("study/schema/types.py", "    most: float", "    most: float\n    open_above: bool = False"),
        ("methods/family.py", "Range(0, 180)", "Range(-180, 180)"),
        ("methods/family.py", "Of an image.", "In degrees."),
        ("methods/family.py", 'Annotated[float, Range(0, 180), "Of an image."]', "float"),
    ],
)
def test_what_a_setting_accepts_is_in_no_digest(typed, name, old, new):
    """It says which settings there may be; those there are have their values in the key."""
    before = typed()
    assert not source.reach(("atlas.methods.family", "first")).whole
    assert typed(name, old, new) == before
    assert typed("methods/family.py", "* steps", "/ steps") != before


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("steps: Count", "steps: int"),
        ("steps: Count", "steps: Output"),
        ("turn: Annotated[float", "turn: Annotated[int"),
    ],
)
def test_another_type_of_a_setting_changes_the_digest(typed, old, new):
    before = typed()
    assert typed("methods/family.py", old, new) != before


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("return images * steps", "return images * Count.__metadata__[0].most"),
        ("return images * steps", "return images * _steps(steps)\n\n\ndef _steps(n: Count = Count):\n    return n"),
        ("return images * steps", "return images * Own.__metadata__[0].most\n\n\nOwn = Annotated[int, Count]"),
        ("return images * steps", "return images * first.__annotations__['steps'].__metadata__[0].most"),
    ],
)
def test_a_type_that_is_used_beside_signatures_is_followed(typed, old, new):
    typed("methods/family.py", old, new)
    before = typed()
    assert typed("study/schema/types.py", "Range(1, 9)", "Range(1, 8)") != before


def test_marks_that_are_not_the_projects_stay_in_the_digest(typed):
    typed("methods/family.py", IMPORTED, f"{IMPORTED}\n\ndef wide(x, y):\n    return x + y\n")
    typed("methods/family.py", "Range(0, 180)", "wide(0, 180)")
    before = typed()
    assert typed("methods/family.py", "wide(0, 180)", "wide(0, 90)") != before


def test_no_method_and_no_metric_of_the_default_study_has_ranges_in_its_key():
    given = params.load(signatures.HOUSE.parent)
    for kind in ("methods", "metrics"):
        for listed in params.entries(given, kind).values():
            for bound in listed.values():
                reached = source.reach((f"atlas.{kind}.{bound.family}", bound.function))
                assert not reached.whole, bound.name
                assert "atlas.study.schema.types" not in {module for module, _ in reached.texts}, bound.name


def test_docstrings_of_fields_are_no_code():
    with_text = syntax.parse('class A:\n    x: int\n    """Of what."""\n    y: int', "")
    without = syntax.parse("class A:\n    x: int\n    y: int", "")
    assert ast.dump(with_text) == ast.dump(without)


def test_docstrings_of_methods_and_classes_are_no_code():
    with_text = syntax.parse('class A:\n    """Text."""\n    def f(self):\n        """Text."""\n        return 1', "")
    without = syntax.parse("class A:\n    def f(self):\n        return 1", "")
    assert ast.dump(with_text) == ast.dump(without)


@pytest.mark.parametrize(
    "around",
    [
        "if a:\n    {}",
        "if a:\n    pass\nelse:\n    {}",
        "for a in b:\n    {}",
        "while a:\n    pass\nelse:\n    {}",
        "with a:\n    {}",
        "try:\n    {}\nfinally:\n    pass",
        "try:\n    pass\nexcept A:\n    {}",
        "try:\n    pass\nexcept A:\n    pass\nelse:\n    {}",
        "try:\n    pass\nfinally:\n    {}",
        "match a:\n    case 1:\n        {}",
        "def f():\n    {}",
        "async def f():\n    class A:\n        pass\n    {}",
    ],
)
def test_docstrings_in_any_block_are_no_code(around):
    with_text = syntax.parse(around.format("def inner(): 'text'"), "")
    assert ast.dump(with_text) == ast.dump(syntax.parse(around.format("def inner(): pass"), ""))


def test_a_copied_syntax_tree_is_equal_and_shares_no_node():
    tree = syntax.parse((signatures.HOUSE / "cache/keys.py").read_text(), "")
    copy = syntax.copied(tree)
    assert ast.dump(copy, include_attributes=True) == ast.dump(tree, include_attributes=True)
    own = {id(node) for node in ast.walk(tree) if node._fields}
    assert not own & {id(node) for node in ast.walk(copy) if node._fields}


def test_a_file_edited_after_it_was_read_is_told(house, tmp_path):
    house()
    unedited.check()
    (tmp_path / "atlas/methods/_helper.py").write_text(HELPER.replace("2 * x", "x + x"))
    with pytest.raises(UserError, match=r"atlas/methods/_helper\.py was edited while this was running"):
        unedited.check()


def test_a_file_that_was_only_touched_is_not_edited(house, tmp_path):
    house()
    (tmp_path / "atlas/methods/_helper.py").write_text(HELPER)
    unedited.check()


def test_a_name_bound_twice_is_followed_both_ways(house):
    before = house("methods/family.py", "FACTOR = 2", "double = np.vectorize(double)\nFACTOR = 2")
    assert house("methods/_helper.py", "return 2 * x", "return x + x") != before


def test_an_import_inside_a_function_is_followed_past_a_name_of_the_module(house):
    text = "    from atlas.methods._helper import triple\n    return triple(double(np.abs(images)))\n\n\ntriple = 1"
    before = house("methods/family.py", "    return double(np.abs(images))", text)
    assert house("methods/_helper.py", "return 3 * x", "return 4 * x") != before


def test_a_local_name_is_not_the_import_of_that_name(house):
    before = house("methods/family.py", "return double(np.abs(images))", "return [double + 1 for double in images]")
    assert house("methods/_helper.py", "return 2 * x", "return x + x") == before


def test_no_method_or_metric_is_digested_whole_or_with_how_stores_are_written():
    given = params.load(signatures.HOUSE.parent)
    for kind in ("methods", "metrics"):
        for listed in params.entries(given, kind).values():
            for entry in listed.values():
                found = source.reach((f"atlas.{kind}.{entry.family}", entry.function))
                assert not found.whole, "a comment in any module would recompute its rows"
                assert "zarr" not in found.packages, entry.name
                assert not {module for module, _ in found.texts} & {
                    "atlas.cache.stores",
                    "atlas.cache.tables",
                    "atlas.cache.rows",
                }


# Code whose parts refer to each other by other means than their names: what is edited must change the key of `first`.
# Of each: what stands in place of family.py, then the file that is edited, and how.
FORMS = {
    "a registry that a decorator fills": (
        "KNOWN = {}\n\ndef known(function):\n    KNOWN[function.__name__] = function\n    return function\n\n"
        "@known\ndef twice(x):\n    return 2 * x\n\ndef first(images):\n    return KNOWN['twice'](images)\n",
        ("methods/family.py", "2 * x", "3 * x"),
    ),
    "a registry that a call fills": (
        "KNOWN = {}\n\ndef twice(x):\n    return 2 * x\n\nKNOWN.update(twice=twice)\n\n"
        "def first(images):\n    return KNOWN['twice'](images)\n",
        ("methods/family.py", "2 * x", "3 * x"),
    ),
    "a registry that a helper fills when imported": (
        "from atlas.methods import _helper\nfrom atlas.kernel import Classifier\n\n"
        "def first(images):\n    return Classifier.known['double'](images)\n",
        ("methods/_helper.py", "2 * x", "3 * x"),
        ("methods/_helper.py", "def triple", "Classifier.known = {'double': double}\n\n\ndef triple"),
        ("methods/_helper.py", "\ndef double", "from atlas.kernel import Classifier\n\n\ndef double"),
    ),
    "a registry that subclasses fill": (
        "class Base:\n    known = {}\n    def __init_subclass__(cls):\n        Base.known[cls.__name__] = cls\n\n"
        "class Twice(Base):\n    def run(self, x):\n        return 2 * x\n\n"
        "def first(images):\n    return Base.known['Twice']().run(images)\n",
        ("methods/family.py", "2 * x", "3 * x"),
    ),
    "subclasses that are asked for": (
        "class Base:\n    pass\n\nclass Twice(Base):\n    def run(self, x):\n        return 2 * x\n\n"
        "def first(images):\n    return Base.__subclasses__()[0]().run(images)\n",
        ("methods/family.py", "2 * x", "3 * x"),
    ),
    "globals()": (
        "def _twice(x):\n    return 2 * x\n\ndef first(images):\n    return globals()['_' + 'twice'](images)\n",
        ("methods/family.py", "2 * x", "3 * x"),
    ),
    "vars() of a module": (
        "import sys\n\ndef _twice(x):\n    return 2 * x\n\n"
        "def first(images):\n    return vars(sys.modules[__name__])['_twice'](images)\n",
        ("methods/family.py", "2 * x", "3 * x"),
    ),
    "getattr of a module": (
        "from atlas.methods import _helper\n\ndef first(images):\n    return getattr(_helper, 'dou' + 'ble')(images)\n",
        ("methods/_helper.py", "2 * x", "3 * x"),
    ),
    "a module's __getattr__": (
        "from atlas.methods._helper import quadruple\n\ndef first(images):\n    return quadruple(images)\n",
        ("methods/_helper.py", "2 * x", "3 * x"),
        ("methods/_helper.py", "def triple", "def __getattr__(name):\n    return double\n\n\ndef triple"),
    ),
    "eval": (
        "def _twice(x):\n    return 2 * x\n\ndef first(images):\n    return eval('_twice')(images)\n",
        ("methods/family.py", "2 * x", "3 * x"),
    ),
    "exec": (
        "def _twice(x):\n    return 2 * x\n\ndef first(images):\n    exec('_twice(images)')\n    return images\n",
        ("methods/family.py", "2 * x", "3 * x"),
    ),
    "the other branch of TYPE_CHECKING": (
        "from typing import TYPE_CHECKING\n\nif TYPE_CHECKING:\n    pass\nelse:\n    def twice(x):\n"
        "        return 2 * x\n\ndef first(images):\n    return twice(images)\n",
        ("methods/family.py", "2 * x", "3 * x"),
    ),
    "not TYPE_CHECKING": (
        "from typing import TYPE_CHECKING\n\nif not TYPE_CHECKING:\n    FACTOR = 2\n\n"
        "def first(images):\n    return FACTOR * images\n",
        ("methods/family.py", "FACTOR = 2", "FACTOR = 3"),
    ),
    "an import that is tried": (
        "try:\n    from atlas.methods._helper import double as times\nexcept ImportError:\n"
        "    from atlas.methods._helper import triple as times\n\ndef first(images):\n    return times(images)\n",
        ("methods/_helper.py", "2 * x", "3 * x"),
    ),
    "a class attribute named like a function": (
        "def scale(x):\n    return 2 * x\n\nclass Tool:\n    scale = staticmethod(scale)\n\n"
        "def first(images):\n    return Tool.scale(images)\n",
        ("methods/family.py", "2 * x", "3 * x"),
    ),
    "a class attribute made of one of its own name": (
        "FACTOR = 2\n\nclass Tool:\n    FACTOR = FACTOR + 1\n\ndef first(images):\n    return Tool.FACTOR * images\n",
        ("methods/family.py", "FACTOR = 2", "FACTOR = 4"),
    ),
    "what a helper does when it is imported": (
        "import torch\nfrom atlas.methods import _helper\n\ndef first(images):\n    return torch.zeros(2)\n",
        ("methods/_helper.py", "float32", "float64"),
        ("methods/_helper.py", "\ndef double", "import torch\n\ntorch.set_default_dtype(torch.float32)\n\ndef double"),
    ),
    "what a helper of a helper does when it is imported": (
        "from atlas.methods import _helper\n\ndef first(images):\n    return images\n",
        ("kernel.py", "seed(1)", "seed(2)"),
        ("methods/_helper.py", "\ndef double", "from atlas.kernel import Base\n\n\ndef double"),
        ("kernel.py", "class Base", "import random\n\nrandom.seed(1)\n\n\nclass Base"),
    ),
    "__init__.py of its folder": (
        "def first(images):\n    return images\n",
        ("methods/__init__.py", "1", "2"),
        ("methods/__init__.py", "", "import random\n\nrandom.seed(1)\n"),
    ),
    "__init__.py of the project": (
        "def first(images):\n    return images\n",
        ("__init__.py", "1", "2"),
        ("__init__.py", "", "import random\n\nrandom.seed(1)\n"),
    ),
    "a name from __init__.py": (
        "from atlas.methods import factor\n\ndef first(images):\n    return factor * images\n",
        ("methods/__init__.py", "1", "2"),
        ("methods/__init__.py", "", "factor = 1\n"),
    ),
    "a star import": (
        "from atlas.methods._helper import *\n\ndef first(images):\n    return double(images)\n",
        ("methods/_helper.py", "2 * x", "3 * x"),
    ),
    "a folder without __init__.py": (
        "from atlas.methods.deep.tool import double\n\ndef first(images):\n    return double(images)\n",
        ("methods/deep/tool.py", "2 * x", "3 * x"),
        ("methods/deep/tool.py", "", "def double(x):\n    return 2 * x\n"),
    ),
    "a relative import": (
        "from ._helper import double\n\ndef first(images):\n    return double(images)\n",
        ("methods/_helper.py", "2 * x", "3 * x"),
    ),
    "a relative import of a module": (
        "from . import _helper\n\ndef first(images):\n    return _helper.double(images)\n",
        ("methods/_helper.py", "2 * x", "3 * x"),
    ),
    "an import of a dotted name": (
        "import atlas.methods._helper\n\ndef first(images):\n    return atlas.methods._helper.double(images)\n",
        ("methods/_helper.py", "2 * x", "3 * x"),
    ),
    "a package and then its module": (
        "from atlas import methods\nfrom atlas.methods import _helper\n\n"
        "def first(images):\n    return methods._helper.double(images)\n",
        ("methods/_helper.py", "2 * x", "3 * x"),
    ),
    "an import under another name": (
        "import atlas.methods._helper as tools\n\ndef first(images):\n    return tools.double(images)\n",
        ("methods/_helper.py", "2 * x", "3 * x"),
    ),
    "a loop that defines": (
        "for _name in ('twice',):\n    globals()[_name] = lambda x: 2 * x\n\n"
        "def first(images):\n    return twice(images)\n",
        ("methods/family.py", "2 * x", "3 * x"),
    ),
    "a default argument": (
        "def twice(x):\n    return 2 * x\n\ndef first(images, *, by=twice):\n    return by(images)\n",
        ("methods/family.py", "2 * x", "3 * x"),
    ),
    "a default that is called for": (
        "def twice(x):\n    return 2 * x\n\ndef first(images, *, by=twice(1)):\n    return by * images\n",
        ("methods/family.py", "2 * x", "3 * x"),
    ),
    "a constant that is called for": (
        "from atlas.methods._helper import double\n\nTABLE = [double(1)]\n\n"
        "def first(images):\n    return TABLE[0] * images\n",
        ("methods/_helper.py", "2 * x", "3 * x"),
    ),
    "a decorator of the project's own": (
        "from atlas.methods._helper import double\n\n"
        "def doubled(function):\n    return lambda x: double(function(x))\n\n"
        "@doubled\ndef first(images):\n    return images\n",
        ("methods/_helper.py", "2 * x", "3 * x"),
    ),
    "a metaclass": (
        "class Meta(type):\n    def __call__(cls, x):\n        return 2 * x\n\n"
        "class Twice(metaclass=Meta):\n    pass\n\n"
        "def first(images):\n    return Twice(images)\n",
        ("methods/family.py", "2 * x", "3 * x"),
    ),
    "a base class elsewhere": (
        "from atlas.kernel import Classifier\n\ndef first(images):\n    return Classifier().go() * images\n",
        ("kernel.py", "return 1", "return 2"),
    ),
    "a partial": (
        "from functools import partial\nfrom atlas.methods._helper import double\n\ntwice = partial(double)\n\n"
        "def first(images):\n    return twice(images)\n",
        ("methods/_helper.py", "2 * x", "3 * x"),
    ),
    "a lambda in a table": (
        "from atlas.methods._helper import double\n\nWAYS = {'twice': lambda x: double(x)}\n\n"
        "def first(images):\n    return WAYS['twice'](images)\n",
        ("methods/_helper.py", "2 * x", "3 * x"),
    ),
    "a global that is changed": (
        "FACTOR = 2\n\ndef _set():\n    global FACTOR\n    FACTOR = 3\n\n"
        "def first(images):\n    _set()\n    return FACTOR * images\n",
        ("methods/family.py", "FACTOR = 3", "FACTOR = 4"),
    ),
    "another module's constant that is changed": (
        "from atlas.methods import _helper\n\ndef _half(x):\n    return x / 2\n\n"
        "def first(images):\n    _helper.triple = _half\n    return images\n",
        ("methods/family.py", "x / 2", "x / 3"),
    ),
    "__doc__": (
        "def first(images):\n    '''2'''\n    return int(first.__doc__) * images\n",
        ("methods/family.py", "'''2'''", "'''3'''"),
    ),
    "__annotations__": (
        "from typing import Annotated\n\ndef first(images, *, n: Annotated[int, '2']):\n"
        "    return int(first.__annotations__['n'].__metadata__[0]) * images\n",
        ("methods/family.py", "'2'", "'3'"),
    ),
    "the source text itself": (
        "import inspect\n\ndef first(images):\n    return len(inspect.getsource(first)) * images  # ab\n",
        ("methods/family.py", "# ab", "# abc"),
    ),
    "import_module, plainly": (
        "from importlib import import_module\nfrom atlas.methods import _helper\n\n"
        "def first(images):\n    return import_module('atlas.methods._helper').double(images)\n",
        ("methods/_helper.py", "2 * x", "3 * x"),
    ),
    "a dotted import inside a function": (
        "def first(images):\n    import atlas.methods._helper\n    return atlas.methods._helper.double(images)\n",
        ("methods/_helper.py", "2 * x", "3 * x"),
    ),
    "getattr of what a module passes on": (
        "from atlas.methods import _helper\n\n"
        "def first(images):\n    return getattr(_helper, 'go' + 'ing')().run() * images\n",
        ("kernel.py", "return 1", "return 2"),
        ("methods/_helper.py", "\ndef double", "from atlas.kernel import Base as going\n\n\ndef double"),
    ),
    "a module that is a class attribute": (
        "from atlas.methods import _helper\n\nclass Tool:\n    by = _helper\n\n"
        "def first(images):\n    return Tool.by.going().run() * images\n",
        ("kernel.py", "return 1", "return 2"),
        ("methods/_helper.py", "\ndef double", "from atlas.kernel import Base as going\n\n\ndef double"),
    ),
    **{
        f"a registry that {way} fills": (
            f"{head}KNOWN = {{}}\n\ndef twice(x):\n    return 2 * x\n\n"
            f"def _add(function):\n    KNOWN['twice'] = function\n    return 1\n\n{filled}\n\n"
            "def first(images):\n    return KNOWN['twice'](images)\n",
            ("methods/family.py", "2 * x", "3 * x"),
        )
        for way, head, filled in (
            ("list(map())", "", "DONE = list(map(_add, [twice]))"),
            ("a map of maps", "", "DONE = list(map(list, map(map, [_add], [[twice]])))"),
            ("map(*)", "", "DONE = list(map(*[_add, [twice]]))"),
            ("a lambda", "", "DONE = list(map(lambda one: _add(one), [twice]))"),
            ("sorted()", "", "DONE = sorted([twice], key=_add)"),
            ("max()", "", "DONE = max([twice], key=_add)"),
            ("min(**)", "", "DONE = min([twice], **{'key': _add})"),
            ("a partial", "from functools import partial\n\n", "DONE = list(map(partial(_add), [twice]))"),
            (
                "a name that is imported too",
                "from functools import cache\n\n",
                "def cache(function):\n    _add(function)\n    return function\n\n"
                "@cache\ndef other(x):\n    return 2 * x",
            ),
            (
                "a name that a class binds too",
                "from functools import cache\n\n",
                "class Tool:\n    cache = _add\n\n    @cache\n    def other(x):\n        return 2 * x",
            ),
            (
                "a name that a class imports too",
                "from functools import cache\n\n",
                "class Tool:\n    from atlas.methods._helper import double as cache\n\n    @cache\n"
                "    def other(x):\n        return 2 * x",
            ),
            (
                "what looks like an accessor",
                "",
                "class R:\n    setter = staticmethod(_add)\n\n"
                "class Tool:\n    @R.setter\n    def other(x):\n        return 2 * x",
            ),
            (
                "what looks like an accessor of the class",
                "",
                "class R:\n    setter = _add\n\n"
                "class Tool:\n    by = R\n\n    @by.setter\n    def by(x):\n        return 2 * x",
            ),
            (
                "a record's own join",
                "from typing import NamedTuple\n\n",
                "class R(NamedTuple):\n    x: int\n\n    def join(self, one):\n        return _add(one)\n\n"
                "DONE = R(1).join(twice)",
            ),
            (
                "a record's own format",
                "from typing import NamedTuple\n\n",
                "class R(NamedTuple):\n    x: int\n\n    def __format__(self, how):\n"
                "        return str(_add(twice))\n\n"
                "DONE = f'{R(1)}'",
            ),
            (
                "a class's own join",
                "",
                "class R:\n    @staticmethod\n    def join(one):\n        return _add(one)\n\nDONE = R.join(twice)",
            ),
            (
                "the join of a class in a list",
                "",
                "class R:\n    @staticmethod\n    def join(one):\n        return _add(one)\n\n"
                "LISTED = [R]\nDONE = LISTED[0].join(twice)",
            ),
        )
    },
    "TYPE_CHECKING that is bound again": (
        "from typing import TYPE_CHECKING\n\nTYPE_CHECKING = True\nFACTOR = 1\n\nif TYPE_CHECKING:\n"
        "    FACTOR = 2\n\ndef first(images):\n    return FACTOR * images\n",
        ("methods/family.py", "    FACTOR = 2", "    FACTOR = 3"),
    ),
    "a file that it declares": (
        "FILES = ['table.txt']\n\ndef first(images):\n    return images\n",
        ("methods/table.txt", "1", "2"),
        ("methods/table.txt", "", "1"),
    ),
    "a file that a helper declares": (
        "from atlas.methods._helper import double\n\ndef first(images):\n    return double(images)\n",
        ("methods/table.txt", "1", "2"),
        ("methods/table.txt", "", "1"),
        ("methods/_helper.py", "\ndef double", "FILES = ['table.txt']\n\n\ndef double"),
    ),
}


@pytest.mark.parametrize("form", FORMS)
def test_no_form_of_code_hides_an_edit(house, tmp_path, form):
    text, edit, *before = FORMS[form]
    (tmp_path / "atlas/methods/family.py").write_text(text)
    for name, old, new in before:
        place = tmp_path / "atlas" / name
        known = place.read_text() if place.is_file() else ""
        place.parent.mkdir(exist_ok=True)
        place.write_text(known.replace(old, new, 1) if old else new)
    forget()
    digest = house()
    assert house(*edit) != digest


def test_what_cannot_be_told_apart_is_taken_whole(house, tmp_path):
    house()
    assert not source.reach(("atlas.methods.family", "first")).whole
    house("methods/family.py", "return images * OTHER", "return images * globals()['OTHER']")
    assert not source.reach(("atlas.methods.family", "first")).whole  # of a function that it does not reach
    house("methods/family.py", "return double(np.abs(images))", "return globals()['double'](images)")
    found = source.reach(("atlas.methods.family", "first"))
    assert found.whole == "atlas.methods.family: line 19: globals finds by name what cannot be read off the source"
    assert found.modules == {
        "atlas",
        "atlas.methods",
        "atlas.methods.family",
        "atlas.methods._helper",
        "atlas.kernel",
    }


def test_functions_of_code_that_is_taken_whole_have_digests_of_their_own(house):
    """Two entries with the same settings are told apart by what they call alone."""
    house()
    house("methods/family.py", "from atlas", "REGISTRY = globals()\nfrom atlas")
    first, second = ([("atlas.methods.family", name)] for name in ("first", "second"))
    assert source.reach(*first).whole
    assert keys.code(*first) != keys.code(*second)


@pytest.mark.parametrize(
    "text",
    [
        "class Tool:\n    @property\n    def by(self):\n        return 1\n\n    @by.setter\n    def by(self, x):\n"
        "        pass\n",
        "from typing import NamedTuple\n\nclass R(NamedTuple):\n    x: int\n\nMADE = {'a': R(1)}\nNAMES = [*MADE]\n",
        "A = {'a': 1}\nB = ', '.join(A.keys())\nC = {name: max(one, 2) for name, one in A.items()}\n",
        "A = list(map(float, '1 2'.split()))\nB = sorted(A, key=abs)\n",
        "from pathlib import Path\n\nA = Path(__file__).parent\nB = A.joinpath('a').resolve()\n",
    ],
)
def test_a_module_of_values_is_told_apart(house, tmp_path, text):
    (tmp_path / "atlas/methods/family.py").write_text(f"{text}\n\ndef first(images):\n    return images\n")
    house()
    assert not source.reach(("atlas.methods.family", "first")).whole


@pytest.mark.parametrize(
    ("declared", "told"),
    [
        ("['nowhere.txt']", "names 'nowhere.txt': expected a file beside the module, in a folder of atlas/"),
        ("['../../outside.txt']", "names '../../outside.txt': expected a file beside the module"),
        ("table()", r"FILES = table\(\): expected a literal list of file names"),
    ],
)
def test_files_that_are_declared_badly(house, tmp_path, declared, told):
    (tmp_path / "outside.txt").write_text("1")
    with pytest.raises(UserError, match=told):
        house("methods/family.py", "FACTOR = 2", f"FACTOR = 2\nFILES = {declared}")


def test_a_version_that_a_package_requires_is_in_the_key(monkeypatch):
    told = packages.versions({"skimage"})
    assert {"scikit-image", "scipy", "numpy", "pillow"} <= set(told)
    real = packages.version
    monkeypatch.setattr(packages, "version", lambda name: "99" if name == "scipy" else real(name))
    packages._required.cache_clear()
    try:
        assert packages.versions({"skimage"}) == {**told, "scipy": "99"}
    finally:
        packages._required.cache_clear()


def test_a_package_that_is_not_installed_is_told_as_such():
    assert packages.versions({"nonesuch"}) == {"nonesuch": "not installed", "python": packages.version("python")}


def test_a_module_beside_the_project_is_refused(house, tmp_path, monkeypatch):
    (tmp_path / "mine.py").write_text("def double(x):\n    return 2 * x\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(UserError, match=r"imports mine \(.*mine\.py\), which belongs to no installed package"):
        house("methods/family.py", "from atlas.methods._helper import double", "from mine import double")


def test_an_edit_of_a_package_that_is_installed_from_its_folder_is_told(tmp_path, monkeypatch):
    code, info = tmp_path / "code/mine", tmp_path / "site/mine-1.0.dist-info"
    code.mkdir(parents=True)
    info.mkdir(parents=True)
    (code / "__init__.py").write_text("FACTOR = 2\n")
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: mine\nVersion: 1.0\n")
    (info / "direct_url.json").write_text(json.dumps({"url": code.parent.as_uri(), "dir_info": {"editable": True}}))
    monkeypatch.syspath_prepend(tmp_path / "site")
    before = packages.version("mine")
    assert before.startswith("1.0+")
    (code / "__init__.py").write_text("FACTOR = 3\n")
    packages.version.cache_clear()
    assert packages.version("mine") not in (before, "1.0")


def test_no_row_of_the_default_study_is_digested_by_whole_modules(monkeypatch):
    """Else an edit of a comment in the kernel would recompute it; the verbs' parts are among the roots."""
    taken: list[str] = []
    real = source.reach
    monkeypatch.setattr(source, "reach", lambda *roots: taken.append(real(*roots).whole) or real(*roots))
    study = Study(signatures.HOUSE.parent)
    keys._code.cache_clear()
    for entry in (*study.all_methods.values(), *study.all_metrics.values()):
        keys.entry(entry, study, *calls.parts(entry))
    for name in study.params["classifiers"]:
        bound = study.network(name)
        keys.code((f"atlas.networks.{bound.family}", bound.function), *keys.NETWORK)
    for verb, function in (
        ("atlas.classifiers.training", "trained"),
        ("atlas.classifiers.adopting", "adopt"),
        ("stages.prepare", "evaluated"),
        ("stages.predict", "predictions"),
        ("stages.predict", "probabilities"),
        ("stages.correlate", "correlations"),
    ):
        keys.code((verb, function))
    assert taken
    assert not set(taken) - {""}


def test_what_audits_the_building_of_a_network_is_in_no_key():
    """It affects no value: what it finds is an error. Its text would bring in the modules of the audit, whole."""
    reached = keys.names(("atlas.classifiers.training", "trained"), ("atlas.classifiers.adopting", "adopt"))
    assert ("atlas.model.loading", "build") in reached
    assert not {name for name in reached if name[0].startswith("atlas.inputs.audit")}


def test_another_python_changes_every_key(monkeypatch):
    """`sum([0.1] * 10)` is 0.9999999999999999 by 3.11, and 1.0 by 3.12; 3.11.7 and 3.11.9 agree."""
    root = ("atlas.metrics.complexity", "sparseness")
    before, known = keys.code(root), packages.versions(set())
    assert known == {"python": f"{sys.version_info.major}.{sys.version_info.minor}"}
    real = packages.version
    monkeypatch.setattr(packages, "version", lambda name: "3.99" if name == "python" else real(name))
    keys._code.cache_clear()
    try:
        assert keys.code(root) != before
    finally:
        keys._code.cache_clear()
