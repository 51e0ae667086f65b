"""Noisy samples of all images of a set, of which no more are in memory than are asked for at once."""

import torch
from torch import Tensor

from atlas.model.arrays import AllImages, Seeds
from atlas.model.classifier import Classifier
from atlas.model.lazy_images import LazyImages
from atlas.study import seeds as draws


def lazy_samples(
    classifier: Classifier,
    images: AllImages,
    seeds: Seeds,
    samples: int,
    noise: str,
    offset: float,
    spread: float,
) -> LazyImages:
    """Return all draws of all images, draw by draw, with the values of `NoisySamples`: made, each time, when sliced."""
    shape, std = tuple(images.shape[1:]), classifier.std.view(-1, 1, 1)
    drawing = draws.uniform if noise == "uniform" else draws.normal

    def made(start: int, stop: int) -> Tensor:
        parts = [torch.empty(0, *shape, device=classifier.device)]
        for draw in range(start // len(seeds), samples):
            first, last = (min(max(end - draw * len(seeds), 0), len(seeds)) for end in (start, stop))
            if first < last:
                drawn = drawing(seeds[first:last], "stability", draw, shape).to(classifier.device)
                drawn.mul_(spread).add_(offset).mul_(std).add_(images[first:last].to(classifier.device))
                parts.append(drawn)
        return torch.cat(parts)

    return LazyImages((samples * len(seeds), *shape), made)
