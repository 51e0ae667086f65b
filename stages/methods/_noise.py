"""Gradients at noisy images: computed once for SmoothGrad, VarGrad and every percentile of Guided AbsoluteGrad."""

from typing import NamedTuple

import torch
from torch import Tensor

from stages import seeds as draws
from stages.arrays import Images, Seeds, Targets
from stages.classifier import Classifier, shared
from stages.methods._batches import gradients


class Moments(NamedTuple):
    """What the noise methods need of the noisy gradients g of an image, each of the image's shape."""

    mean: Images
    """Σ g / samples"""
    variance: Images
    """Σ (g − mean)² / (samples − 1); NaN for a single sample"""
    magnitude: Images
    """Σ |g| / samples"""


@shared
def noisy_gradients(
    classifier: Classifier, images: Images, targets: Targets, seeds: Seeds, samples: int, spread: float
) -> Moments:
    """Take the moments of the logit's gradient at images with Gaussian noise, sample by sample.

    The noise's standard deviation is spread · (max x − min x), of each image by itself; noisy images are not clipped.
    A sample's noise is the same whatever the spread and however many samples follow.
    """
    shape = tuple(images.shape[1:])
    deviations = spread * (images.amax((1, 2, 3), keepdim=True) - images.amin((1, 2, 3), keepdim=True))

    def perturb(rows: list[int], samples: list[int]) -> Tensor:
        drawn = [draws.normal([seeds[row]], "noise", sample, shape) for row, sample in zip(rows, samples, strict=True)]
        # In place: the allocations of temporaries would cost as much as the draws.
        noisy = torch.cat(drawn).to(images.device)
        noisy *= deviations[rows]
        noisy += images[rows]
        return noisy

    mean, squares, magnitude = (torch.zeros_like(images) for _ in range(3))
    for row, sample, gradient in gradients(classifier, images, targets, samples, perturb):
        # Welford's sums: exact where all gradients are equal, and without the differences of large squares.
        step = gradient - mean[row]
        mean[row] += step / (sample + 1)
        squares[row] += step * (gradient - mean[row])
        magnitude[row] += gradient.abs()
    variance = squares / (samples - 1) if samples > 1 else torch.full_like(squares, torch.nan)
    return Moments(mean, variance, magnitude / samples)


@shared
def ascending(variance: Images) -> Tensor:
    """Sort each channel's values, so that every percentile is a look-up."""
    return variance.flatten(2).sort(dim=2).values
