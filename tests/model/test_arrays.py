"""While tests run, every function's arguments and result are checked against its signature."""

import pytest
import torch
from jaxtyping import TypeCheckError

from atlas.inputs.audit.places import within
from atlas.metrics import localization
from atlas.metrics.localization import pointing_game

MAPS, BOXES = torch.rand(2, 8, 8), torch.tensor([[[0, 0, 4, 4]]] * 2)
GIVEN = {"maps": MAPS, "boxes": BOXES, "seeds": [1, 2], "tolerance": 1}


WRONG = {
    "whole numbers for floats": {"maps": MAPS.int()},
    "one map": {"maps": MAPS[0]},
    "an array of NumPy": {"maps": MAPS.numpy()},
    "three corners": {"boxes": BOXES[..., :3]},
    "boxes of fewer images": {"boxes": BOXES[:1]},
    "a tuple for a list": {"seeds": (1, 2)},
    "a text for a number": {"tolerance": "1"},
}


@pytest.mark.parametrize("wrong", WRONG.values(), ids=list(WRONG))
def test_an_argument_that_does_not_fit_the_signature_is_an_error(wrong):
    assert pointing_game(**GIVEN).shape == (2,)
    with pytest.raises(TypeCheckError):
        pointing_game(**{**GIVEN, **wrong})


def test_functions_without_arrays_are_checked_too():
    with pytest.raises(TypeCheckError):
        within(3, ("/",))


def test_a_result_that_does_not_fit_the_signature_is_an_error(monkeypatch):
    monkeypatch.setattr(localization, "finite", lambda maps: torch.ones(3, len(maps), dtype=torch.bool))
    with pytest.raises(TypeCheckError):
        pointing_game(**GIVEN)
