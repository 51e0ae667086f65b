"""The table of inputs: all that functions may ask for, and what it says of each."""

import ast
from pathlib import Path

import pytest

from atlas.inputs.table import TABLE, providers_in_key, whole
from atlas.study.schema.signatures import INPUTS

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("name", TABLE)
def test_the_provider_of_an_input_is_there(name):
    module, function = TABLE[name].provider
    tree = ast.parse((ROOT / (module.replace(".", "/") + ".py")).read_text())
    defined = {node.name for node in tree.body if isinstance(node, ast.FunctionDef | ast.ClassDef)}
    assert function in defined, f"{module}.{function}"


def test_it_has_all_that_functions_may_ask_for():
    assert set(TABLE) == INPUTS["methods"] | INPUTS["metrics"]


def test_an_input_of_all_rows_says_what_it_has_of_each():
    assert whole(["maps", "all_maps", "all_seeds", "positions"]) == {"all_maps": "maps", "all_seeds": "seeds"}
    assert all(one.whole in TABLE for one in TABLE.values() if one.whole)


def test_code_that_comes_with_an_input_is_in_the_keys_of_those_that_ask_for_it():
    assert providers_in_key(["maps", "images"]) == ()
    assert providers_in_key(["votes", "explain"]) == (TABLE["explain"].provider, TABLE["votes"].provider)
