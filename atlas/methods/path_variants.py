"""Relatives of integrated gradients: paths that are not straight lines, and regions in place of pixels."""

import numpy as np
import torch
from torch import Tensor

from atlas.methods.shared.batches import pairs
from atlas.methods.shared.blur import blurred, profiles
from atlas.methods.shared.checks import check_at_least
from atlas.methods.shared.guide import check_guide
from atlas.methods.shared.guided import advance
from atlas.methods.shared.path import baselines, by_images, integrate
from atlas.methods.shared.regions import ranked, regions
from atlas.methods.shared.terms import Terms
from atlas.model.arrays import Attributions, Images, Targets
from atlas.model.batch_cache import shared
from atlas.model.classifier import Classifier
from atlas.study.errors import UserError
from atlas.study.schema.types import Baseline, Count, Floor, Output, Percentile, Positive, Rule, Share, Sign

ATTRS = {
    "guided_ig": {
        "long_name": "Guided IG",
        "units": "logit",
        "reference": "kapishnikov2021guided",
    },
    "blur_ig": {
        "long_name": "Blur IG",
        "units": "logit",
        "reference": "xu2020attribution",
    },
    "xrai": {
        "long_name": "XRAI",
        "units": "logit",
        "reference": "kapishnikov2019xrai",
    },
}

# The increase of the standard deviation, in pixels, for the numerical derivative of the blurred image.
RISE = 0.01


def guided_ig(
    classifier: Classifier,
    images: Images,
    targets: Targets,
    *,
    steps: Count,
    baseline: Baseline,
    fraction: Share,
    max_distance: Share,
    sign: Sign,
    output: Output,
    percentile: Percentile,
    floor: Floor,
) -> Attributions:
    """Integrate the gradient along a path that first changes the values with small gradients.

        A = W · Σₜ (xₜ₊₁ − xₜ) · ∇f(xₜ),    x₀ = b,    Σ|x − xₜ| = (1 − t/n) Σ|x − b|

    A step consists of moves. A move raises every value that lags behind the line by more than max_distance to that
    bound; then it moves the values of smallest |∇f(xₜ)|, a fraction of all, that have not reached the bound ahead of
    the line, to that bound, or as far towards it as the step goes.

    Args:
        steps: Number n of steps, one pass each.
        baseline: What stands for an absent image b; the blur is a Gaussian of a tenth of the shorter side.
        fraction: Share of values in a move, from 0 (one value) to 1.
        max_distance: How far a value may be off the line, as a share of the line, from 0 (on it) to 1 (anywhere).
        sign: The sign of products of step and gradient that counts; `both` is the method.
        percentile: The percentile of the variance of the n terms.

    Returns:
        Signed attributions in the output's unit. They sum to about f(x) − f(b), up to O(steps⁻¹) if the output is
        smooth: the gradient is taken at the start of a step. They are 0 where the image equals the baseline.

    Differs from PAIR: the baseline is given in intensities; a step ends if no value can move any more. Differs from the
    Guided AbsoluteGrad code, whose terms are moves, while a term here is a step: the variance is of fewer, larger
    terms.
    """
    check_at_least("guided_ig", "steps", steps, 1)
    check_guide("guided_ig", percentile, "steps", steps)
    for name, share in (("fraction", fraction), ("max_distance", max_distance)):
        if not 0 <= share <= 1:
            raise UserError(f"guided_ig: the setting '{name}' is {share}, expected 0 to 1")

    terms = _guided_path(classifier, images, targets, steps, baseline, fraction, max_distance, output)
    return terms.total(sign, percentile, floor)


def blur_ig(
    classifier: Classifier,
    images: Images,
    targets: Targets,
    *,
    steps: Count,
    max_sigma: Positive,
    sign: Sign,
    output: Output,
    percentile: Percentile,
    floor: Floor,
) -> Attributions:
    """Integrate the gradient along the path of increasingly blurred images.

        A = −W · (s/n) Σᵢ ∇f(x_σᵢ) · (x_{σᵢ + h} − x_σᵢ) / h,    σᵢ = i s / n,  i = 0 … n − 1,    h = 0.01

    x_σ is the image blurred by a Gaussian of standard deviation σ, cut off at 4 σ, with black beyond the border.

    Args:
        steps: Number n of points on the path, one pass each.
        max_sigma: Standard deviation s at the end of the path, in pixels.
        sign: `both` is the method; with `absolute`, the absolute values of the terms are added.
        percentile: The percentile of the variance of the n terms.

    Returns:
        Signed attributions in the output's unit. They sum to about f(x) − f(x_s), up to O(steps⁻¹) where the output
        is smooth along the path.

    Differs from the paper: σ, not its square, increases in equal steps, as in PAIR's code, which this formula follows.
    The Guided AbsoluteGrad code cuts its Gaussians off at 20 pixels.
    """
    check_at_least("blur_ig", "steps", steps, 1)
    if not max_sigma > 0:
        raise UserError(f"blur_ig: the setting 'max_sigma' is {max_sigma}, expected above 0")
    check_guide("blur_ig", percentile, "steps", steps)
    return _blurring(classifier, images, targets, steps, max_sigma, output).total(sign, percentile, floor)


def xrai(
    classifier: Classifier,
    images: Images,
    targets: Targets,
    *,
    steps: Count,
    rule: Rule,
    output: Output,
    dilation: int,
    min_pixels: Count,
) -> Attributions:
    """Assign to whole regions of the image the mean of their integrated gradients.

    The integrated gradients are the mean of those from black and from white, of which the largest value over channels
    is used. Regions are the segments of Felzenszwalb and Huttenlocher at scales 50, 100, 150, 250, 500 and 1200 (σ 0.8,
    at least 150 pixels) of the image at 224 × 224 pixels and a range from −1 to 1, dilated by a disk. Repeatedly, the
    region whose new pixels have the highest mean is added, and they get that mean; pixels in no region keep their own
    value.

    Args:
        steps: Points on each of the two lines, one pass each.
        dilation: Radius of the disk, in pixels of the image; 0 leaves the segments as they are.
        min_pixels: Regions that would add fewer pixels are skipped, at least 1.

    Returns:
        Signed attributions in the output's unit, one channel, constant over regions: their sum equals that of the
        pixels' own values.

    Differs from PAIR, whose baselines are uniformly the image's smallest and its largest value, and whose rule is
    `endpoints`.
    """
    check_at_least("xrai", "steps", steps, 1)
    check_at_least("xrai", "min_pixels", min_pixels, 1)
    if dilation < 0:
        raise UserError(f"xrai: the setting 'dilation' is {dilation}, expected at least 0")
    ends = images.new_tensor([0.0, 1.0]).view(2, 1, 1, 1).expand(2, *images.shape[1:])
    pixels = integrate(
        images,
        targets,
        lambda _, line: ends[line],
        by_images(classifier, output),
        lines=2,
        steps=steps,
        rule=rule,
        batch=classifier.batch,
    ).total("both", percentile=0, floor="raw")
    pixels = pixels / 2

    result = torch.empty_like(images[:, :1])
    for row, image in enumerate(images):
        if row == 0 or not torch.equal(image, images[row - 1]):  # the tiles of a grid share regions
            masks = regions(_array(image.movedim(0, -1)), dilation)
        result[row, 0] = torch.from_numpy(ranked(_array(pixels[row].amax(0)), masks, min_pixels)).to(images)
    return result


@shared(calls=2)
def _guided_path(
    classifier: Classifier,
    images: Images,
    targets: Targets,
    steps: int,
    baseline: Baseline,
    fraction: float,
    max_distance: float,
    output: str,
) -> Terms:
    terms = Terms(images.double(), guided=True)
    for first in range(0, len(images), classifier.batch):
        rows = slice(first, first + classifier.batch)
        part, classes = images[rows], targets[rows]
        starts, ends = baselines(classifier, part, baseline).double(), part.double()
        places = starts
        for step in range(1, steps + 1):
            gradients = classifier.gradient(places.to(part), classes, output)
            share = step / steps
            bounds = max(share - max_distance, 0.0), min(share + max_distance, 1.0)
            moved = advance(
                classifier, places, starts, ends, gradients.abs(), share=share, bounds=bounds, fraction=fraction
            )
            product = (moved - places) * gradients
            terms.add(rows, step - 1, product.clamp(min=0), product.clamp(max=0))
            places = moved
    return terms


@shared(calls=2)
def _blurring(
    classifier: Classifier, images: Images, targets: Targets, steps: int, max_sigma: float, output: str
) -> Terms:
    sigmas = [step * max_sigma / steps for step in range(steps)]
    length = max(images.shape[-2:])
    low = profiles(sigmas, length).to(images.device)
    high = profiles([sigma + RISE for sigma in sigmas], length).to(images.device)

    terms = Terms(images, guided=True)
    for batch in pairs(len(images), steps, classifier.batch):
        rows, numbers = ([pair[place] for pair in batch] for place in (0, 1))
        points, risen = (blurred(classifier, images[rows], weights[numbers]) for weights in (low, high))
        slopes = ((points - risen) * (max_sigma / steps / RISE)).to(images)
        found = classifier.gradient(points.to(images), targets[rows], output)
        for row, number, slope, gradient in zip(rows, numbers, slopes, found, strict=True):
            terms.add(row, number, slope * gradient.clamp(min=0), slope * gradient.clamp(max=0))
    return terms


def _array(tensor: Tensor) -> np.ndarray:
    return tensor.cpu().numpy()
