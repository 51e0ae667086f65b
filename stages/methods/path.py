"""Methods that integrate gradients along a path from a baseline."""

from typing import Literal

import numpy as np
import torch
from torch import Tensor

from stages.arrays import Attributions, Images, Targets
from stages.classifier import Classifier
from stages.methods._batches import gradients
from stages.methods._fill import color

ATTRS = {
    "integrated_gradients": {
        "long_name": "Integrated gradients",
        "units": "logit",
        "reference": "sundararajan2017axiomatic",
    },
}


def integrated_gradients(
    classifier: Classifier,
    images: Images,
    targets: Targets,
    *,
    steps: int,
    baseline: Literal["black", "mean"],
    rule: Literal["gauss_legendre", "midpoint"],
) -> Attributions:
    """Integrate the gradient along the line from a baseline to the image.

        A = (x − b) · ∫₀¹ ∇f(b + α (x − b)) dα

    Args:
        steps: Points on the line, one pass each.
        baseline: What stands for an absent image: black, or the classifier's mean color.
        rule: Where the points lie and what they weigh.

    Returns:
        Signed attributions in logits. They sum to f(x) − f(b) (completeness), up to the rule's error: exactly where
        the logit is a polynomial of degree up to 2 · steps along the line (Gauss–Legendre), or up to O(steps⁻²)
        where it is smooth (midpoint); ReLU networks have kinks, so look at the sum.

    Differs from the paper: it sums at right-hand ends, whose error is O(steps⁻¹).
    """
    start = color(classifier, baseline)
    nodes, weights = _quadrature(rule, steps)
    alphas = torch.tensor(nodes, dtype=images.dtype, device=images.device).view(-1, 1, 1, 1)

    def along(rows: list[int], samples: list[int]) -> Tensor:
        points = images[rows] - start
        points *= alphas[samples]
        points += start
        return points

    total = torch.zeros_like(images)
    for row, step, gradient in gradients(classifier, images, targets, steps, along):
        total[row] += weights[step] * gradient
    return (images - start) * total


def _quadrature(rule: str, steps: int) -> tuple[list[float], list[float]]:
    """Give points in [0, 1] and weights that sum to 1."""
    if rule == "midpoint":
        return [(step + 0.5) / steps for step in range(steps)], [1 / steps] * steps
    nodes, weights = np.polynomial.legendre.leggauss(steps)
    return ((1 + nodes) / 2).tolist(), (weights / 2).tolist()
