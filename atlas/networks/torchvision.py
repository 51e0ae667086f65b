"""The networks of torchvision, with random weights."""

from difflib import get_close_matches

from torch import nn
from torchvision import models

from atlas.networks.shared.adapted import sized
from atlas.networks.shared.construct import construct
from atlas.study.errors import UserError


def torchvision(*, classes: int, name: str, side: int | None, settings: dict) -> nn.Module:
    """Build a network of torchvision, as torchvision does, with its names of layers and weights.

    Args:
        classes: Number of logits.
        name: torchvision's name of a classification network.
            alexnet: krizhevsky2014one. vgg: simonyan2015very. googlenet: szegedy2015going, without auxiliary heads.
            resnet: he2016deep. wide_resnet: zagoruyko2016wide. densenet: huang2017densely.
            mobilenet_v2: sandler2018mobilenetv2. efficientnet: tan2019efficientnet. convnext: liu2022convnet.
            vit: dosovitskiy2021image.
        side: Side in pixels of the images that a vision transformer (vit) is built for, a multiple of its patch size;
            null for all others. Images that are n times as large are reduced by averaging n x n pixels.
        settings: Further arguments of torchvision's function. For torchvision's own weights, googlenet and inception_v3
            need `transform_input: true`.

    Raises:
        UserError: torchvision has no such network or does not take the settings, or `side` does not suit it.
    """
    known = models.list_models(module=models)
    if name not in known:
        near = ", ".join(get_close_matches(name, known, 5)) or ", ".join(known)
        raise UserError(
            f"torchvision: the setting 'name' is {name!r}: torchvision has no such network; near it: {near}"
        )
    transformer = name.startswith("vit_")
    patch = int(name.rpartition("_")[2]) if transformer else 1
    if transformer and (side is None or side < patch or side % patch):
        stated = "null" if side is None else side
        raise UserError(f"torchvision: the setting 'side' is {stated}, expected a multiple of {patch} for {name}")
    if not transformer and side is not None:
        raise UserError(
            f"torchvision: the setting 'side' is {side}, expected null for {name}: "
            "only vision transformers (vit) take it"
        )
    given = {**({"image_size": side} if transformer else {}), **settings, "num_classes": classes, "weights": None}
    if name in ("googlenet", "inception_v3"):
        given = {"aux_logits": False, "init_weights": True, "transform_input": False, **given}
    network = construct(f"torchvision: name = {name!r}:", models.get_model_builder(name), given)
    return network if side is None else sized(network, side)
