"""Methods that hide parts of the image and watch the output."""

from itertools import product
from typing import Literal

import torch

from stages.arrays import Attributions, Images, Targets
from stages.classifier import Classifier
from stages.methods._cells import mask_maker
from stages.methods._fill import color
from stages.methods._masking import answers
from stages.problem import Problem

ATTRS = {
    "occlusion": {
        "long_name": "Occlusion",
        "units": "logit",
        "reference": "zeiler2014visualizing",
    },
    "rise": {
        "long_name": "RISE",
        "units": "probability",
        "reference": "petsiuk2018rise",
    },
}


def occlusion(
    classifier: Classifier,
    images: Images,
    targets: Targets,
    *,
    window: int,
    stride: int,
    fill: Literal["black", "mean"],
) -> Attributions:
    """Hide one square window after another and spread the drop of the target's logit over it.

        A = Σ_v (f(x) − f(x with v filled)) / |v| · 1[in v]

    Windows overhang the border, so that every pixel is covered, and equally often where stride divides window; |v|
    counts the pixels of a window that lie in the image.

    Args:
        window: Side of the window in pixels.
        stride: Distance between neighboring windows, at most window.
        fill: What hides a window.

    Returns:
        Signed attributions in logits, one channel. They sum to the sum of all drops. With window and stride 1 on a
        linear classifier, from black: w · x summed over channels.

    Differs from the paper: differences of the logit, spread and summed, where it shows the output itself.
    """
    if not 1 <= stride <= window:
        raise Problem(f"occlusion: the setting 'stride' is {stride}, expected 1 to window = {window}")
    filling = color(classifier, fill)
    windows = list(product(*(_spans(side, window, stride) for side in images.shape[-2:])))

    def hide(copies: Images, numbers: list[int]) -> Images:
        for copy, number in zip(copies, numbers, strict=True):
            if number < len(windows):  # the last number leaves the image whole
                copy[(slice(None), *windows[number])] = filling
        return copies

    logits = answers(images, targets, len(windows) + 1, classifier.batch, hide, classifier.logits)
    total = images.new_zeros(len(images), *images.shape[-2:])
    for number, place in enumerate(windows):
        area = (place[0].stop - place[0].start) * (place[1].stop - place[1].start)
        total[(slice(None), *place)] += ((logits[:, -1] - logits[:, number]) / area)[:, None, None]
    return total[:, None]


def rise(
    classifier: Classifier,
    images: Images,
    targets: Targets,
    *,
    masks: int,
    cells: int,
    probability: float,
    fill: Literal["black", "mean"],
    seed: int,
) -> Attributions:
    """Average random masks, weighted by the target's probability when all else is hidden.

        A = (1/(n p)) Σᵢ prob(x · Mᵢ + fill · (1 − Mᵢ)) Mᵢ

    A mask is a coarse grid of cells, each on with probability p, enlarged bilinearly to one cell more than the image
    and cut out at a random offset. All images see the same masks.

    Args:
        masks: Number of masks n, one pass each.
        cells: Cells along a side.
        probability: Probability p that a cell is on.
        fill: What shows where a mask is off; `mean` is the authors' masking of the normalized image.
        seed: Chooses the masks.

    Returns:
        Attributions of at least 0, one channel: for n → ∞ about the expected probability given that the pixel is on.
    """
    if not 0 < probability <= 1:
        raise Problem(f"rise: the setting 'probability' is {probability}, expected above 0 and up to 1")
    make = mask_maker(images, masks, cells, probability, seed)
    filling = color(classifier, fill)

    def hide(copies: Images, numbers: list[int]) -> Images:
        made = {number: make(number) for number in set(numbers)}
        chosen = torch.stack([made[number] for number in numbers])[:, None]
        copies -= filling
        copies *= chosen
        copies += filling
        return copies

    probabilities = answers(images, targets, masks, classifier.batch, hide, classifier.probabilities)
    total = images.new_zeros(len(images), *images.shape[-2:])
    for number in range(masks):
        # One mask after the other, not a matrix product, whose order of sums depends on the number of images.
        total += probabilities[:, number, None, None] * make(number)
    return total[:, None] / (masks * probability)


def _spans(side: int, window: int, stride: int) -> list[slice]:
    starts = range(stride - window, side, stride)
    return [slice(max(start, 0), min(start + window, side)) for start in starts]
