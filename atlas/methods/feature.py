"""Methods that perturb a layer's features and observe the output, or hide parts of the image by them.

Aₖ is feature k, Aᵢⱼ all features at row i and column j, f the target's logit. Masked images take passes of the whole
network, perturbed features passes of the part after the layer: `final` (the last spatial one), `input`, or the path of
a module. Maps have the layer's size. None is scaled to [0, 1], unlike in the common packages and the authors' scripts.
"""

from typing import Literal

import torch
from torch import Tensor

from atlas.methods.shared.checks import check_at_least
from atlas.methods.shared.masks.cells import averaged, check_cells, mask_maker, stacked
from atlas.methods.shared.masks.feature import (
    clean_features,
    head_probabilities,
    kernel,
    logits_without,
    mask_noise,
    masked_logits,
    score_weighted,
    softmax_weighted,
)
from atlas.methods.shared.masks.windows import covering, spread_over
from atlas.model.arrays import Features, Images, LayerAttributions, Seeds, Targets
from atlas.model.classifier import Classifier
from atlas.study.schema.types import Color, Count, Layer, NotNegative, Order, Seed, SomeShare

ATTRS = {
    "scorecam": {
        "long_name": "Score-CAM",
        "units": "activation",
        "reference": "wang2020scorecam",
    },
    "ss_cam": {
        "long_name": "SS-CAM",
        "units": "activation",
        "reference": "wang2020sscam",
    },
    "is_cam": {
        "long_name": "IS-CAM",
        "units": "activation",
        "reference": "naidu2020iscam",
    },
    "ablation_cam": {
        "long_name": "Ablation-CAM",
        "units": "activation",
        "reference": "desai2020ablationcam",
    },
    "recipro_cam": {
        "long_name": "Recipro-CAM",
        "units": "probability",
        "reference": "byun2022reciprocam",
    },
    "rise_features": {
        "long_name": "RISE on features",
        "units": "probability",
        "reference": "petsiuk2018rise, rao2022towards",
    },
    "occlusion_features": {
        "long_name": "Occlusion of features",
        "units": "logit",
        "reference": "zeiler2014visualizing, rao2022towards",
    },
}


def scorecam(
    classifier: Classifier,
    images: Images,
    targets: Targets,
    *,
    order: Order,
    fill: Color,
    layer: Layer,
) -> LayerAttributions:
    """Weight the features by the target's logit when only the parts of the image where they are active are shown.

        ReLU(Σₖ wₖ Aₖ),    w = softmaxₖ f(x · Mₖ + fill · (1 − Mₖ)),    Mₖ = Aₖ scaled to [0, 1] and enlarged

    Every feature takes a pass, besides the one that computes them. A constant feature has the mask 0: it hides the
    whole image, and has its share of the softmax.

    Args:
        fill: What replaces hidden pixels; `mean` corresponds to masking the normalized image, as all common code does.
        layer: The layer of the features.

    Returns:
        Maps of at least 0; where no feature is negative, averages of the features, as weights sum to 1.

    Differs from the paper: the logit of the whole image is not subtracted, as the softmax would cancel it. The paper
    scales at the image's size (`enlarge_first`), TorchCAM at the features' (`normalize_first`).
    """
    logits = masked_logits(classifier, images, targets, None, 1, order, fill, layer, lambda masks, *_: masks)
    return softmax_weighted(classifier, images, layer, logits)


def ss_cam(
    classifier: Classifier,
    images: Images,
    targets: Targets,
    seeds: Seeds,
    *,
    samples: Count,
    deviation: NotNegative,
    order: Order,
    fill: Color,
    layer: Layer,
) -> LayerAttributions:
    """Weight the features as Score-CAM does, with logits averaged over noisy masks.

        ReLU(Σₖ wₖ Aₖ),    w = softmaxₖ (1/n) Σₛ f(x · (Mₖ + εₛₖ) + fill · (1 − Mₖ − εₛₖ)),    ε ~ N(0, deviation²)

    Noise is drawn separately for every pixel, feature and sample, and is the same for all colors of a pixel. Every
    feature takes n passes. A sample's noise does not depend on the number of samples.

    Args:
        samples: Number n of noisy masks per feature.
        deviation: Standard deviation of the noise; masks are in [0, 1] before it is added, and are not clipped.
        order, fill, layer: As in Score-CAM.

    Returns:
        Maps of at least 0. Without noise this is Score-CAM.

    Differs from the paper: noise is added to the enlarged mask, as in TorchCAM, and not to the features before.
    """
    check_at_least("ss_cam", "samples", samples, 1)
    check_at_least("ss_cam", "deviation", deviation, 0)
    channels = clean_features(classifier, images, layer)[0].shape[1]

    def noisy(masks: Tensor, rows: list[int], samples: list[int], features: list[int]) -> Tensor:
        return masks + deviation * mask_noise(masks, seeds, rows, samples, features, channels)

    logits = masked_logits(classifier, images, targets, seeds, samples, order, fill, layer, noisy)
    return softmax_weighted(classifier, images, layer, logits)


def is_cam(
    classifier: Classifier,
    images: Images,
    targets: Targets,
    *,
    samples: Count,
    ramp: Literal["cumulative", "linear"],
    order: Order,
    fill: Color,
    layer: Layer,
) -> LayerAttributions:
    """Weight the features as Score-CAM does, with logits averaged over masks of growing strength.

        ReLU(Σₖ wₖ Aₖ),    w = softmaxₖ (1/n) Σₛ f(x · cₛ Mₖ + fill · (1 − cₛ Mₖ)),    s = 1 … n

    Every feature takes n passes.

    Args:
        samples: Number n of strengths.
        ramp: cₛ = s/n (linear), or the sum of these up to s (cumulative), which is s(s + 1)/2n and exceeds 1.
        order, fill, layer: As in Score-CAM.

    Returns:
        Maps of at least 0. With one sample this is Score-CAM.

    Differs from the paper: `cumulative` is TorchCAM's reading of its sum; `linear` keeps masked images between the
    fill and the image.
    """
    check_at_least("is_cam", "samples", samples, 1)
    strengths = [(s + 1) / samples * {"linear": 1, "cumulative": (s + 2) / 2}[ramp] for s in range(samples)]

    def weakened(masks: Tensor, _: list[int], numbers: list[int], __: list[int]) -> Tensor:
        return masks * torch.tensor([strengths[number] for number in numbers]).to(masks).view(-1, 1, 1, 1)

    logits = masked_logits(classifier, images, targets, None, samples, order, fill, layer, weakened)
    return softmax_weighted(classifier, images, layer, logits)


def ablation_cam(
    classifier: Classifier, images: Images, targets: Targets, *, divisor: Literal["logit", "magnitude"], layer: Layer
) -> LayerAttributions:
    """Weight the features by how much the target's logit drops without them.

        ReLU(Σₖ wₖ Aₖ),    wₖ = (f(A) − f(A with Aₖ = 0)) / f(A)

    Takes a pass of the part after the layer for every feature, and one for all features together.

    Args:
        divisor: f(A), with which the map for a negative logit shows what counts against the target, or |f(A)|.
        layer: The layer of the features.

    Returns:
        Maps of at least 0. If the logit is 0, drops are not divided; one near 0 scales the whole map up.

    Differs from pytorch-grad-cam, which uses a huge negative number instead of 0 if any feature is negative.
    """
    features, bypass = clean_features(classifier, images, layer)

    def shares(logits: Tensor) -> Tensor:
        whole = logits[:, -1:]
        return (whole - logits[:, :-1]) / (whole.abs() if divisor == "magnitude" else whole).where(whole != 0, 1.0)

    places = [(channel,) for channel in range(features.shape[1])]
    logits = logits_without(classifier, features, bypass, targets, places, layer)
    return score_weighted(classifier, features, shares, logits)


def recipro_cam(
    classifier: Classifier, images: Images, targets: Targets, *, spread: bool, layer: Layer
) -> LayerAttributions:
    """Keep the features of one location at a time and take the target's probability.

        prob(A · 1[at i j]),    with spread prob(Aᵢⱼ · K around i j),    K = (1 2 1; 2 4 2; 1 2 1)/16

    Takes a pass of the part after the layer for every location.

    Args:
        spread: Whether the location's features are spread over its neighbors by K, cut off at the border.
        layer: The layer of the features.

    Returns:
        Attributions in (0, 1), one channel; nearly constant if no single location affects the probability.
    """
    features, bypass = clean_features(classifier, images, layer)
    height, width = features.shape[-2:]
    down, across = (kernel(side, spread).to(features) for side in (height, width))

    def isolate(copies: Features, numbers: list[int]) -> Features:
        rows, columns = [number // width for number in numbers], [number % width for number in numbers]
        vectors = copies[list(range(len(copies))), :, rows, columns]
        return vectors[:, :, None, None] * down[rows][:, None, :, None] * across[columns][:, None, None, :]

    found = head_probabilities(classifier, features, bypass, targets, layer, height * width, isolate)
    return found.view(-1, 1, height, width)


def rise_features(
    classifier: Classifier,
    images: Images,
    targets: Targets,
    *,
    masks: Count,
    cells: Count,
    probability: SomeShare,
    seed: Seed,
    layer: Layer,
) -> LayerAttributions:
    """Average random masks of the features, weighted by the target's probability with all other features set to 0.

        (1/(n p)) Σᵢ prob(A · Mᵢ) Mᵢ

    Masks are those of RISE at the size of the features, the same for all features and images. Takes a pass of the part
    after the layer for every mask.

    Args:
        masks: Number n of masks.
        cells: Cells along a side; with more cells than locations, each location is on or off almost independently.
        probability: Probability p that a cell is on.
        seed: Seed of the masks.
        layer: The layer of the features.

    Returns:
        Attributions of at least 0, one channel: for n → ∞ about the expected probability given that the location is on.

    Differs from RISE, which hides pixels of the image.
    """
    check_cells("rise_features", masks, cells, probability)
    features, bypass = clean_features(classifier, images, layer)
    make = mask_maker(features, masks, cells, probability, seed)

    def hide(copies: Features, numbers: list[int]) -> Features:
        copies *= stacked(make, numbers)
        return copies

    probabilities = head_probabilities(classifier, features, bypass, targets, layer, masks, hide)
    return averaged(make, probabilities, probability)


def occlusion_features(
    classifier: Classifier, images: Images, targets: Targets, *, window: Count, stride: Count, layer: Layer
) -> LayerAttributions:
    """Set square windows of the features to 0, one at a time, and spread the drop of the target's logit over each.

        Σ_v (f(A) − f(A with v 0)) / |v| · 1[in v]

    Windows overhang the border, like those of occlusion; |v| counts the existing locations of a window. Takes a pass of
    the part after the layer for every window, and one without any.

    Args:
        window: Side of the window in locations.
        stride: Distance between neighboring windows, at most window.
        layer: The layer of the features.

    Returns:
        Signed attributions in logits, one channel, which add up to the sum of all drops. With window and stride 1,
        before global average pooling and a linear layer, this is CAM/hw.
    """
    features, bypass = clean_features(classifier, images, layer)
    windows = covering("occlusion_features", tuple(features.shape[-2:]), window, stride)
    places = [(slice(None), *place) for place in windows]
    logits = logits_without(classifier, features, bypass, targets, places, layer)
    return spread_over(windows, logits[:, -1:] - logits[:, :-1], features)
