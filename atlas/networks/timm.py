"""The networks of timm, with random weights."""

from difflib import get_close_matches

from torch import nn

from atlas.networks.shared.adapted import sized
from atlas.networks.shared.construct import construct
from atlas.study.errors import UserError


def timm(*, classes: int, name: str, settings: dict) -> nn.Module:
    """Build a network of timm, as timm does, with its names of layers and weights.

    Args:
        classes: Number of logits.
        name: timm's name, without a tag of weights.
        settings: Further arguments of `timm.create_model`, such as `img_size`. A network for one size averages n x n
            pixels of images that are n times as large.

    Raises:
        UserError: timm is not installed, has no such network, or does not take the settings.
    """
    try:
        from timm import create_model, is_model, list_models
    except ImportError:
        raise UserError("timm: the package timm is not installed") from None
    if not is_model(name):
        near = ", ".join(get_close_matches(name, list_models(), 5)) or "timm.list_models() names all"
        raise UserError(f"timm: the setting 'name' is {name!r}: timm has no such network; near it: {near}")
    given = {**settings, "model_name": name, "num_classes": classes, "pretrained": False}
    network = construct(f"timm: name = {name!r}:", create_model, given)
    patches = getattr(network, "patch_embed", None)
    side = getattr(patches, "img_size", None)
    strict = getattr(patches, "strict_img_size", False) and not getattr(network, "dynamic_img_size", False)
    return sized(network, side[0]) if strict and side is not None and side[0] == side[1] else network
