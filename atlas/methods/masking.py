"""Methods that hide parts of the image and observe the output."""

from collections.abc import Callable

import torch
from torch import Tensor

from atlas.methods.shared.fill import color
from atlas.methods.shared.masks.cells import averaged, check_cells, mask_maker, stacked
from atlas.methods.shared.masks.masking import answers
from atlas.methods.shared.masks.windows import covering, spread_over
from atlas.model.arrays import Attributions, Images, Logits, Targets
from atlas.model.batch_cache import shared
from atlas.model.classifier import Classifier
from atlas.study.schema.types import Color, Count, Seed, SomeShare

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
    window: Count,
    stride: Count,
    fill: Color,
) -> Attributions:
    """Hide square windows, one at a time, and spread the drop of the target's logit over each.

        A = Σ_v (f(x) − f(x with v filled)) / |v| · 1[in v]

    Windows begin half a window before the border and end as far beyond the other, so that every pixel is covered, and
    equally often if the stride is a window or half of one; |v| counts the pixels of a window inside the image.

    Args:
        window: Side of the window in pixels.
        stride: Distance between neighboring windows, at most window.
        fill: What replaces the pixels of a window.

    Returns:
        Signed attributions in logits, one channel. They add up to the sum of all drops. With window and stride 1 on a
        linear classifier, from black: w · x summed over channels.

    Differs from the paper, which shows the output itself; here differences of the logit are spread and summed.
    """
    filling = color(classifier, fill)
    windows = covering("occlusion", tuple(images.shape[-2:]), window, stride)

    def hide(copies: Images, numbers: list[int]) -> Images:
        for copy, number in zip(copies, numbers, strict=True):
            if number < len(windows):  # the last number stands for the whole image
                copy[(slice(None), *windows[number])] = filling
        return copies

    def ask(copies: Images, _: list[int]) -> Logits:
        return classifier.logits(copies)

    logits = answers(images, targets, len(windows) + 1, classifier.batch, hide, ask)
    return spread_over(windows, logits[:, -1:] - logits[:, :-1], images)


def rise(
    classifier: Classifier,
    images: Images,
    targets: Targets,
    *,
    masks: Count,
    cells: Count,
    probability: SomeShare,
    fill: Color,
    seed: Seed,
) -> Attributions:
    """Average random masks, weighted by the target's probability with all other pixels hidden.

        A = (1/(n p)) Σᵢ prob(x · Mᵢ + fill · (1 − Mᵢ)) Mᵢ

    A mask is a coarse grid of cells, each on with probability p, enlarged bilinearly to one cell more than the image
    and cropped at a random offset. All images use the same masks.

    Args:
        masks: Number n of masks, one pass each; a smaller n beside a larger one costs no further pass.
        cells: Cells along a side.
        probability: Probability p that a cell is on.
        fill: What replaces hidden pixels; `mean` corresponds to the authors' masking of the normalized image.
        seed: Seed of the masks.

    Returns:
        Attributions of at least 0, one channel: for n → ∞ about the expected probability given that the pixel is on.
    """
    check_cells("rise", masks, cells, probability)
    make = mask_maker(images, masks, cells, probability, seed)
    asked = _probabilities(classifier, images, targets, cells, probability, fill, seed)
    asked.extend_to(masks)
    return averaged(make, asked.found[:, :masks], probability)


class _Asked:
    """The probabilities of images under the first masks of a series, as many as were requested so far."""

    def __init__(self, ask: Callable[[int, int], Tensor], images: Images):
        self.found = images.new_empty(len(images), 0)
        self._ask = ask

    def extend_to(self, masks: int) -> None:
        """Compute the probabilities for masks that are still missing."""
        there = self.found.shape[1]
        if masks > there:
            self.found = torch.cat([self.found, self._ask(there, masks)], dim=1)


@shared(calls=4)  # smaller numbers of masks then cost nothing
def _probabilities(
    classifier: Classifier, images: Images, targets: Targets, cells: int, probability: float, fill: Color, seed: int
) -> _Asked:
    filling = color(classifier, fill)

    def ask(first: int, end: int) -> Tensor:
        make = mask_maker(images, end, cells, probability, seed)

        def hide(copies: Images, numbers: list[int]) -> Images:
            copies -= filling
            copies *= stacked(make, [first + number for number in numbers])
            copies += filling
            return copies

        def probabilities(copies: Images, _: list[int]) -> Logits:
            return classifier.probabilities(copies)

        return answers(images, targets, end - first, classifier.batch, hide, probabilities)

    return _Asked(ask, images)
