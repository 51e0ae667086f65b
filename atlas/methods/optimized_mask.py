"""Methods that optimize a mask that hides, or keeps, the parts of the image that show a class."""

from typing import Annotated

import cv2
import numpy as np
import torch
from torch import Tensor

from atlas.methods.shared.batches import pairs
from atlas.methods.shared.blur import blurred, profiles
from atlas.methods.shared.checks import check_at_least
from atlas.methods.shared.masks.optimized import Pooling, Pyramid, largest
from atlas.model.arrays import Attributions, Images, Seeds, Targets
from atlas.model.batches import summed
from atlas.model.classifier import Classifier
from atlas.study import seeds as draws
from atlas.study.errors import UserError
from atlas.study.schema.types import GREATEST, Count, NotNegative, Positive, Range, Several, Shares

ATTRS = {
    "meaningful_perturbation": {
        "long_name": "Meaningful perturbation",
        "units": "1",
        "reference": "fong2017interpretable",
    },
    "extremal_perturbation": {
        "long_name": "Extremal perturbation",
        "units": "1",
        "reference": "fong2019understanding",
    },
}

# Adam's decay rates of the averages of gradients and of squared gradients, and the constant against division by 0.
KEPT, KEPT_SQUARES, FLOOR = 0.9, 0.999, 1e-8

# The authors' settings for extremal perturbation: learning rate, momentum, weight of the area and its growth per step.
RATE, MOMENTUM = 0.01, 0.9
AREA_WEIGHT, GROWTH = 300.0, 1.0035


def meaningful_perturbation(
    classifier: Classifier,
    images: Images,
    targets: Targets,
    seeds: Seeds,
    *,
    steps: Count,
    cells: Several,
    window: Count,
    area_weight: NotNegative,
    variation_weight: NotNegative,
    power: Annotated[float, Range(1, GREATEST)],
    noise: NotNegative,
    rate: Positive,
) -> Attributions:
    """Optimize a mask that lowers the target's probability by blurring as small and smooth a part as possible.

        A = 1 − M,    M = m enlarged,    m by Adam from 1 … 1, minimizing
        prob(x M + b (1 − M) + ε) + area_weight · mean |1 − m| + variation_weight · V(m),    ε ~ N(0, (noise · std)²)

    b is the median of the 8-bit image over a window, V(m) the mean of |difference|^power of vertically neighboring
    cells plus that of horizontally neighboring ones. A mask of cells × cells is enlarged bilinearly with corners
    aligned, and clamped to [0, 1] after every step. Every step has separate noise.

    Args:
        steps: Steps of Adam, one pass each; longer runs begin with the steps of shorter ones.
        cells: Cells along a side of m, at least 2.
        window: Side of the median's window in pixels, odd; border pixels are repeated beyond the border.
        area_weight: Weight of the hidden share.
        variation_weight: Weight of the variation V.
        power: Power of differences in V, at least 1.
        noise: Standard deviation of the noise, in units of the classifier's standard deviation.
        rate: Adam's learning rate: about how far a cell moves in a step.

    Returns:
        How much a pixel is hidden, 0 to 1, one channel. 0 everywhere if the probability does not depend on the image:
        |1 − m| has no gradient at a cell that is 1.

    Differs from the paper: there the image is shifted by some pixels instead of adding noise, the mask starts as a disk
    and is smoothed by a Gaussian when enlarged, and b is a Gaussian blur. Differs from common code: the map is not
    scaled to its own range.
    """
    check_at_least("meaningful_perturbation", "steps", steps, 1)
    for name, value, good, accepted in (
        ("cells", cells, cells >= 2, "at least 2"),
        ("window", window, window >= 1 and window % 2 == 1, "an odd number, at least 1"),
        ("area_weight", area_weight, area_weight >= 0, "at least 0"),
        ("variation_weight", variation_weight, variation_weight >= 0, "at least 0"),
        ("power", power, power >= 1, "at least 1"),
        ("noise", noise, noise >= 0, "at least 0"),
        ("rate", rate, rate > 0, "above 0"),
    ):
        _check("meaningful_perturbation", name, value, good, accepted)
    down, across = (_enlargement(cells, side).to(images) for side in images.shape[-2:])
    deviation = noise * classifier.std.view(-1, 1, 1)

    def enlarged(masks: Tensor) -> Tensor:
        return (_each(down, masks) @ masks @ _each(across.T, masks))[:, None]

    def slopes(masks: Tensor, gradients: Tensor) -> Tensor:
        # One product per row: in a single product for all rows, a row's bits may depend on its position.
        seen = _each(down.T, gradients) @ gradients @ _each(across, gradients)
        area = (masks - 1).sign() / masks[0].numel()
        return seen + area_weight * area + variation_weight * _variation_slopes(masks, power)

    found = []
    for first in range(0, len(images), classifier.batch):
        rows = slice(first, first + classifier.batch)
        part, classes, own = images[rows], targets[rows], seeds[rows]
        away = part - _medians(part, window)
        masks = images.new_ones(len(part), cells, cells)
        means, squares = torch.zeros_like(masks), torch.zeros_like(masks)
        for step in range(steps):
            shown = draws.normal(own, "meaningful_perturbation", step, tuple(part.shape[1:])).to(part)
            shown *= deviation
            shown += part
            shown -= (1 - classifier.batched(enlarged, masks)) * away
            gradients = classifier.gradient(shown, classes, "probability") * away
            slope = classifier.batched(slopes, masks, summed(gradients.unbind(1)))
            means = KEPT * means + (1 - KEPT) * slope
            squares = KEPT_SQUARES * squares + (1 - KEPT_SQUARES) * slope**2
            size = (squares / (1 - KEPT_SQUARES ** (step + 1))).sqrt() + FLOOR
            masks = (masks - rate / (1 - KEPT ** (step + 1)) * means / size).clamp(0, 1)
        found.append(1 - classifier.batched(enlarged, masks))
    return torch.cat(found)


def extremal_perturbation(
    classifier: Classifier,
    images: Images,
    targets: Targets,
    *,
    steps: Count,
    areas: Shares,
    stride: Count,
    sigma: Positive,
    smoothing: NotNegative,
) -> Attributions:
    """Optimize smooth masks of given areas that keep the target's logit highest, and add them up.

        A = g ∗ Σₐ Mₐ,    Mₐ from cells of 1 by ascent of f(x blurred by M) − λₜ mean (M − r)²,    λₜ = 300 · 1.0035ᵗ

    Cells lie a stride apart, starting at the first pixel. A mask is their smooth maximum: the mean of v = k(d) · cell
    with weights exp(20 v), over a window of ⌈sigma / stride⌉ + 1 cells to either side of the block of stride × stride
    pixels that contains the pixel; cells beyond the outermost count as 0. d is the distance from pixel to cell, and
    k(d) = exp(−2 max(d / sigma − ½, 0)²). Masks extend ⌈sigma / stride⌉ strides beyond the first and the last cell; for
    f, M is cropped to the image. r is 1 for the share a of pixels where M is largest, otherwise 0.
    M interpolates linearly between 8 Gaussian blurs, from 20, 120/7, … 20/7 pixels at M = 0 to none at M = 1, cut off
    at 4 standard deviations, with the classifier's mean color beyond the border. In the first and then in every second
    step, f gets the blurred image mirrored left to right.
    A step moves by 0.01 · s along s = 0.9 s + 0.1 · gradient (s = gradient at first); cells are then clamped to [0, 1].

    Args:
        steps: Steps, one pass each for every area; λ grows with them.
        areas: Areas a, as shares of the mask including its margin, above 0 and below 1.
        stride: Pixels from one cell to the next.
        sigma: Pixels over which a cell is spread.
        smoothing: Standard deviation of the Gaussian g, as a share of the image's shorter side; black beyond the
            border.

    Returns:
        Attributions of at least 0, one channel: without smoothing at most the number of areas.

    Differs from the paper, which pools over all cells. Differs from TorchRay's code: masks are those after the last
    step, not before it; pixels whose values of M agree to about 1e-5 and that straddle the share a share a mean r,
    where there the order of pixels decides; a margin is whole strides, as there if sigma is a multiple of the stride.
    """
    check_at_least("extremal_perturbation", "steps", steps, 1)
    check_at_least("extremal_perturbation", "stride", stride, 1)
    shares = len(areas) > 0 and all(0 < area < 1 for area in areas)
    for name, value, good, accepted in (
        ("areas", areas, shares, "shares above 0 and below 1, at least one"),
        ("sigma", sigma, sigma > 0, "above 0"),
        ("smoothing", smoothing, smoothing >= 0, "at least 0"),
    ):
        _check("extremal_perturbation", name, value, good, accepted)
    pooling = Pooling.of(images, stride, sigma)
    total = torch.zeros_like(images[:, :1])
    for batch in pairs(len(images), len(areas), classifier.batch):
        rows = [row for row, _ in batch]
        chosen = [areas[number] for _, number in batch]
        masks = _preserving_masks(
            classifier, pooling, Pyramid.of(classifier, images, rows), targets[rows], chosen, steps
        )
        for row, mask in zip(rows, masks, strict=True):
            total[row] += mask
    sides = images.shape[-2:]
    weights = profiles([smoothing * min(sides)], max(sides)).to(images.device)
    return blurred(classifier, total, weights.expand(len(total), -1)).to(images)


def _preserving_masks(
    classifier: Classifier, pooling: Pooling, pyramid: Pyramid, targets: Targets, areas: list[float], steps: int
) -> Tensor:
    """Optimize one mask per row of the pyramid, and crop it to the image."""
    height, width = pyramid.places.shape[-2:]
    top, left = pooling.image
    inside = (slice(None), slice(top, top + height), slice(left, left + width))

    def masks_of(cells: Tensor) -> Tensor:
        return torch.stack(pooling.masks(cells), dim=1)

    cells = pyramid.levels.new_ones(len(targets), *pooling.grid)
    pace = torch.zeros_like(cells)
    for step in range(steps):
        masks, sums = classifier.batched(masks_of, cells).unbind(1)
        shown, slopes = pyramid.at(masks[inside])
        mirrored = [3] if step % 2 == 0 else []
        slopes *= classifier.gradient(shown.flip(mirrored), targets, "logit").flip(mirrored)

        count = masks[0].numel()
        wanted = largest(masks, [max(1, count - int(count * (1 - area))) for area in areas])
        gradients = (wanted - masks) * (2 * AREA_WEIGHT * GROWTH**step / count)
        gradients[inside] += summed(slopes.unbind(1))
        climb = classifier.batched(pooling.cells, cells, masks, sums, gradients)
        pace = MOMENTUM * pace + (1 - MOMENTUM) * climb if step else climb
        cells = (cells + RATE * pace).clamp(0, 1)
    return classifier.batched(masks_of, cells)[:, 0][inside]


def _enlargement(cells: int, side: int) -> Tensor:
    """Return the matrix that enlarges a row of cells bilinearly, with the outer cells at the outer pixels."""
    places = np.linspace(0, cells - 1, side)
    return torch.from_numpy(np.maximum(1 - np.abs(places[:, None] - np.arange(cells)), 0))


def _each(matrix: Tensor, rows: Tensor) -> Tensor:
    return matrix.expand(len(rows), -1, -1)


def _medians(images: Images, window: int) -> Images:
    """Take the median of each channel separately: OpenCV handles several at once only for some numbers of channels."""
    planes = (images * 255).round().clamp(0, 255).byte().flatten(0, 1).cpu().numpy()
    medians = np.stack([cv2.medianBlur(plane, window) for plane in planes])
    return torch.from_numpy(medians).to(images).view_as(images) / 255


def _variation_slopes(masks: Tensor, power: float) -> Tensor:
    """Differentiate the sum of the means of |difference|^power of neighbors along y and along x."""
    total = torch.zeros_like(masks)
    for axis in (1, 2):
        gaps = masks.diff(dim=axis)
        # Not pow, which computes a tensor's last few values differently from the others.
        slopes = gaps.sign() * (gaps.abs().clamp(min=1e-30).log() * (power - 1)).exp() * (power / gaps[0].numel())
        length = masks.shape[axis] - 1
        total.narrow(axis, 1, length).add_(slopes)
        total.narrow(axis, 0, length).sub_(slopes)
    return total


def _check(function: str, name: str, value: object, good: bool, accepted: str) -> None:
    if not good:
        raise UserError(f"{function}: the setting '{name}' is {value}, expected {accepted}")
