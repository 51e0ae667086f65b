"""Integrate gradients along straight lines from baselines to images, or to activations."""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from atlas.methods.shared.batches import gradients
from atlas.methods.shared.blur import blurred, profiles
from atlas.methods.shared.fill import color
from atlas.methods.shared.terms import Terms
from atlas.model.arrays import Images, Targets
from atlas.model.classifier import Classifier
from atlas.study.schema.types import Baseline

# Standard deviation of the blurred baseline, as a share of the image's shorter side.
BLUR = 0.1


def baselines(classifier: Classifier, images: Images, baseline: Baseline) -> Images:
    """Return the baseline of each image: black, the classifier's mean color, or a blurred copy.

    The blur ignores pixels beyond the border, so that an image of one color stays unchanged.
    """
    if baseline != "blur":
        return color(classifier, baseline).expand_as(images)
    sides = images.shape[-2:]
    weights = profiles([BLUR * min(sides)], max(sides)).to(images.device).expand(len(images), -1)
    rows = range(0, len(images), classifier.batch)
    parts = [slice(first, first + classifier.batch) for first in rows]
    return torch.cat([blurred(classifier, images[part], weights[part], rescaled=True).to(images) for part in parts])


def integrate(
    images: Tensor,
    targets: Targets,
    start: Callable[[int, int], Tensor],
    differentiate: Callable[[Tensor, Tensor, list[int], list[int]], Tensor],
    *,
    lines: int,
    steps: int,
    rule: str,
    batch: int,
    guided: bool = False,
) -> Terms:
    """Integrate the gradient from baselines b to every image: per line, a term (x − b) · ∫₀¹ ∇f(b + α (x − b)) dα.

    Args:
        images: Ends of the lines: images, or a layer's activations.
        targets: Their classes.
        start: Returns a row's baseline by number.
        differentiate: Returns gradients at points on the lines, given their targets, rows and numbers.
        lines: Baselines per image.
        steps: Points per line, one pass each.
        rule: The positions and weights of the points.
        batch: Points made at a time.
        guided: Whether the variance of the terms will be needed.
    """
    nodes, weights = quadrature(rule, steps)
    alphas = torch.tensor(nodes, dtype=images.dtype, device=images.device).view(-1, 1, 1, 1)

    def along(rows: list[int], samples: list[int]) -> Tensor:
        starts = torch.stack([start(row, sample // steps) for row, sample in zip(rows, samples, strict=True)])
        points = images[rows] - starts
        points *= alphas[[sample % steps for sample in samples]]
        points += starts
        return points

    terms = Terms(images, guided=guided)
    rising: Tensor
    falling: Tensor
    for row, sample, gradient in gradients(targets, lines * steps, batch, along, differentiate):
        line, step = divmod(sample, steps)
        up, down = weights[step] * gradient.clamp(min=0), weights[step] * gradient.clamp(max=0)
        rising, falling = (up, down) if step == 0 else (rising + up, falling + down)
        if step == steps - 1:
            difference = images[row] - start(row, line)
            terms.add(row, line, difference * rising, difference * falling)
    return terms


def by_images(classifier: Classifier, output: str) -> Callable[[Tensor, Tensor, list[int], list[int]], Tensor]:
    """Return a function that differentiates an output by images, for `integrate` and `gradients`."""
    return lambda points, classes, *_: classifier.gradient(points, classes, output)


def quadrature(rule: str, steps: int) -> tuple[list[float], list[float]]:
    """Return points in [0, 1] and weights that sum to 1."""
    if rule == "midpoint":
        return [(step + 0.5) / steps for step in range(steps)], [1 / steps] * steps
    if rule == "endpoints":
        return np.linspace(0, 1, steps).tolist(), [1 / steps] * steps
    nodes, weights = np.polynomial.legendre.leggauss(steps)
    return ((1 + nodes) / 2).tolist(), (weights / 2).tolist()
