"""Score a map by what its pixels do to the classifier when they are removed or restored."""

import numpy as np
import torch
from scipy.ndimage import gaussian_filter1d
from torch import Tensor

from atlas.metrics.shared.curves import End, clean, end, schedule, switching_curves
from atlas.metrics.shared.rows import by_row
from atlas.model.arrays import Curves, Images, Maps, Scores, Seeds, Targets
from atlas.model.batch_cache import shared
from atlas.model.batches import summed
from atlas.model.classifier import Classifier
from atlas.study.schema.types import Baseline, Count

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
    "ins_minus_del": {
        "long_name": "Insertion minus deletion",
        "units": "probability",
        "reference": "englebert2022poly",
        "better": "higher",
    },
    "pixel_flipping": {
        "long_name": "Pixel flipping",
        "units": "probability",
        "reference": "bach2015pixelwise",
        "better": "lower",
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
    pixels: Count,
    baseline: Baseline,
    relative: bool,
) -> Curves:
    """Delete the pixels of highest attribution first and record the target's probability.

        s_k = p(x with its first min(k n, HW) pixels set to the baseline), k = 0 ... ceil(HW / n)

    Equal attributions are ordered by a random key of the image.

    Args:
        pixels: n, deleted at each step; the last step may be smaller.
        baseline: What replaces a deleted pixel; for the blur see `insertion`.
        relative: Whether the curve is divided by p(x).

    Returns:
        Probabilities, 0 to 1, or shares of p(x); a low area under the curve is better: the pixels that matter were
        deleted first. The curve runs from p(x) to p(baseline), which do not depend on the map.

    Undefined where the map is not finite, or with `relative` where p(x) is 0.

    Differs from the paper: RISE (Petsiuk et al. 2018) deletes as many pixels as a row has per step, to the mean color,
    follows the predicted class, and leaves the order of equal values to its sort. Nieradzik et al. 2024 delete to
    black, Nourelahi et al. 2022 448 of 224 x 224 pixels per step to the mean color; Poly-CAM (Englebert et al. 2022)
    deletes to the blurred image, and the image measures used by Buono et al. 2024 divide by p(x).
    """
    return _curves(maps, images, targets, classifier, seeds, pixels, "clean", baseline, relative)


def insertion(
    maps: Maps,
    images: Images,
    targets: Targets,
    classifier: Classifier,
    seeds: Seeds,
    *,
    pixels: Count,
    baseline: Baseline,
    relative: bool,
) -> Curves:
    """Insert the pixels of highest attribution first into an empty image and record the target's probability.

        s_k = p(baseline with its first min(k n, HW) pixels set to those of x), k = 0 ... ceil(HW / n)

    Equal attributions are ordered by a random key of the image. A blurred image introduces fewer edges than a plain
    one; the kernel is RISE's: an 11 x 11 delta filtered by a Gaussian of 5 pixels with reflection at the window's edge,
    so that it is almost flat (center .00883, corner .00774). Beyond the image lies the mean color.

    Args:
        pixels: n, inserted at each step; the last step may be smaller.
        baseline: The starting image: black, the classifier's mean color (0 once normalized), or the blurred image.
        relative: Whether the curve is divided by p(x).

    Returns:
        Probabilities, 0 to 1, or shares of p(x); a high area under the curve is better. The curve runs from
        p(baseline) to p(x).

    Undefined where the map is not finite, or with `relative` where p(x) is 0.

    Differs from the paper: RISE (Petsiuk et al. 2018) starts from the blurred image and follows the predicted class.
    """
    return _curves(maps, images, targets, classifier, seeds, pixels, baseline, "clean", relative)


def ins_minus_del(
    maps: Maps,
    images: Images,
    targets: Targets,
    classifier: Classifier,
    seeds: Seeds,
    *,
    pixels: Count,
    inserted_into: Baseline,
    deleted_to: Baseline,
    relative: bool,
) -> Scores:
    """Subtract the area under the deletion curve from that under the insertion curve.

        ∫ insertion − ∫ deletion, over the share of exchanged pixels, by the trapezoid rule

    If `insertion` and `deletion` with the same settings score the same images, this costs no further pass.

    Args:
        pixels: Pixels exchanged at each step.
        inserted_into: The baseline of the insertion.
        deleted_to: The baseline of the deletion.
        relative: Whether the curves are divided by p(x).

    Returns:
        -1 to 1, or shares of p(x); higher is better. About 0 for a random map.

    Undefined where the map is not finite, or with `relative` where p(x) is 0.

    Reference: Englebert et al. 2022 (Poly-CAM), who average the points of the curves without the first.
    """
    gains = _curves(maps, images, targets, classifier, seeds, pixels, inserted_into, "clean", relative)
    losses = _curves(maps, images, targets, classifier, seeds, pixels, "clean", deleted_to, relative)
    share = torch.tensor(schedule(maps[0].numel(), pixels), device=gains.device) / maps[0].numel()
    return by_row(lambda gain, loss: torch.trapezoid(gain - loss, share), gains, losses)


def pixel_flipping(
    maps: Maps,
    images: Images,
    targets: Targets,
    classifier: Classifier,
    seeds: Seeds,
    *,
    pixels: Count,
    baseline: Baseline,
) -> Scores:
    """Delete the pixels of highest attribution first and sum the target's probability over the steps.

        Σ_k (s_k + s_{k+1}) / 2, k = 1 ... K − 1, with s_k and its K steps from `deletion`

    If `deletion` with the same settings scores the same images, this costs no further pass.

    Args:
        pixels: Pixels deleted at each step; the last step may be smaller.
        baseline: What replaces a deleted pixel, as in `deletion`.

    Returns:
        Probabilities times steps, 0 to K − 1; lower is better. It grows with the number of steps: compare it only
        between images of the same size. 0 if a single step deletes the whole image.

    Undefined where the map is not finite.

    Differs from the paper (Bach et al. 2015, who show the curve): the area as computed by Quantus 0.4.4, by the
    trapezoid rule without the clean image and with steps of width 1. Quantus 0.6 flips single channel values of a pixel
    instead of whole pixels, and so takes three times the steps.
    """
    curves = _curves(maps, images, targets, classifier, seeds, pixels, "clean", baseline, False)
    return by_row(lambda curve: torch.trapezoid(curve[1:]), curves)


@shared(calls=8)  # several calls, as entries with different settings alternate
def _curves(
    maps: Tensor,
    images: Tensor,
    targets: Tensor,
    classifier: Classifier,
    seeds: Seeds,
    pixels: int,
    before: str,
    after: str,
    relative: bool,
) -> Tensor:
    """Record the probability between two of: the clean image, black, the mean color, the blurred image."""
    start, finish = (_end(classifier, images, targets, name) for name in (before, after))
    curves = switching_curves(classifier, maps, targets, seeds, start, finish, pixels, _all(maps))
    if not relative:
        return curves
    shares = curves / clean(classifier, images, targets).probability[:, None]
    return shares.where(shares.isfinite(), torch.nan)


@shared(calls=8)
def _end(classifier: Classifier, images: Tensor, targets: Tensor, name: str) -> End:
    if name == "clean":
        return clean(classifier, images, targets)
    if name == "blur":
        return end(classifier, blur(images.to(classifier.device), classifier.mean), targets)
    color = classifier.mean if name == "mean" else torch.zeros_like(classifier.mean)
    return end(classifier, color.view(-1, 1, 1).expand(images.shape).contiguous(), targets)


def _all(maps: Tensor) -> Tensor:
    return torch.ones(len(maps), dtype=torch.bool)


def blur(images: Images, mean: Tensor) -> Images:
    """Blur like RISE.

    RISE pads the normalized image with zeros, which is the mean color in intensities. The kernel is separable; shifted
    images are multiplied and added one by one, since the algorithm of a convolution, and a fused multiply-add in the
    tail of a loop, may depend on the number of rows.
    """
    line = gaussian_filter1d(np.eye(WINDOW)[WINDOW // 2], SIGMA, mode="reflect")
    margin = WINDOW // 2
    rows, channels, height, width = images.shape
    blurred = mean.view(-1, 1, 1).expand(rows, channels, height + 2 * margin, width + 2 * margin).clone()
    blurred[:, :, margin:-margin, margin:-margin] = images
    for dim in (2, 3):
        size = blurred.shape[dim] - 2 * margin
        blurred = summed(weight * blurred.narrow(dim, shift, size) for shift, weight in enumerate(line.tolist()))
    return blurred
