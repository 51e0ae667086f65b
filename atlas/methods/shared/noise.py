"""Gradients at noisy images, computed once for SmoothGrad, VarGrad and every percentile of Guided AbsoluteGrad."""

from typing import NamedTuple

import torch
from torch import Tensor

from atlas.methods.shared.batches import gradients
from atlas.model.arrays import Images, Seeds, Targets
from atlas.model.batch_cache import shared
from atlas.model.classifier import Classifier
from atlas.study import seeds as draws


class Moments(NamedTuple):
    """The moments of an image's noisy gradients g that the noise methods need, each of the image's shape."""

    mean: Images
    """Σ g / samples"""
    variance: Images
    """Σ (g − mean)² / (samples − 1); NaN for a single sample"""
    square: Images
    """Σ g² / samples"""
    positive: Images
    """Σ max(g, 0) / samples"""
    negative: Images
    """Σ min(g, 0) / samples"""

    def signed(self, sign: str) -> Images:
        """Return the mean of the gradients of a sign: both, positive, negative or absolute."""
        of = {"both": self.mean, "positive": self.positive, "negative": self.negative}
        return self.positive - self.negative if sign == "absolute" else of[sign]


@shared
def noisy_gradients(
    classifier: Classifier,
    images: Images,
    targets: Targets,
    seeds: Seeds,
    samples: int,
    spread: float,
    extent: str,
    output: str,
) -> Moments:
    """Compute the moments of the output's gradient at images with Gaussian noise, sample by sample.

    The noise's standard deviation is spread · (max x − min x), with the range of each image, or that of a batch of
    normalized photographs times each channel's standard deviation. Noisy images are not clipped. A sample's noise
    depends neither on the spread nor on the number of samples.
    """
    shape = tuple(images.shape[1:])
    own = images.amax((1, 2, 3), keepdim=True) - images.amin((1, 2, 3), keepdim=True)
    ranges = own if extent == "image" else _photographs(classifier)
    deviations = (spread * ranges).expand(len(images), -1, -1, -1)

    def perturb(rows: list[int], samples: list[int]) -> Tensor:
        drawn = [draws.normal([seeds[row]], "noise", sample, shape) for row, sample in zip(rows, samples, strict=True)]
        # In place: allocating temporaries would cost as much as the draws.
        noisy = torch.cat(drawn).to(images.device)
        noisy *= deviations[rows]
        noisy += images[rows]
        return noisy

    def differentiate(noisy: Tensor, classes: Tensor, *_: list[int]) -> Tensor:
        return classifier.gradient(noisy, classes, output)

    mean, deviation, square, positive, negative = (torch.zeros_like(images) for _ in range(5))
    for row, sample, gradient in gradients(targets, samples, classifier.batch, perturb, differentiate):
        # Welford's algorithm: exact if all gradients are equal, and without differences of large squares.
        step = gradient - mean[row]
        mean[row] += step / (sample + 1)
        deviation[row] += step * (gradient - mean[row])
        square[row] += gradient**2
        positive[row] += gradient.clamp(min=0)
        negative[row] += gradient.clamp(max=0)
    variance = deviation / (samples - 1) if samples > 1 else torch.full_like(deviation, torch.nan)
    return Moments(mean, variance, square / samples, positive / samples, negative / samples)


@shared
def by_normalized(classifier: Classifier, variance: Images) -> Images:
    """Convert the variance of gradients by intensity to that of gradients by the normalized image."""
    return variance * classifier.std.view(-1, 1, 1) ** 2


def _photographs(classifier: Classifier) -> Tensor:
    """Return, in intensities by channel, the range of normalized images that contain black and white values."""
    low, high = ((end - classifier.mean) / classifier.std for end in (0.0, 1.0))
    return ((high.max() - low.min()) * classifier.std).view(1, -1, 1, 1)
