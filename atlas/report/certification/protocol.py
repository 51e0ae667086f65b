"""The protocol of the authors of the certificates (anani2025pixel), and how a study differs from it.

Settings of methods are those of the paper; where its code differs, published_caveats.csv says so.
"""

from typing import Any

from atlas.report.certification.certified_results import CORRECTED, Test, on_grids
from atlas.study.params import side
from atlas.study.schema.settings import Entry

# Votes and their tests, by the published code.
FORM, FIRST, REST, ALPHA, CORRECTION = "authors", 10, 90, 0.001, "bonferroni"
# Grids: the explained tile, tiles per side, and the score of a map without certified pixels.
TILE, TILES, EMPTY = 0, 2, "zero"
# Images and grids: how many, side of an image and of a tile in pixels, the explained class.
COUNT, SIDE, TARGET = 100, 224, "label"
# The function; it scores a grid as 0, or leaves it out, if nothing is certified important.
GAME = "certified_grid_pointing_game"

_GRADIENT = {"sign": "both", "output": "logit", "channels": "abs_sum"}
_GUIDED = {"sign": "positive", "channels": "abs_sum"}
_PRODUCT = {"output": "logit", "channels": "sum"}
_PATH = {"steps": 20, "rule": "gauss_legendre", "sign": "both", **_PRODUCT}
_LRP = {"epsilon": 0.25, "channels": "sum"}
_RISE = {"masks": 6000, "cells": 6, "probability": 0.1}
# By method and layer. The reduction of channels does not change a nonnegative map of one channel.
SETTINGS: dict[tuple[str, str], dict[str, Any]] = {
    ("gradient", "input"): _GRADIENT,
    ("gradient", "final"): _GRADIENT,
    ("guided_backprop", "input"): _GUIDED,
    ("guided_backprop", "final"): _GUIDED,
    ("input_x_gradient", "input"): {"baseline": "mean", **_PRODUCT},
    ("input_x_gradient", "final"): {"baseline": "zero", **_PRODUCT},
    ("integrated_gradients", "input"): {"baseline": "mean", **_PATH},
    ("integrated_gradients", "final"): {"baseline": "zero", **_PATH},
    ("lrp", "input"): _LRP,
    ("lrp", "final"): _LRP,
    ("rise", "input"): {**_RISE, "fill": "mean"},
    ("rise", "final"): _RISE,
    ("occlusion", "input"): {"window": 16, "stride": 8, "fill": "mean", "channels": "sum"},
    ("occlusion", "final"): {"window": 5, "stride": 2, "channels": "sum"},
    ("ablation_cam", "input"): {"divisor": "logit"},
    ("ablation_cam", "final"): {"divisor": "logit"},
    ("cam", "input"): {"rectified": True},
    ("cam", "final"): {"rectified": True},
    ("gradcam", "input"): {},
    ("gradcam", "final"): {},
    ("gradcam_pp", "input"): {"form": "paper"},
    ("gradcam_pp", "final"): {"form": "paper"},
    ("layercam", "input"): {},
    ("layercam", "final"): {},
}
# For a transformer, the absolute values over colors, and over a token's features, are summed.
TRANSFORMERS = {"vit_b_16"}
ABSOLUTE = {"channels": "abs_sum"}
OF_TRANSFORMERS: dict[tuple[str, str], dict[str, Any]] = {
    ("input_x_gradient", "input"): ABSOLUTE,
    ("input_x_gradient", "final"): ABSOLUTE,
    ("integrated_gradients", "input"): ABSOLUTE,
    ("integrated_gradients", "final"): ABSOLUTE,
    ("occlusion", "input"): ABSOLUTE,
}

# Methods whose maps have one channel, whatever the images have.
SINGLE = {"occlusion", "occlusion_features"}
# Convolutional networks that end in a mean over places and one linear layer: gradients of their features are constant.
LINEAR = {"resnet18", "wide_resnet50_2", "resnet152"}


def settings(method: str, layer: str, network: str) -> dict[str, Any]:
    """Return the settings of a published method at a layer of a network."""
    own = OF_TRANSFORMERS.get((method, layer), {}) if network in TRANSFORMERS else {}
    return {**SETTINGS[method, layer], **own}


def unlike_settings(ours: Entry, theirs: dict[str, Any], network: str) -> list[str]:
    """Return the settings of a method that differ from the authors' and affect the order of its maps."""
    own = {**ours.settings, **ours.options}
    plain = _plain(ours.function, own, network)
    wanted = _plain(ours.function, {**own, **theirs}, network)
    return [
        f"{name}: {_spelled(own[name])} instead of {_spelled(value)}"
        for name, value in theirs.items()
        if name in own and plain[name] != wanted[name]
    ]


def _plain(function: str, given: dict[str, Any], network: str) -> dict[str, Any]:
    """Normalize settings so that those with the same order of maps become equal."""
    found = dict(given)
    if function == "gradient":  # absolute values are taken by the method, or channel by channel
        if found["sign"] == "both" and found["channels"] != "sum":
            found["sign"] = "absolute"
        if found["sign"] == "absolute" and found["channels"] == "sum":
            found["channels"] = "abs_sum"
    if function in SINGLE and found["channels"] == "max_abs":
        found["channels"] = "abs_sum"
    if network in LINEAR and function == "lrp":
        found["epsilon"] = 0  # only one layer has this rule, which scales the whole map
    if network in LINEAR and function == "integrated_gradients" and found.get("layer") == "final":
        found |= {"steps": 1, "rule": "midpoint"} if found["output"] == "logit" else {}  # the mean of a constant
    return found


def differs(metric: Entry, test: Test, given: dict, classifier: str, method: list[str]) -> list[str]:
    """Return what a metric measures differently from the authors, the most important difference first.

    Args:
        metric: The entry of a metric of votes.
        test: One of its tests.
        given: The content of params.yaml.
        classifier: The classifier's name.
        method: The differences of the method itself.
    """
    about, of, tile = given["classifiers"][classifier], test.smoothing.settings, metric.options["tile"]
    form = [] if of["form"] == FORM else [f"form {of['form']}"]
    found = list(method)
    if on_grids(metric):
        group, tiles = "grids", about["grids"]["tiles_per_side"]
        form += [] if tile == TILE else ["all tiles" if tile is None else f"tile {tile}"]
        found += [] if tiles == TILES else [f"{tiles} × {tiles} tiles"]
    else:
        group, target = "images", about["images"]["target"]
        form += (
            []
            if target == TARGET or classifier in about["images"]["correct_by"]
            else [f"{target} explained instead of {TARGET}"]
        )
    if metric.function == GAME:
        found += [] if metric.settings["nothing"] == EMPTY else ["empty maps left out"]
    if (of["n0"], of["n"]) != (FIRST, REST):
        found.append(f"{of['n0']} + {of['n']} votes")
    found += [] if test.alpha == ALPHA else [f"α = {test.alpha:g}"]
    found += [] if test.correction == CORRECTION else [CORRECTED[test.correction] or "uncorrected"]
    asked = metric.options["count"] or COUNT, about[group]["count"] or COUNT
    count, pixels = min(test.smoothing.pictures[group], *asked), side(given, classifier)
    found += [] if count == COUNT else [f"{count} {group}"]
    found += (
        [] if pixels in (None, SIDE) else [f"{'tiles' if group == 'grids' else 'images'} of {pixels} × {pixels} pixels"]
    )
    return form + found


def _spelled(value: object) -> str:
    return str(value).lower()
