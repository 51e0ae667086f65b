"""Controls: maps that know nothing of the classifier, which every method should beat."""

import numpy as np
import torch
from skimage.feature import canny as edges
from torch import Tensor

from atlas.model.arrays import Attributions, Images, Seeds
from atlas.study import seeds as draws
from atlas.study.errors import Unsupported
from atlas.study.schema.types import NotNegative, Positive

ATTRS = {
    "uniform": {
        "long_name": "Uniform noise",
        "units": "1",
        "reference": "nieradzik2024reliable",
    },
    "canny": {
        "long_name": "Canny edges",
        "units": "1",
        "reference": "canny1986computational",
    },
    "intensity": {
        "long_name": "The image's own intensity",
        "units": "intensity",
        "reference": "",
    },
    "center": {
        "long_name": "Center",
        "units": "1",
        "reference": "zhang2018topdown",
    },
}

LUMINANCE = (0.2125, 0.7154, 0.0721)


def uniform(images: Images, seeds: Seeds) -> Attributions:
    """Draw every pixel's value uniformly from [0, 1), from the image's own seed.

    Returns:
        One channel of noise: the order of pixels is random.
    """
    return draws.uniform(seeds, "uniform", 0, (1, *images.shape[-2:])).to(images.device)


def canny(images: Images, *, sigma: NotNegative) -> Attributions:
    """Mark the edges of the gray image.

    Args:
        sigma: Standard deviation of the smoothing, in pixels.

    Returns:
        One channel: 1 on edges (thresholds 0.1 and 0.2 of scikit-image), 0 elsewhere.

    Raises:
        Unsupported: images have neither one channel nor three, so that their gray version is undefined.
    """
    marked = np.stack([edges(gray.numpy(), sigma=sigma) for gray in _gray(images).cpu()])
    return torch.from_numpy(marked).to(images)[:, None]


def intensity(images: Images) -> Attributions:
    """Take the gray image itself: the map of a method that only passes the image on.

    Returns:
        One channel in [0, 1]: 0.2125 red + 0.7154 green + 0.0721 blue, or the only channel.

    Raises:
        Unsupported: images have neither one channel nor three, so that their gray version is undefined.
    """
    return _gray(images)[:, None]


def center(images: Images, *, sigma: Positive) -> Attributions:
    """Put a Gaussian at the middle of the image.

        A = exp(−((y − y₀)² / (σh)² + (x − x₀)² / (σw)²) / 2)

    Args:
        sigma: Standard deviation, as a share of each side.

    Returns:
        One channel in (0, 1], the same for every image.
    """
    height, width = images.shape[-2:]
    row, column = (np.exp(-(((np.arange(n) + 0.5) / n - 0.5) ** 2) / (2 * sigma**2)) for n in (height, width))
    gaussian = torch.from_numpy(np.outer(row, column)).to(images)
    return gaussian.repeat(len(images), 1, 1, 1)


def _gray(images: Images) -> Tensor:
    channels = images.shape[1]
    if channels == 1:
        return images[:, 0]
    if channels != 3:
        raise Unsupported(
            f"no gray of {channels} channels is known: images of 1 channel have one, and those of 3, colors"
        )
    red, green, blue = (weight * images[:, channel] for channel, weight in enumerate(LUMINANCE))
    return red + green + blue
