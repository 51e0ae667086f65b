"""The networks of torchvision as chains of named layers, with random weights."""

from collections import OrderedDict
from typing import Literal

from torch import nn
from torchvision import models
from torchvision.models.googlenet import BasicConv2d

from stages.networks._attention import transformer
from stages.study.problem import Problem

# The last child of torchvision's module that belongs to the features.
LAST = ("features", "layer4", "inception5b")


def torchvision(
    *,
    classes: int,
    name: Literal[
        "alexnet",
        "vgg11",
        "vgg16",
        "googlenet",
        "resnet18",
        "resnet50",
        "resnet152",
        "wide_resnet50_2",
        "densenet121",
        "densenet161",
        "mobilenet_v2",
        "efficientnet_b0",
        "convnext_tiny",
        "vit_b_16",
    ],
    side: int | None,
) -> nn.Sequential:
    """Build a network of torchvision, initialized as torchvision does, which computes what torchvision's does.

    Layers have torchvision's names: `features.layer4.1`, `head.fc`. No activation is in place.

    Args:
        classes: Logits.
        name: torchvision's name.
            alexnet: krizhevsky2014one. vgg: simonyan2015very. googlenet: szegedy2015going, without auxiliary heads.
            resnet: he2016deep. wide_resnet: zagoruyko2016wide. densenet: huang2017densely.
            mobilenet_v2: sandler2018mobilenetv2. efficientnet: tan2019efficientnet. convnext: liu2022convnet.
            vit: dosovitskiy2021image.
        side: Pixels of a side of the images that vit_b_16 is built for, a multiple of 16; null for all others. It
            averages n x n pixels of images that are n times as large.

    Returns:
        `features`: normalized images to the last spatial layer, with its normalization, ReLU or pooling; `head`:
        global average pooling, flattening and the rest. The parts of vit_b_16 meet before its last block, at tokens
        (image, 1 + row · column, width), and its attribute `grid` gives rows and columns.

    Raises:
        Problem: `side` is given to a network that takes any size, or does not suit vit_b_16.
    """
    if name == "vit_b_16":
        if side is None or side < 16 or side % 16:
            given = "null" if side is None else side
            raise Problem(f"torchvision: the setting 'side' is {given}, expected a multiple of 16 for {name}")
        network = transformer(models.vit_b_16(weights=None, num_classes=classes, image_size=side))
    elif side is not None:
        raise Problem(
            f"torchvision: the setting 'side' is {side}, expected null: {name} takes images of any size; "
            "only vit_b_16 is built for one"
        )
    else:
        more = {"aux_logits": False, "init_weights": True, "transform_input": False} if name == "googlenet" else {}
        network = _chained(models.get_model(name, weights=None, num_classes=classes, **more))
    for layer in network.modules():
        if hasattr(layer, "inplace"):
            layer.inplace = False
    return network


def _chained(network: nn.Module) -> nn.Sequential:
    """Make a chain of torchvision's module, and layers of the steps that only its forward knows."""
    for parent in list(network.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, BasicConv2d):  # its ReLU is a function, in place
                setattr(parent, name, nn.Sequential(OrderedDict(conv=child.conv, bn=child.bn, relu=nn.ReLU())))
    children = list(network.named_children())
    end = 1 + next(place for place, (name, _) in enumerate(children) if name in LAST)
    features = network.features if hasattr(network, "features") else nn.Sequential(OrderedDict(children[:end]))
    head = OrderedDict(avgpool=nn.AdaptiveAvgPool2d(1), flatten=nn.Flatten()) | dict(children[end:])
    if isinstance(network, models.DenseNet):
        features.add_module("relu5", nn.ReLU())
    if isinstance(network, models.ConvNeXt):
        del head["flatten"]  # its classifier normalizes first, then flattens
    return nn.Sequential(OrderedDict(features=features, head=nn.Sequential(head)))
