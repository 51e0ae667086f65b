"""Maps that are sums of terms which cancel are refused, and no others."""

from collections import OrderedDict

import pytest
import torch
from torch import nn
from torchvision.models.convnext import LayerNorm2d

from atlas.inputs.calls import attributions
from atlas.inputs.explain import Explainer
from atlas.methods import cam
from atlas.model.classifier import Classifier
from atlas.networks.residual import small_resnet
from atlas.study.errors import Unsupported
from atlas.study.params import entry

ENGINE = {"device": "cpu", "precision": "float32", "threads": 1, "batch": 8}
TARGETS = torch.tensor([0, 2, 1])


class Functional(nn.Module):
    def forward(self, features):
        return nn.functional.layer_norm(features.permute(0, 2, 3, 1), features.shape[1:2]).permute(0, 3, 1, 2)


class Root(nn.Module):
    """RMS normalization over the features of a place."""

    def __init__(self):
        super().__init__()
        self.norm = nn.RMSNorm(16)

    def forward(self, features):
        return self.norm(features.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


def pooled(*head: nn.Module) -> nn.Sequential:
    torch.manual_seed(0)
    features = nn.Sequential(nn.Conv2d(3, 16, 3, 2), nn.ReLU(), nn.Conv2d(16, 16, 3))
    whole = nn.Sequential(*head, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 5))
    return nn.Sequential(OrderedDict(features=features, head=whole)).eval()


CANCELLING = {
    "a layer normalization": lambda: pooled(LayerNorm2d(16, eps=1e-6)),
    "of large epsilon": lambda: pooled(LayerNorm2d(16, eps=1e-3)),
    "a function": lambda: pooled(Functional()),
    "a root mean square": lambda: pooled(Root()),
    "then a nonlinear layer": lambda: pooled(LayerNorm2d(16), nn.GELU(), nn.Conv2d(16, 16, 3)),
}
SOUND = {
    "pooled": lambda: pooled(),
    "convolution": lambda: pooled(nn.ReLU(), nn.Conv2d(16, 16, 3), nn.ReLU()),
    "pooled before the normalization": lambda: pooled(nn.AdaptiveAvgPool2d(1), LayerNorm2d(16)),
    "a shortcut": lambda: pooled(Shortcut()),
    "group normalization": lambda: pooled(nn.GroupNorm(1, 16)),
    "batch normalization": lambda: pooled(nn.BatchNorm2d(16)),
    "resnet": lambda: small_resnet(classes=5, widths=[8, 8], blocks=1),
    "relu6": lambda: pooled(nn.ReLU6()),
}


class Shortcut(nn.Module):
    def __init__(self):
        super().__init__()
        self.norm = LayerNorm2d(16)

    def forward(self, features):
        return features + self.norm(features)


def given(network, precision="float32"):
    classifier = Classifier("odd", network(), mean=[0.5] * 3, std=[0.2] * 3, engine={**ENGINE, "precision": precision})
    return classifier, torch.rand(3, 3, 24, 24, generator=torch.Generator().manual_seed(1)), TARGETS


AT = {"layer": "final", "output": "logit"}
MANY = {
    "input_x_gradient": ("gradient", {"baseline": "zero", **AT}),
    "integrated_gradients": ("path", {"steps": 4, "baseline": "zero", "rule": "midpoint", "sign": "both", **AT}),
}
SIGNED = ("gradient", {"sign": "both", **AT})


def summed(inputs, name, family, settings, channels="sum"):
    bound = entry("methods", family, name, {**settings, "channels": channels}, "tests")
    explain = Explainer([bound], inputs[1], "float32", attributions).by(name)
    return explain(*inputs, [0, 1, 2])


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("network", CANCELLING.values(), ids=CANCELLING)
def test_a_sum_that_cancels_is_refused(network, precision):
    inputs = given(network, precision)
    with pytest.raises(Unsupported, match="the terms of its sum over features cancel"):
        cam.hirescam(*inputs, layer="final")
    assert cam.layercam(*inputs, layer="final").any()
    assert cam.gradcam(*inputs, layer="final").any()
    for name, about in MANY.items():
        assert summed(inputs, name, *about, "abs_sum").any()
        with pytest.raises(Unsupported, match="the terms of its sum over features cancel"):
            summed(inputs, name, *about)


def test_a_sum_of_gradients_cancels_where_a_shift_changes_nothing():
    for network in (CANCELLING["a layer normalization"], SOUND["pooled before the normalization"]):
        inputs = given(network)
        with pytest.raises(Unsupported, match="the terms of its sum over features cancel"):
            summed(inputs, "gradient", *SIGNED)
        assert summed(inputs, "gradient", "gradient", {**SIGNED[1], "sign": "positive"}).any()


@pytest.mark.parametrize("network", SOUND.values(), ids=SOUND)
def test_a_sum_that_does_not_cancel_is_not_refused(network):
    torch.manual_seed(0)
    inputs = given(network)
    assert cam.hirescam(*inputs, layer="final").any()
    assert inputs[0].passes == {"forward": 3, "backward": 3, "head": 0}
    assert cam.gradcam(*inputs, layer="final").any()
    for name, about in MANY.items():
        assert summed(inputs, name, *about).any()
    if network is not SOUND["pooled before the normalization"]:
        assert summed(inputs, "gradient", *SIGNED).any()


def test_grad_cam_of_one_place_before_a_layer_normalization_is_refused():
    inputs = given(SOUND["pooled before the normalization"])
    with pytest.raises(Unsupported, match="the terms of its sum over features cancel"):
        cam.gradcam(*inputs, layer="head.0")
