"""Blur images with Gaussians of any standard deviation per image, with the same bits in any batch."""

import numpy as np
import torch
from torch import Tensor

from atlas.model.arrays import Images
from atlas.model.classifier import Classifier


def profiles(sigmas: list[float], length: int) -> Tensor:
    """Return the weight of every distance below length, per standard deviation in pixels: float64, on the CPU.

    A Gaussian is cut off beyond 4 σ, rounded, and scaled so that the weights on both sides sum to 1. At σ = 0 the image
    is unchanged.
    """
    rows = []
    for sigma in sigmas:
        radius = int(4 * sigma + 0.5)
        weights = np.exp(-(np.arange(radius + 1) ** 2) / (2 * max(sigma, 1e-12) ** 2))
        weights /= 2 * weights.sum() - 1
        row = np.zeros(length)
        row[: radius + 1] = weights[:length]
        rows.append(row)
    return torch.from_numpy(np.stack(rows))


def blurred(classifier: Classifier, images: Images, weights: Tensor, *, rescaled: bool = False) -> Tensor:
    """Blur each image with its own row of weights, in float64, so that similar blurs can be distinguished.

    Pixels beyond the border are black; or, if `rescaled`, ignored: the weights inside are scaled to sum to 1.
    """
    height, width = images.shape[-2:]

    def of(part: Tensor, profile: Tensor) -> Tensor:
        down, across = (_matrices(profile, side, rescaled) for side in (height, width))
        return down @ part.double() @ across.mT

    return classifier.batched(of, images, weights)


def _matrices(profile: Tensor, side: int, rescaled: bool) -> Tensor:
    places = torch.arange(side, device=profile.device)
    matrices = profile[:, (places[:, None] - places).abs()][:, None]
    return matrices / matrices.sum(-1, keepdim=True) if rescaled else matrices
