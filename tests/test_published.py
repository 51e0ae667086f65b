"""The settings of published figures, beside the methods as they are."""

import re
from pathlib import Path

import pytest

from stages import params
from stages.figures import protocol, published
from stages.signatures import signature

METHODS = Path(params.__file__).parent / "methods"
FAMILIES = {
    name: file.stem
    for file in sorted(METHODS.glob("[a-z]*.py"))
    for name in re.findall(r"^def ([a-z]\w*)\(", file.read_text(), flags=re.MULTILINE)
}


@pytest.mark.parametrize(("method", "layer"), list(protocol.SETTINGS))
def test_published_settings_are_all_that_a_method_takes(method, layer):
    """But for the layer and seeds, and for channels where they change nothing."""
    of_features = {theirs: ours for ours, theirs in published.NAMED.items()}
    own = of_features.get(method, method) if layer == "final" else method
    taken = signature("methods", FAMILIES[own], own).settings
    for network in ("resnet18", "vit_b_16"):
        assert {*protocol.settings(method, layer, network)} - {"channels"} == {*taken} - {"layer", "seed"}
