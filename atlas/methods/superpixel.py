"""Methods that evaluate superpixels: parts of an image that follow its edges."""

import numpy as np
import torch
from skimage.segmentation import slic
from torch import Tensor

from atlas.methods.shared.batches import pairs
from atlas.methods.shared.checks import check_at_least
from atlas.methods.shared.fill import color
from atlas.methods.shared.masks.masking import alike
from atlas.model.arrays import Attributions, Images, Seeds, Targets
from atlas.model.classifier import Classifier
from atlas.study.errors import UserError
from atlas.study.schema.types import Color, Count, NotNegative, Positive
from atlas.study.seeds import rng

ATTRS = {
    "lime": {
        "long_name": "LIME",
        "units": "probability",
        "reference": "ribeiro2016why",
    },
}

RIDGE = 1.0  # weight of the squared coefficients


def lime(
    classifier: Classifier,
    images: Images,
    targets: Targets,
    seeds: Seeds,
    *,
    samples: Count,
    superpixels: Count,
    compactness: Positive,
    sigma: NotNegative,
    width: Positive,
    fill: Color,
) -> Attributions:
    """Fit a linear model that predicts the target's probability from which superpixels are shown.

        min over a, c:  Σₛ wₛ (prob(xₛ) − c − a · zₛ)² + |a|²,    wₛ = exp(−dₛ² / (2 width²)),
                        dₛ = 1 − √(share of superpixels shown)

    zₛ marks the shown superpixels, each with probability 1/2, and all of them in the first sample; the others are
    filled. d is the cosine distance of z to all ones. A pixel gets the coefficient a of its superpixel.

    Args:
        samples: Samples, one pass each.
        superpixels: Approximate number of SLIC superpixels per image.
        compactness: Weight of spatial proximity against color in SLIC.
        sigma: Standard deviation of the smoothing before SLIC, in pixels.
        width: Width of the kernel over distances.
        fill: What replaces hidden superpixels.

    Returns:
        Signed attributions, one channel, in differences of probability, shrunk towards 0: the fewer samples, the
        smaller the coefficients. 0 everywhere with a single sample.

    Differs from the authors' code: every image has masks from its own seed. The authors' kernel is the square root of
    exp(−d² / width²), which equals the one above.
    """
    check_at_least("lime", "samples", samples, 1)
    check_at_least("lime", "superpixels", superpixels, 1)
    if not width > 0:
        raise UserError(f"lime: the setting 'width' is {width}, expected above 0")
    groups = alike(images, seeds)
    firsts = [rows[0] for rows in groups]
    parts = [_segments(images[row], superpixels, compactness, sigma) for row in firsts]
    shown = [_shown(seeds[row], samples, int(part.max()) + 1) for row, part in zip(firsts, parts, strict=True)]
    filling = color(classifier, fill)

    found = np.empty((len(images), samples))
    for batch in pairs(len(groups), samples, classifier.batch):
        copies = images[[firsts[group] for group, _ in batch]]
        seen = np.stack([shown[group][sample][parts[group]] for group, sample in batch])
        copies = copies.where(torch.from_numpy(seen).to(images.device)[:, None], filling)
        outputs = classifier.probabilities(copies).cpu()
        for output, (group, sample) in zip(outputs, batch, strict=True):
            found[groups[group], sample] = output[targets[groups[group]].cpu()].numpy()

    maps = torch.empty(len(images), 1, *images.shape[-2:])
    for group, rows in enumerate(groups):
        for row in rows:
            coefficients = _coefficients(shown[group], found[row], width)
            maps[row, 0] = torch.from_numpy(coefficients[parts[group]])
    return maps.to(images)


def _segments(image: Tensor, superpixels: int, compactness: float, sigma: float) -> np.ndarray:
    """Number an image's superpixels from 0."""
    pixels = image.permute(1, 2, 0).cpu().numpy()
    found = slic(pixels, n_segments=superpixels, compactness=compactness, sigma=sigma, start_label=0, channel_axis=-1)
    return np.unique(found, return_inverse=True)[1].reshape(found.shape)


def _shown(seed: int, samples: int, count: int) -> np.ndarray:
    """Draw which superpixels each sample shows; more samples keep the first ones."""
    drawn = rng(seed, "lime").random((samples, count)) < 0.5
    drawn[0] = True
    return drawn


def _coefficients(shown: np.ndarray, found: np.ndarray, width: float) -> np.ndarray:
    """Fit weighted ridge regression with an unpenalized intercept."""
    distances = 1 - np.sqrt(shown.mean(1))
    weights = np.exp(-(distances**2) / (2 * width**2))
    # With centered features, no intercept is needed.
    features = shown - np.average(shown, axis=0, weights=weights)
    weighted = (features * weights[:, None]).T
    return np.linalg.solve(weighted @ features + RIDGE * np.eye(shown.shape[1]), weighted @ found)
