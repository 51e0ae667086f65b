"""Judge a map by what its pixels do to the classifier when they are taken away or put back."""

from typing import Literal

import numpy as np
import torch
from scipy.ndimage import gaussian_filter1d
from torch import Tensor

from stages.arrays import Curves, Images, Maps, Seeds, Targets
from stages.classifier import Classifier
from stages.memory import shared
from stages.metrics._curves import End, clean, end, switching_curves

ATTRS = {
    "deletion": {
        "long_name": "Deletion",
        "units": "probability",
        "reference": "petsiuk2018rise",
        "better": "lower",
        "dim": "fraction",
        "summary": "area",
    },
    "insertion": {
        "long_name": "Insertion",
        "units": "probability",
        "reference": "petsiuk2018rise",
        "better": "higher",
        "dim": "fraction",
        "summary": "area",
    },
    "insertion_blur": {
        "long_name": "Insertion from blur",
        "units": "probability",
        "reference": "petsiuk2018rise",
        "better": "higher",
        "dim": "fraction",
        "summary": "area",
    },
}

# RISE's blur: an 11-pixel window of a Gaussian of 5 pixels.
WINDOW = 11
SIGMA = 5


def deletion(
    maps: Maps,
    images: Images,
    targets: Targets,
    classifier: Classifier,
    seeds: Seeds,
    *,
    steps: int,
    baseline: Literal["black", "mean"],
) -> Curves:
    """Delete the pixels of highest attribution first and record the target's probability.

        s_k = p(x with its first round(k HW / K) pixels set to the baseline), k = 0 ... K

    Equal attributions are ordered by a random key of the image.

    Args:
        steps: K, the intervals of the curve.
        baseline: The color of a deleted pixel: black, or the classifier's mean color (0 once normalized).

    Returns:
        Probabilities, 0 to 1; a low area under the curve is better: the pixels that mattered went first. The curve
        runs from p(x) to p(baseline), which no map can change.

    Undefined where the map is not finite.

    Differs from the paper: RISE (Petsiuk et al. 2018) deletes one row's number of pixels a step, to the mean color,
    follows the predicted class, and takes equal values in whatever order its sort leaves them.
    """
    whole, blank = clean(classifier, images, targets), _blank(classifier, images, targets, baseline)
    return switching_curves(classifier, maps, targets, seeds, whole, blank, steps, _all(maps))


def insertion(
    maps: Maps,
    images: Images,
    targets: Targets,
    classifier: Classifier,
    seeds: Seeds,
    *,
    steps: int,
    baseline: Literal["black", "mean"],
) -> Curves:
    """Insert the pixels of highest attribution first into a plain image and record the target's probability.

        s_k = p(baseline with its first round(k HW / K) pixels set to those of x), k = 0 ... K

    Equal attributions are ordered by a random key of the image.

    Args:
        steps: K, the intervals of the curve.
        baseline: The color to start from: black, or the classifier's mean color (0 once normalized).

    Returns:
        Probabilities, 0 to 1; a high area under the curve is better. The curve runs from p(baseline) to p(x).

    Undefined where the map is not finite.

    Differs from the paper: RISE (Petsiuk et al. 2018) starts from a blurred image (see `insertion_blur`) and follows
    the predicted class.
    """
    whole, blank = clean(classifier, images, targets), _blank(classifier, images, targets, baseline)
    return switching_curves(classifier, maps, targets, seeds, blank, whole, steps, _all(maps))


def insertion_blur(
    maps: Maps,
    images: Images,
    targets: Targets,
    classifier: Classifier,
    seeds: Seeds,
    *,
    steps: int,
) -> Curves:
    """Insert the pixels of highest attribution first into the blurred image and record the target's probability.

    As `insertion`, from a blurred image, which has fewer edges of its own making than a plain one. The kernel is
    RISE's: an 11 x 11 delta filtered by a Gaussian of 5 pixels that is reflected at the window's edge, so that it
    is almost flat (center .00883, corner .00774). Beyond the image lies the classifier's mean color.

    Args:
        steps: K, the intervals of the curve.

    Returns:
        Probabilities, 0 to 1; a high area under the curve is better. The curve runs from p(blurred x) to p(x).

    Undefined where the map is not finite.

    Differs from the paper: RISE (Petsiuk et al. 2018) follows the predicted class.
    """
    whole, blurred = clean(classifier, images, targets), _blurred(classifier, images, targets)
    return switching_curves(classifier, maps, targets, seeds, blurred, whole, steps, _all(maps))


def _all(maps: Tensor) -> Tensor:
    return torch.ones(len(maps), dtype=torch.bool)


@shared
def _blank(classifier: Classifier, images: Tensor, targets: Tensor, baseline: str) -> End:
    color = classifier.mean if baseline == "mean" else torch.zeros_like(classifier.mean)
    return end(classifier, color.view(-1, 1, 1).expand(images.shape).contiguous(), targets)


@shared
def _blurred(classifier: Classifier, images: Tensor, targets: Tensor) -> End:
    return end(classifier, blur(images.to(classifier.device), classifier.mean), targets)


def blur(images: Images, mean: Tensor) -> Images:
    """Blur as RISE does.

    RISE pads the normalized image with zeros, which is the mean color in intensities. The kernel is a product of
    two lines; shifted images are multiplied and added one by one, since a convolution's algorithm, and a fused
    multiply-add in the tail of a loop, may depend on the number of rows.
    """
    line = gaussian_filter1d(np.eye(WINDOW)[WINDOW // 2], SIGMA, mode="reflect")
    margin = WINDOW // 2
    rows, channels, height, width = images.shape
    blurred = mean.view(-1, 1, 1).expand(rows, channels, height + 2 * margin, width + 2 * margin).clone()
    blurred[:, :, margin:-margin, margin:-margin] = images
    for dim in (2, 3):
        size = blurred.shape[dim] - 2 * margin
        blurred = sum(weight * blurred.narrow(dim, shift, size) for shift, weight in enumerate(line.tolist()))
    return blurred
