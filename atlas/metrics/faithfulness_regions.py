"""Score a map by what the classifier loses without regions of the image, and by which images have similar maps."""

from typing import Literal

import torch
from torch import Tensor

from atlas.metrics.shared.neighbors import agreeing, predicted
from atlas.metrics.shared.order import ranking
from atlas.metrics.shared.outputs import clean_logits, color, output_of, outputs, pairs
from atlas.metrics.shared.patches import accumulated, check_patches, patched
from atlas.metrics.shared.rows import at_least, by_row, finite
from atlas.metrics.shared.scaled import pearson
from atlas.metrics.shared.segments import segmented, turns
from atlas.model.arrays import AllImages, AllMaps, Images, Maps, Scores, Seeds, Targets
from atlas.model.batch_cache import shared
from atlas.model.classifier import Classifier
from atlas.study.errors import Unsupported
from atlas.study.schema.types import Color, Count, NotNegative, Positive, Response, Share

ATTRS = {
    "faithfulness_estimate": {
        "long_name": "Faithfulness estimate",
        "units": "1",
        "reference": "alvarezmelis2018towards",
        "better": "higher",
    },
    "irof": {
        "long_name": "Iterative removal of features",
        "units": "1",
        "reference": "rieger2020irof",
        "better": "higher",
    },
    "infidelity": {
        "long_name": "Infidelity",
        "units": "squared output",
        "reference": "yeh2019infidelity",
        "better": "lower",
    },
    "infidelity_quantus": {
        "long_name": "Infidelity of Quantus 0.4.4",
        "units": "squared logit",
        "reference": "yeh2019infidelity, hedstrom2023quantus",
        "better": "lower",
    },
    "sufficiency": {
        "long_name": "Sufficiency",
        "units": "1",
        "reference": "dasgupta2022framework",
        "better": "higher",
    },
}


def faithfulness_estimate(
    maps: Maps,
    images: Images,
    targets: Targets,
    classifier: Classifier,
    seeds: Seeds,
    *,
    pixels: Count,
    baseline: Color,
    output: Response,
) -> Scores:
    """Correlate the attribution of blocks of pixels with the drop of the output when only that block is removed.

        Pearson over blocks B of (Σ_B a, f(x) − f(x with B set to the baseline))

    The blocks consist of the map's pixels in descending order; equal attributions are ordered by a random key of the
    image. All channels of a pixel belong to the same block.

    Args:
        pixels: Pixels per block; the last one may be smaller.
        baseline: What replaces a removed pixel.

    Returns:
        −1 to 1, higher is better. 1 on a linear classifier for the map of its weights times x − baseline.

    Undefined where all blocks have the same attribution, or cause the same drop (as a single block does), and where the
    map is not finite.

    Differs from the paper: Alvarez-Melis & Jaakkola 2018 use concepts as blocks, and probabilities. As in Quantus
    0.4.4; 0.6 removes single channel values, in three times the blocks.
    """
    at_least(1, "faithfulness_estimate", "pixels", pixels)
    device, whole = classifier.device, images.to(classifier.device)
    order = ranking(maps, seeds)
    block = (order.argsort(dim=1) // pixels).view(maps.shape).to(device)
    blocks = -(-maps[0].numel() // pixels)
    absent = color(classifier, baseline)

    def made(r: Tensor, s: Tensor) -> Tensor:
        return torch.where((block[r] == s[:, None, None])[:, None], absent, whole[r])

    row, step = pairs(finite(maps).nonzero().flatten().to(device), blocks)
    left = torch.full((len(maps), blocks), torch.nan, device=device)
    left[row, step] = outputs(classifier, targets, row, step, made, output)
    drops = output_of(classifier, clean_logits(classifier, images), targets, output)[:, None] - left
    descending = maps.flatten(1).gather(1, order).double().to(device)
    padded = torch.nn.functional.pad(descending, (0, blocks * pixels - descending.shape[1]))
    return by_row(lambda lost, values: pearson(lost, values.view(blocks, pixels).sum(dim=1)), drops, padded)


def irof(
    maps: Maps,
    images: Images,
    targets: Targets,
    classifier: Classifier,
    seeds: Seeds,
    *,
    superpixels: Count,
    compactness: Positive,
    sigma: NotNegative,
    form: Literal["share", "quantus"],
) -> Scores:
    """Remove superpixels, the one of the highest mean attribution first, and measure the area over the curve.

        1 − 1/L ∫₀ᴸ r dl,    r_l = p(x with its first l of L superpixels set to the mean color) / p(x)

    by the trapezoid rule. The superpixels are SLIC's, computed from the image's intensities, the same for every map.
    Equal means are ordered by a random key of the image.

    Args:
        superpixels: Approximate number of superpixels; SLIC makes L of them.
        compactness: Weight of spatial proximity against color in SLIC.
        sigma: Standard deviation of the smoothing before SLIC, in pixels.
        form: `share`: as above. `quantus`: L − ∫₁ᴸ r dl, which grows with L and omits one step.

    Returns:
        At most 1 (`share`) or L, higher is better; negative where removal raises the probability.

    Undefined where p(x) is 0 or the map is not finite.

    Differs from the paper (Rieger & Hansen 2020): the classifier's mean color, where they use the image's. The form
    `quantus` is the score of Quantus 0.4.4, whose superpixels are those of the normalized image and whose mean color is
    the image's; 0.6 fails on images of three channels.
    """
    at_least(1, "irof", "superpixels", superpixels)
    device, whole = classifier.device, images.to(classifier.device)
    turn = turns(maps, segmented(images, superpixels, compactness, sigma), seeds).to(device)
    counts = turn.amax(dim=(1, 2))
    absent = color(classifier, "mean")

    def made(r: Tensor, s: Tensor) -> Tensor:
        return torch.where((turn[r] <= s[:, None, None])[:, None], absent, whole[r])

    inner = torch.where(finite(maps).to(device), counts - 1, 0)
    row = torch.arange(len(maps), device=device).repeat_interleave(inner)
    step = torch.cat([torch.arange(1, number + 1, device=device) for number in inner.tolist()])
    between = outputs(classifier, targets, row, step, made, "probability").split(inner.tolist())
    empty = _empty(classifier, images).expand(len(maps), -1)
    ends = [
        output_of(classifier, logits, targets, "probability") for logits in (clean_logits(classifier, images), empty)
    ]
    areas = [_removed(*parts, form) for parts in zip(ends[0], between, ends[1], strict=True)]
    return torch.stack(areas).where(finite(maps).to(device), torch.nan)


def infidelity(
    maps: Maps,
    images: Images,
    targets: Targets,
    classifier: Classifier,
    seeds: Seeds,
    *,
    patch: Count,
    samples: Count,
    baseline: Literal["black", "mean", "uniform"],
    output: Response,
    scaled: bool,
) -> Scores:
    """Compare the drop of the output for each patch with the drop according to the map.

        mean over patches and draws of (f(x) − f(x̃) − β Σ_yx a Σ_c (x − x̃))²

    x̃ is the image, in intensities, with a single patch of a grid replaced. The passes are shared by all maps.

    Args:
        patch: Side of a patch in pixels; those at the right and lower edge may be smaller.
        samples: Draws of the baseline; more than 1 only if it is random.
        baseline: What replaces a patch: black, the classifier's mean color, or noise uniform in [0, 1], drawn for each
            image and draw.
        scaled: Whether β is the number that minimizes the score of this image, as Yeh et al. compare maps of different
            scales; otherwise it is 1, and the map must be in the output's units per intensity.

    Returns:
        At least 0, in squares of the output; lower is better. If scaled, at most the mean square of the drops, which an
        empty map has; then a map and its negative have the same score, as β may be negative. 0 on a linear classifier
        with equal weights of the channels, for the map of its weights.

    Undefined where the map is not finite.

    Differs from the paper (Yeh et al. 2019): one of its perturbations, patches on a grid; no attribution per channel.
    """
    check_patches("infidelity", patch, samples, baseline)
    found = patched(classifier, images, targets, seeds, patch, samples, baseline, output)

    def squared(one: Tensor, drops: Tensor, taken: Tensor) -> Tensor:
        drops, products = drops.double(), torch.zeros_like(drops, dtype=torch.float64)
        for of_draw, lost in zip(products, taken * one, strict=True):
            of_draw.index_add_(0, found.patches.flatten(), lost.flatten())
        size = products.square().sum()
        factor = (products * drops).sum() / torch.where(size > 0, size, 1.0) if scaled else 1.0
        return (drops - factor * products).square().mean().float()

    scores = by_row(squared, maps.to(classifier.device), found.drops, found.taken)
    return scores.where(finite(maps).to(scores.device), torch.nan)


def infidelity_quantus(
    maps: Maps,
    images: Images,
    targets: Targets,
    classifier: Classifier,
    seeds: Seeds,
    *,
    patch: Count,
    samples: Count,
    baseline: Literal["black", "uniform"],
) -> Scores:
    """Compute what Quantus 0.4.4 calls infidelity, with its errors, for comparison with tables made by it.

        mean over patches and draws of (f(x) − f(x̃) − C Σ_k (Σ_y a_yk) (Σ_cx (x − x̃)_kx))²

    It multiplies the sum of the map's column k by that of the image's row k, where the paper multiplies pixel by pixel.
    Patches are never restored, so that x̃ loses them one after the other; their grid is shifted up and left by patch −
    1 pixels, so that the first patches have one row or column, and the last patch − 1 rows and columns of the image are
    never replaced. x is the normalized image of C channels, f the target's logit.

    Args:
        patch: Side of a patch, which must divide the image's.
        samples: Draws of the baseline; more than 1 only if it is random.
        baseline: `black`: the lowest value of the normalized image. `uniform`: noise in [0, 1] instead.

    Returns:
        At least 0, in squares of logits; lower is better. It has no meaning beyond such comparisons.

    Undefined where the map is not finite.

    Raises:
        Unsupported: the images are not square, so that the product does not exist.
    """
    check_patches("infidelity_quantus", patch, samples, baseline)
    channels, height, width = images.shape[1:]
    if height != width:
        raise Unsupported(f"infidelity_quantus needs square images; these are {height} pixels high, {width} wide")
    if height % patch:
        raise ValueError(f"infidelity_quantus: patch is {patch}, expected a divisor of the image's side, {height}")
    found = accumulated(classifier, images, targets, seeds, patch, samples, baseline)

    def squared(one: Tensor, drops: Tensor, taken: Tensor) -> Tensor:
        products = channels * (taken * one.double().sum(dim=0)).sum(dim=-1)
        return (drops.double() - products).square().mean().float()

    scores = by_row(squared, maps.to(classifier.device), found.drops, found.taken)
    return scores.where(finite(maps).to(scores.device), torch.nan)


def sufficiency(
    all_maps: AllMaps, all_images: AllImages, classifier: Classifier, positions: list[int], *, threshold: Share
) -> Scores:
    """Measure the share of images with a similar map for which the classifier predicts the same class.

        #{j : d_ij ≤ threshold, the prediction of j is that of i} / #{j : d_ij ≤ threshold},    j ≠ i

    d is the Euclidean distance of two maps |a| / max |a|, with each pixel divided by its standard deviation over all
    maps of the set, as a share of the set's largest distance. Pixels that are equal in all maps are left out. The set
    is all images that this metric scores, whatever the batch.

    Args:
        threshold: Largest distance of a neighbor, 0 to 1.

    Returns:
        0 to 1, higher is better. If all maps are alike, the score is the share of the others with the same prediction.

    Undefined where an image has no neighbor, all maps are the same, or the map is not finite.

    Differs from the paper (Dasgupta et al. 2022): maps are similar within a distance, as in Quantus, where the paper
    requires the same explanation. Quantus compares only within a batch, has no distance where a pixel is constant, and
    scores an image without a neighbor 0.
    """
    if not 0 <= threshold <= 1:
        raise ValueError(f"sufficiency: threshold is {threshold}, expected 0 to 1")
    return agreeing(all_maps, predicted(classifier, all_images), threshold)[positions]


@shared(calls=4)
def _empty(classifier: Classifier, images: Tensor) -> Tensor:
    """Return the logits of the mean color: one pass for all images and maps of a batch."""
    return classifier.logits(color(classifier, "mean").expand(1, *images.shape[1:]).contiguous())


def _removed(clean: Tensor, between: Tensor, empty: Tensor, form: str) -> Tensor:
    ratios = torch.cat([clean[None], between, empty[None]]) / clean
    count = len(ratios) - 1
    area = count - torch.trapezoid(ratios[1:]) if form == "quantus" else 1 - torch.trapezoid(ratios) / count
    return torch.where(area.isfinite(), area, torch.nan)  # p(x) may be too small as a divisor
