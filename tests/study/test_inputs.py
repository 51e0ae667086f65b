"""The table of inputs: all that functions may ask for, and what it says of each."""

import ast
from pathlib import Path

import pytest

from atlas.study.errors import UserError
from atlas.study.schema.inputs import INPUTS, brought, inputs_of, whole
from atlas.study.schema.signatures import askable

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("name", INPUTS)
def test_what_gives_and_what_digests_an_input_is_there(name):
    for module, function in (INPUTS[name].gives, INPUTS[name].digests):
        tree = ast.parse((ROOT / (module.replace(".", "/") + ".py")).read_text())
        defined = {node.name for node in tree.body if isinstance(node, ast.FunctionDef | ast.ClassDef)}
        assert function in defined, f"{module}.{function}"


def test_every_input_is_one_that_functions_may_ask_for():
    for kind in ("methods", "metrics"):
        askable(kind, "family", "function", [name for name in inputs_of(kind) if name != "tiles"])
    assert set(inputs_of("methods")) | set(inputs_of("metrics")) == set(INPUTS)
    assert inputs_of("networks") == []
    with pytest.raises(
        UserError, match=r"function asks for maps; there are: background, classifier, images, seeds, ta"
    ):
        askable("methods", "family", "function", ["maps"])


def test_an_input_of_all_rows_says_what_it_has_of_each():
    assert whole(["maps", "all_maps", "all_seeds", "positions"]) == {"all_maps": "maps", "all_seeds": "seeds"}
    assert all(one.whole in INPUTS for one in INPUTS.values() if one.whole)


def test_code_that_comes_with_an_input_is_in_the_keys_of_those_that_ask_for_it():
    assert brought(["maps", "images"]) == ()
    assert brought(["votes", "explain"]) == (INPUTS["explain"].gives, INPUTS["votes"].gives)
