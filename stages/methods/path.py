"""Methods that integrate gradients along the line from a baseline."""

from functools import lru_cache
from typing import Literal

from torch import Tensor

from stages import seeds as draws
from stages.arrays import Attributions, Images, Seeds, Targets
from stages.classifier import Classifier
from stages.methods._path import baselines as absent
from stages.methods._path import check_count, integrate

ATTRS = {
    "integrated_gradients": {
        "long_name": "Integrated gradients",
        "units": "logit",
        "reference": "sundararajan2017axiomatic",
    },
    "integrated_gradients_random": {
        "long_name": "Integrated gradients from random baselines",
        "units": "logit",
        "reference": "sturmfels2020visualizing",
    },
}


def integrated_gradients(
    classifier: Classifier,
    images: Images,
    targets: Targets,
    *,
    steps: int,
    baseline: Literal["black", "mean", "blur"],
    rule: Literal["gauss_legendre", "midpoint", "endpoints"],
) -> Attributions:
    """Integrate the gradient along the line from a baseline to the image.

        A = (x − b) · ∫₀¹ ∇f(b + α (x − b)) dα

    Args:
        steps: Points on the line, one pass each.
        baseline: What stands for an absent image: black, the classifier's mean color, or the image under a Gaussian
            of a tenth of its shorter side.
        rule: Where the points lie and what they weigh.

    Returns:
        Signed attributions in logits. They sum to f(x) − f(b) (completeness), up to the rule's error: exactly where
        the logit is a polynomial of degree up to 2 · steps along the line (Gauss–Legendre), or up to O(steps⁻²)
        where it is smooth (midpoint), or O(steps⁻¹) (endpoints); ReLU networks have kinks, so look at the sum.

    Differs from the paper: it sums at right-hand ends, whose error is O(steps⁻¹). The plain mean over points from
    one end to the other, both included, is PAIR's (`endpoints`); it weighs the ends twice as much as the trapezoidal
    rule does.
    """
    check_count("integrated_gradients", "steps", steps)
    starts = absent(classifier, images, baseline)
    return integrate(classifier, images, targets, lambda row, _: starts[row], lines=1, steps=steps, rule=rule)


def integrated_gradients_random(
    classifier: Classifier,
    images: Images,
    targets: Targets,
    seeds: Seeds,
    *,
    steps: int,
    baselines: int,
    rule: Literal["gauss_legendre", "midpoint", "endpoints"],
) -> Attributions:
    """Average integrated gradients over baselines of uniform noise.

        A = (1/n) Σₖ (x − bₖ) · ∫₀¹ ∇f(bₖ + α (x − bₖ)) dα,    bₖ ~ U[0, 1) at every pixel and channel

    Args:
        steps: Points on every line, one pass each.
        baselines: Baselines n of every image, from its own seed; more of them keep the first.
        rule: Where the points lie and what they weigh.

    Returns:
        Signed attributions in logits. They sum to f(x) − (1/n) Σₖ f(bₖ), up to the rule's error.

    Differs from the Guided AbsoluteGrad code: it differentiates the loss, and draws from the range of the whole
    batch, after normalization.
    """
    check_count("integrated_gradients_random", "steps", steps)
    check_count("integrated_gradients_random", "baselines", baselines)
    shape = tuple(images.shape[1:])

    @lru_cache(maxsize=classifier.batch)  # a batch meets no more
    def start(row: int, line: int) -> Tensor:
        return draws.uniform([seeds[row]], "baseline", line, shape)[0].to(images)

    return integrate(classifier, images, targets, start, lines=baselines, steps=steps, rule=rule)
