"""The settings of published figures, beside the methods as they are."""

import re
from collections import OrderedDict
from pathlib import Path

import pytest
import torch

from atlas.inputs.calls import attributions
from atlas.inputs.explain import Explainer
from atlas.inputs.top_k import top_k
from atlas.report.certification import protocol, published
from atlas.study import params
from atlas.study.schema.settings import Entry
from atlas.study.schema.signatures import signature
from tests.support import metrics

METHODS = Path(params.__file__).parents[1] / "methods"
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


# A method at a layer, what is set otherwise than by the authors, and whether the maps have one order all the same.
ALIKE = [
    ("gradient", "gradient", "input", {"sign": "absolute"}, True),
    ("gradient", "gradient", "input", {"sign": "absolute", "channels": "sum"}, True),
    ("gradient", "gradient", "input", {"channels": "sum"}, False),
    ("gradient", "gradient", "input", {"sign": "absolute", "channels": "max_abs"}, False),
    ("masking", "occlusion", "input", {"channels": "abs_sum"}, False),
    ("path", "integrated_gradients", "final", {"steps": 3, "rule": "endpoints"}, True),
    ("path", "integrated_gradients", "final", {"steps": 3, "output": "loss"}, False),
    ("path", "integrated_gradients", "input", {"steps": 3}, False),
    ("relevance", "lrp", "final", {"epsilon": 2.0}, True),
    ("relevance", "lrp", "input", {"epsilon": 2.0}, True),
]


def pooled() -> torch.nn.Sequential:
    """A network that ends as ResNets do, in a mean and one linear layer."""
    torch.manual_seed(0)
    features = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3, padding=1), torch.nn.ReLU(), torch.nn.Conv2d(8, 8, 3))
    features.append(torch.nn.ReLU())
    head = torch.nn.Sequential(torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(), torch.nn.Linear(8, 4))
    return torch.nn.Sequential(OrderedDict(features=features, head=head))


@pytest.mark.parametrize(("family", "function", "layer", "changes", "alike"), ALIKE)
def test_settings_that_leave_the_order_of_maps_alone_are_not_named(family, function, layer, changes, alike):
    """The tops of maps say whether they do."""
    theirs = protocol.settings(function, layer, "resnet18")
    at = {"layer": layer} if "layer" in signature("methods", family, function).settings else {}
    images = torch.rand(3, 3, metrics.HEIGHT, metrics.WIDTH, generator=torch.Generator().manual_seed(0))
    asked = metrics.make_classifier(pooled().eval()), images, torch.tensor([0, 1, 2]), [0, 1, 2]
    entries, tops = [], []
    for own in (theirs, {**theirs, **changes}):
        options = {"channels": own["channels"], "reverse": None}
        set_to = {name: value for name, value in own.items() if name != "channels"} | at
        entries.append(Entry("methods", family, "one", function, set_to, options))
        maps = Explainer(entries[-1:], images, "float32", attributions).by("one")(*asked)
        tops.append(top_k(maps, levels=[50], form="strict")[0])
    # Where they are alike equal scores may be parted by rounding.
    assert (float((tops[0] != tops[1]).float().mean()) < 0.01) == alike
    assert (protocol.unlike_settings(entries[1], theirs, "resnet18") == []) == alike
    if alike and function != "gradient":
        assert len(protocol.unlike_settings(entries[1], theirs, "vgg11")) == len(changes)


def test_the_largest_channel_of_one_is_its_sum():
    theirs = protocol.settings("occlusion", "input", "vit_b_16")
    own = {name: value for name, value in theirs.items() if name != "channels"}
    for channels, said in (("max_abs", []), ("sum", ["channels: sum instead of abs_sum"])):
        ours = Entry("methods", "", "ours", "occlusion", own, {"channels": channels, "reverse": None})
        assert protocol.unlike_settings(ours, theirs, "vit_b_16") == said
