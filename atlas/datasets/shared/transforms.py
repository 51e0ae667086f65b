"""Find how torchvision or timm preprocess pictures for the evaluation of their weights."""

import math
from collections.abc import Callable
from importlib import import_module
from typing import Any, Literal

from atlas.study.errors import UserError

INTERPOLATIONS = ("bilinear", "bicubic", "nearest")


def transform(where: str, *, family: Literal["torchvision", "timm"], name: str, tag: str) -> dict[str, Any]:
    """Return the settings of `fitted` that reproduce a library's preprocessing for some weights, which are not read.

    Args:
        where: The entry of params.yaml.
        family: The library.
        name: Its name of the network.
        tag: Its name of the weights.

    Raises:
        UserError: the library is not installed or does not know them, or `fitted` cannot reproduce its preprocessing.
    """
    message = f"params.yaml: {where}: tag = {tag!r}"
    try:
        return LIBRARIES[family](name, tag, message)
    except ImportError as error:
        raise UserError(f"params.yaml: {where}: family = {family!r}: it cannot be imported ({error})") from None


def _torchvision(name: str, tag: str, message: str) -> dict[str, Any]:
    # Imported by name: a `fit` that consists of numbers must not depend on these libraries' versions (stages.versions).
    models = import_module("torchvision.models")
    if name not in models.list_models(module=models):
        raise UserError(f"{message}: torchvision has no network {name!r} that classifies")
    known = models.get_model_weights(name)
    if tag not in known.__members__:
        raise UserError(
            f"{message}: torchvision knows no such weights of {name}; it knows: {', '.join(known.__members__)}"
        )
    made = known[tag].transforms()
    return {
        "mode": "crop",
        "size": made.crop_size[0],
        "resize": made.resize_size[0],
        "interpolation": _known(made.interpolation.value, message),
    }


def _timm(name: str, tag: str, message: str) -> dict[str, Any]:
    timm, data = import_module("timm"), import_module("timm.data")
    known = [one.partition(".")[2] for one in timm.list_pretrained(f"{name}.*")]
    if tag not in known:
        raise UserError(f"{message}: timm knows no such weights of {name}; it knows: {', '.join(known) or 'none'}")
    about = timm.models.get_pretrained_cfg(f"{name}.{tag}").to_dict()
    return _of_timm(data.resolve_data_config(pretrained_cfg=about, use_test_size=True), message)


def _of_timm(about: dict[str, Any], message: str) -> dict[str, Any]:
    """Reproduce timm's `transforms_imagenet_eval` for the configuration of some weights."""
    _, height, width = about["input_size"]
    share, mode = about["crop_pct"], about["crop_mode"]
    if mode == "squash" and share == 1:
        sizes = {"mode": "squash", "size": height if height == width else [height, width], "resize": None}
    elif mode == "center" and height == width and share <= 1:
        sizes = {"mode": "crop", "size": height, "resize": math.floor(height / share)}
    else:
        given = f"crop_mode {mode!r} with crop_pct {share:g} to {height} x {width} pixels"
        expected = "expected 'center' to a square, or 'squash' with 1; give mode and size yourself"
        raise UserError(f"{message}: timm prepares its pictures by {given}: {expected}")
    return {**sizes, "interpolation": _known(about["interpolation"], message)}


def _known(interpolation: str, message: str) -> str:
    if interpolation not in INTERPOLATIONS:
        expected = f"expected one of {', '.join(INTERPOLATIONS)}; give mode and size yourself"
        raise UserError(f"{message}: its pictures are resized by the interpolation {interpolation!r}: {expected}")
    return interpolation


LIBRARIES: dict[str, Callable[[str, str, str], dict[str, Any]]] = {"torchvision": _torchvision, "timm": _timm}
