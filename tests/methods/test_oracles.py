"""Every method against another's code of it, on networks of torchvision: one table, a row a variant of a method.

What no package has, or has wrong, is restated from its formula. What an oracle does otherwise, and how its side is made
to agree, stands with it in `tests/support/oracles/`. Maps are compared as the methods make them, coarse and unscaled;
random draws are the methods' own on both sides.
"""

from collections.abc import Callable
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
from torch import Tensor

from atlas import methods
from atlas.inputs.explain import mapped
from atlas.methods import (
    cam,
    cam_averaged,
    control,
    feature,
    gradient,
    masking,
    noise,
    optimized_mask,
    path,
    path_variants,
    relevance,
    superpixel,
)
from atlas.model import classifier, runtime
from atlas.model.classifier import Classifier
from atlas.study.schema.signatures import signature
from tests.support.oracles import captums as captum
from tests.support.oracles import cases, optimized, others, pairs, restated, restated_cams, restated_masks
from tests.support.oracles import gradcams as grad_cam
from tests.support.oracles import torchcams as torchcam

pytestmark = [
    pytest.mark.filterwarnings(f"ignore:{text}")
    for text in (
        "The set_(bad|over|under) function:PendingDeprecationWarning",  # SHAP, of matplotlib's
        "Setting backward hooks on ReLU",  # Captum
        "Setting forward, backward hooks",
    )
]

# Families whose oracles stand in tests of their own.
ELSEWHERE = ("attention",)

# Both sides run in double precision where a kink of ReLU must not be seen from two sides. Depthwise convolutions are
# slow in it: where many passes are taken of them they run in single precision, and maps may be 100 times as far apart.
DOUBLE, SINGLE = torch.float64, torch.float32
BOTH = {"resnet18": DOUBLE, "squeezenet1_1": DOUBLE}
# A linear layer on global average pooling, which squeezenet has not.
POOLED = {"resnet18": DOUBLE, "mobilenet_v2": DOUBLE}
# An early layer of few features, each of which takes a pass, or more; resnet has many and is slow.
SMALL = {"squeezenet1_1": DOUBLE, "mobilenet_v2": SINGLE}


class Row(NamedTuple):
    """A method with settings, the oracle that is given the same, and how near they are."""

    method: Callable[..., Tensor]
    settings: dict
    oracle: Callable[..., Tensor]
    tolerance: float
    """Largest difference in double precision, as a share of the oracle's largest value."""
    networks: dict[str, torch.dtype] = BOTH
    count: int = 2
    """Images; one is enough for a further variant."""
    rank: int = 0
    """Of the explained logit of the first image; 0 is the largest."""


INPUT = {"output": "logit", "layer": "input"}
NOISY = {"samples": 3, "spread": 0.15, "extent": "image", "output": "logit"}
GAG = {**NOISY, "sign": "absolute", "percentile": 85, "floor": "raw"}
LINE = {"steps": 3, "baseline": "black", "rule": "gauss_legendre", "sign": "both", **INPUT}
FREE = {"sign": "both", "output": "logit", "percentile": 0, "floor": "raw"}
RANDOM = {"steps": 3, "baselines": 2, "rule": "midpoint", **FREE}
GUIDED = {"steps": 4, "baseline": "black", "fraction": 0.25, "max_distance": 0.1, **FREE}
BLURRED = {"steps": 3, "max_sigma": 12.0, **FREE}
REGIONS = {"steps": 3, "rule": "endpoints", "output": "logit", "dilation": 5, "min_pixels": 50}
FINAL, MIDDLE, NARROW = ({"layer": layer} for layer in ("final", "middle", "narrow"))
SMOOTH = {"samples": 3, "deviation": 0.3, **MIDDLE}
TRAVELED = {"steps": 3, "baseline": "black", "difference": False, **MIDDLE}
EXPECTED = {"samples": 3, "difference": "latent", "smoothing": "uniform", "scale": 0.5, **MIDDLE}
SCORED = {"order": "normalize_first", "fill": "mean", **NARROW}
RISE = {"masks": 8, "cells": 4, "probability": 0.4, "seed": 3}
LIME = {"samples": 18, "superpixels": 14, "compactness": 10.0, "sigma": 1.0, "width": 0.25, "fill": "black"}
MEANINGFUL = {"steps": 6, "cells": 5, "window": 5, "area_weight": 0.01, "variation_weight": 0.2, "power": 3.0}
MEANINGFUL |= {"noise": 0.2, "rate": 0.1}
EXTREMAL = {"steps": 8, "areas": [0.1, 0.3], "stride": 16, "sigma": 16.0, "smoothing": 0.05}

TABLE = [
    Row(gradient.gradient, {"sign": "both", **INPUT}, captum.gradient, 1e-6),
    Row(gradient.gradient, {**INPUT, "sign": "absolute", "output": "probability"}, captum.gradient, 5e-6),
    Row(gradient.gradient, {**MIDDLE, "sign": "positive", "output": "loss"}, captum.gradient, 5e-6),
    Row(gradient.gradient, {**INPUT, "sign": "negative", "output": "loss"}, restated.gradient, 5e-6),
    Row(gradient.input_x_gradient, {"baseline": "black", **INPUT}, captum.input_x_gradient, 1e-6),
    Row(gradient.input_x_gradient, {**INPUT, "baseline": "zero", **MIDDLE}, captum.input_x_gradient, 1e-6),
    Row(gradient.guided_backprop, {"sign": "positive", "layer": "input"}, captum.guided_backprop, 1e-6),
    Row(gradient.guided_backprop, {"sign": "positive", **MIDDLE}, captum.guided_backprop, 1e-6),
    Row(gradient.guided_backprop, {"sign": "absolute", "layer": "input"}, restated.guided_backprop, 1e-6),
    # Squeezenet ends in a ReLU, behind which no gradient of its pooling is negative.
    Row(
        gradient.guided_backprop,
        {"sign": "negative", "layer": "input"},
        restated.guided_backprop,
        1e-6,
        {"resnet18": DOUBLE, "mnasnet0_5": DOUBLE},
    ),
    Row(noise.smoothgrad, {**NOISY, "sign": "both", "extent": "batch"}, captum.smoothgrad, 1e-6, count=1),
    Row(noise.smoothgrad, {**NOISY, "sign": "absolute", "output": "probability"}, captum.smoothgrad, 5e-6, count=1),
    Row(noise.smoothgrad, {**NOISY, "sign": "both"}, pairs.smoothgrad, 1e-6),
    Row(noise.smoothgrad_squared, NOISY, pairs.smoothgrad_squared, 1e-6),
    Row(noise.vargrad, NOISY, captum.vargrad, 1e-6),
    Row(noise.gag, GAG, restated.gag, 1e-6),
    Row(noise.gag, {**GAG, "percentile": 40, "floor": "minmax"}, restated.gag, 1e-6, count=1),
    Row(noise.gag, {**GAG, "extent": "batch", "sign": "both", "floor": "zero"}, restated.gag, 1e-6, count=1),
    Row(path.integrated_gradients, LINE, captum.integrated_gradients, 1e-6),
    Row(
        path.integrated_gradients,
        {**LINE, "baseline": "mean", "rule": "midpoint", "output": "probability"},
        captum.integrated_gradients,
        1e-6,
        count=1,
    ),
    Row(path.integrated_gradients, {**LINE, "baseline": "zero", **MIDDLE}, captum.integrated_gradients, 1e-6, count=1),
    Row(path.integrated_gradients, {**LINE, "rule": "endpoints"}, pairs.integrated_gradients, 1e-6),
    Row(
        path.integrated_gradients,
        {**LINE, "baseline": "blur", "rule": "midpoint", "sign": "absolute"},
        restated.integrated_gradients,
        1e-6,
        count=1,
    ),
    Row(path.integrated_gradients_random, RANDOM, captum.integrated_gradients_random, 1e-6),
    Row(
        path.integrated_gradients_random,
        {**RANDOM, "rule": "endpoints", "sign": "absolute", "output": "loss", "percentile": 85},
        restated.integrated_gradients_random,
        5e-6,
        count=1,
    ),
    Row(path.expected_gradients, {"samples": 4, "output": "logit"}, others.expected_gradients, 1e-6),
    Row(path_variants.guided_ig, GUIDED, pairs.guided_ig, 1e-6),
    Row(path_variants.blur_ig, BLURRED, pairs.blur_ig, 1e-6),
    Row(
        path_variants.blur_ig,
        {**BLURRED, "sign": "absolute", "percentile": 60, "floor": "minmax"},
        restated.blur_ig,
        1e-6,
        count=1,
    ),
    Row(path_variants.xrai, REGIONS, pairs.xrai, 1e-6, count=1),
    Row(cam.cam, {"rectified": False, **FINAL}, torchcam.cam, 1e-6, POOLED),
    Row(cam.cam, {"rectified": False, **FINAL}, restated_cams.cam, 1e-6, POOLED),
    Row(cam.gradcam, FINAL, grad_cam.gradcam, 1e-6, {**BOTH, **POOLED}),
    Row(cam.gradcam, MIDDLE, captum.gradcam, 1e-6),
    Row(cam.gradcam_pp, {"form": "paper", **MIDDLE}, grad_cam.gradcam_pp, 1e-6),
    Row(cam.gradcam_pp, {"form": "paper", **FINAL}, restated_cams.gradcam_pp, 1e-6, {**BOTH, **POOLED}),
    Row(cam.gradcam_pp, {"form": "torchcam", **MIDDLE}, torchcam.gradcam_pp, 1e-6),
    Row(cam.hirescam, MIDDLE, grad_cam.hirescam, 1e-6),
    Row(cam.xgradcam, MIDDLE, torchcam.xgradcam, 1e-6),
    Row(cam.xgradcam, FINAL, grad_cam.xgradcam, 1e-6, {**BOTH, **POOLED}),
    Row(cam.layercam, MIDDLE, torchcam.layercam, 1e-6),
    Row(cam.layercam, NARROW, grad_cam.layercam, 1e-6),
    Row(cam.eigencam, FINAL, grad_cam.eigencam, 1e-6),
    Row(cam.eigencam, MIDDLE, grad_cam.eigencam, 1e-6, {**BOTH, **POOLED}),
    Row(cam.guided_gradcam, MIDDLE, captum.guided_gradcam, 1e-6),
    # Its denominators nearly cancel, the paper's less so.
    Row(cam_averaged.smooth_gradcam_pp, {"form": "torchcam", **SMOOTH}, torchcam.smooth_gradcam_pp, 1e-4),
    Row(cam_averaged.smooth_gradcam_pp, {"form": "paper", **SMOOTH}, restated_cams.smooth_gradcam_pp, 1e-6),
    Row(cam_averaged.integrated_gradcam, TRAVELED, restated_cams.integrated_gradcam, 1e-6),
    Row(
        cam_averaged.integrated_gradcam,
        {**TRAVELED, "baseline": "mean", "difference": True, **FINAL},
        restated_cams.integrated_gradcam,
        1e-6,
        count=1,
    ),
    Row(cam_averaged.expected_gradcam, EXPECTED, restated_cams.expected_gradcam, 1e-6),
    Row(
        cam_averaged.expected_gradcam,
        {**EXPECTED, "difference": "image", "smoothing": "gaussian", **FINAL},
        restated_cams.expected_gradcam,
        1e-6,
        count=1,
    ),
    Row(feature.scorecam, SCORED, torchcam.scorecam, 1e-6, SMALL),
    Row(feature.scorecam, SCORED, torchcam.scorecam, 1e-6, {"resnet18": SINGLE}, count=1),
    Row(feature.scorecam, {**SCORED, "fill": "black"}, torchcam.scorecam, 1e-6, SMALL, count=1),
    Row(feature.scorecam, {**SCORED, "order": "enlarge_first"}, grad_cam.scorecam, 1e-6, SMALL),
    Row(
        feature.scorecam,
        {**SCORED, "order": "enlarge_first", "fill": "black"},
        restated_masks.scorecam,
        1e-6,
        SMALL,
        count=1,
    ),
    Row(feature.ss_cam, {"samples": 2, "deviation": 2.0, **SCORED}, torchcam.ss_cam, 1e-6, SMALL, count=1),
    Row(feature.is_cam, {"samples": 2, "ramp": "cumulative", **SCORED}, torchcam.is_cam, 1e-6, SMALL, count=1),
    Row(feature.is_cam, {"samples": 2, "ramp": "linear", **SCORED}, restated_masks.is_cam, 1e-6, SMALL, count=1),
    # A method's logits are of single precision, and drops are their small differences.
    Row(feature.ablation_cam, {"divisor": "logit", **FINAL}, grad_cam.ablation_cam, 2e-4),
    # Squeezenet has no negative logit.
    Row(
        feature.ablation_cam,
        {"divisor": "magnitude", **FINAL},
        restated_masks.ablation_cam,
        2e-4,
        POOLED,
        count=1,
        rank=2,
    ),
    Row(feature.recipro_cam, {"spread": False, **MIDDLE}, restated_masks.recipro_cam, 5e-6),
    Row(feature.recipro_cam, {"spread": True, **FINAL}, restated_masks.recipro_cam, 5e-6),
    Row(feature.rise_features, {**RISE, **MIDDLE}, restated_masks.rise_features, 5e-6),
    Row(feature.occlusion_features, {"window": 2, "stride": 1, **MIDDLE}, captum.occlusion_features, 5e-6),
    Row(masking.occlusion, {"window": 32, "stride": 16, "fill": "mean"}, captum.occlusion, 5e-6, {**BOTH, **SMALL}),
    Row(masking.occlusion, {"window": 32, "stride": 16, "fill": "black"}, captum.occlusion, 5e-6, SMALL),
    Row(masking.rise, {**RISE, "fill": "mean"}, restated_masks.rise, 5e-6),
    Row(masking.rise, {**RISE, "cells": 7, "fill": "black"}, restated_masks.rise, 5e-6, SMALL),
    Row(superpixel.lime, LIME, others.lime, 5e-6),
    Row(superpixel.lime, {**LIME, "fill": "mean"}, others.lime, 5e-6, SMALL, count=1),
    Row(optimized_mask.meaningful_perturbation, MEANINGFUL, optimized.meaningful_perturbation, 1e-5, count=1),
    Row(optimized_mask.extremal_perturbation, EXTREMAL, optimized.extremal_perturbation, 1e-5, count=1),
    Row(relevance.lrp, {"epsilon": 0.25, "layer": "input"}, others.lrp, 1e-6),
    Row(relevance.lrp, {"epsilon": 1e-6, **MIDDLE}, others.lrp, 1e-6),
    # Captum's maxima lose a part of the change, and it cannot follow resnet's ReLU, which is called twice.
    Row(
        relevance.deep_lift,
        {"baseline": "black"},
        captum.deep_lift,
        1e-6,
        {"mobilenet_v2": DOUBLE, "mnasnet0_5": DOUBLE},
    ),
    Row(control.canny, {"sigma": 1.0}, others.canny, 0, {}),
    Row(control.intensity, {}, others.intensity, 1e-6, {}),
    Row(control.center, {"sigma": 0.25}, restated.center, 1e-6, {}),
    Row(control.uniform, {}, restated.uniform, 0, {}),
]
PAIRS = [(row, network) for row in TABLE for network in row.networks or ("",)]


def named(row: Row, network: str) -> str:
    return "-".join([row.method.__name__, row.oracle.__module__.rpartition(".")[2], network])


@pytest.fixture(autouse=True)
def _double_precision_is_known(monkeypatch):
    monkeypatch.setitem(classifier.DTYPES, "float64", DOUBLE)
    runtime.start({"device": "cpu", "threads": 1})


@cache
def classified(case: cases.Case) -> Classifier:
    precision = str(cases.precision(case.network)).removeprefix("torch.")
    # Batches of three: an image that is to fail, and two.
    engine = {"device": "cpu", "precision": precision, "threads": 1, "batch": 3 if precision == "float64" else 16}
    return Classifier(case.name, case.copied().network, mean=cases.MEAN, std=cases.STD, engine=engine)


def attribute(method: Callable, case: cases.Case, settings: dict) -> tuple[Tensor, Tensor]:
    """Call a method as the verb does; give the map of the first image for another class, and those of the case."""
    images, targets = torch.cat([case.images[:1], case.images]), torch.cat([case.targets[:1] + 2, case.targets])
    seeds = [case.seeds[0], *case.seeds]
    given = {"classifier": classified(case), "background": case.background}
    given |= {"images": images, "targets": targets % cases.CLASSES, "seeds": seeds}
    inputs = signature("methods", method.__module__.rpartition(".")[2], method.__name__).inputs
    found = method(*(given[name] for name in inputs), **settings).double()
    return found[0], found[1:]


def error(found: Tensor, expected: Tensor) -> float:
    """The largest difference as a share of the largest value, where the oracle has one."""
    known = expected.isfinite()
    assert known.double().mean() > 0.2
    return float((found - expected)[known].abs().max() / expected[known].abs().max())


@pytest.mark.parametrize(("row", "network"), PAIRS, ids=[named(*pair) for pair in PAIRS])
def test_a_method_is_its_oracle_s(row, network):
    precision = row.networks.get(network, SINGLE)
    case = cases.case(network or "squeezenet1_1", precision, count=row.count, rank=row.rank)
    layers = cases.LAYERS[case.name]
    settings = {name: layers.get(value, value) if name == "layer" else value for name, value in row.settings.items()}
    wrong, found = attribute(row.method, case, settings)
    expected = row.oracle(case, **settings).double()
    tolerance = row.tolerance * (100 if network and precision == SINGLE else 1)
    assert expected.shape == found.shape
    errors = [error(*maps) for maps in zip(found, expected, strict=True)]
    assert max(errors) <= tolerance
    for one in found:
        assert one.max() - one.min() > 0.05 * one.abs().max()
    if network and row.method is not cam.eigencam:  # which knows no class
        assert error(wrong, expected[0]) > max(0.01, 100 * tolerance)


def test_every_method_has_an_oracle():
    families = {file.stem for file in Path(methods.__file__).parent.glob("[a-z]*.py")} - set(ELSEWHERE)
    every = {(family, name) for family in families for name in import_module(f"atlas.methods.{family}").ATTRS}
    assert every == {(row.method.__module__.rpartition(".")[2], row.method.__name__) for row in TABLE}


def test_a_network_or_two_is_missing_only_where_the_table_says_why():
    """Two networks for every method; all of a method's rows together."""
    served = {}
    for row in TABLE:
        served.setdefault(row.method, set()).update(row.networks)
    assert all(len(networks) > 1 for method, networks in served.items() if method.__module__ != control.__name__)


def scaled(maps: Tensor) -> Tensor:
    low, high = maps.amin((1, 2), keepdim=True), maps.amax((1, 2), keepdim=True)
    return (maps - low) / (high - low)


@pytest.mark.parametrize("network", BOTH)
def test_a_map_is_enlarged_as_by_opencv(network):
    """Scaling it before makes no difference to one that it is scaled after."""
    case = cases.case(network, DOUBLE)
    layer = cases.LAYERS[network]["middle"]
    classifier = classified(case)
    coarse = cam.gradcam(classifier, case.images, case.targets, layer=layer)
    side = (cases.HEIGHT, cases.WIDTH)
    found = mapped(coarse, classifier.batched, side, case.seeds, channels="sum", reverse=None)
    expected = grad_cam.shown(grad_cam.package.GradCAM, case, layer)[:, 0]
    torch.testing.assert_close(scaled(found).float(), expected, rtol=0, atol=2e-6)


@pytest.mark.filterwarnings("ignore:max_unpooling2d")  # Captum's, which is not deterministic
def test_captum_loses_change_in_maxima_that_deep_lift_keeps():
    """So the sum is what witnesses networks with maxima."""
    case = cases.case("squeezenet1_1", DOUBLE)
    with torch.no_grad():
        change = case.whole()(case.images) - case.whole()(torch.zeros_like(case.images))
    change = change.gather(1, case.targets[:, None])[:, 0]
    _, found = attribute(relevance.deep_lift, case, {"baseline": "black"})
    assert error(found.sum((1, 2, 3)), change) < 1e-5
    assert error(captum.deep_lift(case, baseline="black").sum((1, 2, 3)), change) > 0.01
