"""Methods that integrate gradients along lines from baselines."""

from functools import lru_cache
from typing import Literal

import torch
from torch import Tensor

from atlas.methods.shared.background import BackgroundLines
from atlas.methods.shared.batches import gradients
from atlas.methods.shared.checks import check_at_least, check_baseline
from atlas.methods.shared.guide import check_guide
from atlas.methods.shared.path import baselines as absent
from atlas.methods.shared.path import by_images, integrate
from atlas.methods.shared.terms import Terms
from atlas.model.arrays import Attributions, Background, Images, LayerAttributions, Seeds, Targets
from atlas.model.batch_cache import shared
from atlas.model.classifier import Classifier
from atlas.study import seeds as draws
from atlas.study.schema.types import Count, Floor, Layer, Output, Percentile, Rule, Sign

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
    "expected_gradients": {
        "long_name": "Expected gradients",
        "units": "logit",
        "reference": "erion2021improving, lundberg2017unified",
    },
}


def integrated_gradients(
    classifier: Classifier,
    images: Images,
    targets: Targets,
    *,
    steps: Count,
    baseline: Literal["black", "mean", "blur", "zero"],
    rule: Rule,
    sign: Sign,
    output: Output,
    layer: Layer,
) -> LayerAttributions:
    """Integrate the gradient along the line from a baseline to the image, or to a layer's activations.

        A = (x − b) · ∫₀¹ ∇f(b + α (x − b)) dα

    Args:
        steps: Points on the line, one pass each: of the whole network, or of the part after the layer.
        baseline: What stands for an absent image: black, the classifier's mean color, or the image blurred by a
            Gaussian of a tenth of its shorter side; at a layer other than `input`, the activations `zero`.
        sign: `both` is the method; with `absolute`, the map is made of absolute gradients.

    Returns:
        Signed attributions in the output's unit. They sum to f(x) − f(b) (completeness), up to the rule's error:
        exactly where the output is a polynomial of degree up to 2 · steps along the line (Gauss–Legendre), or up to
        O(steps⁻²) where it is smooth (midpoint), or O(steps⁻¹) (endpoints); ReLU networks have kinks, so look at the
        sum.

    Raises:
        Unsupported: the network cannot be cut at the layer.

    Differs from the paper, which sums at right-hand ends, with an error of O(steps⁻¹). PAIR's rule, the plain mean over
    points from one end to the other, both included, is `endpoints`; it weights the ends twice as much as the
    trapezoidal rule does.
    """
    check_at_least("integrated_gradients", "steps", steps, 1)
    check_baseline("integrated_gradients", baseline, layer)
    terms = _line(classifier, images, targets, steps, baseline, rule, output, layer)
    return terms.total(sign, percentile=0, floor="raw")


def integrated_gradients_random(
    classifier: Classifier,
    images: Images,
    targets: Targets,
    seeds: Seeds,
    *,
    steps: Count,
    baselines: Count,
    rule: Rule,
    sign: Sign,
    output: Output,
    percentile: Percentile,
    floor: Floor,
) -> Attributions:
    """Average integrated gradients over baselines of uniform noise.

        A = W · (1/n) Σₖ (x − bₖ) · ∫₀¹ ∇f(bₖ + α (x − bₖ)) dα,    bₖ ~ U[0, 1) at every pixel and channel

    Args:
        steps: Points on every line, one pass each.
        baselines: Number n of baselines per image, from its own seed; a larger n keeps the first ones.
        sign: `both` is the method; with `absolute`, the absolute values of the terms are averaged.
        percentile: The percentile of the variance of the n terms.

    Returns:
        Signed attributions in the output's unit. They sum to f(x) − (1/n) Σₖ f(bₖ), up to the rule's error.

    Differs from the Guided AbsoluteGrad code, which differentiates the loss (`output: loss`), draws from the range of
    the whole batch after normalization, and takes points from end to end (`rule: endpoints`).
    """
    check_at_least("integrated_gradients_random", "steps", steps, 1)
    check_at_least("integrated_gradients_random", "baselines", baselines, 1)
    check_guide("integrated_gradients_random", percentile, "baselines", baselines)
    terms = _random_lines(classifier, images, targets, seeds, steps, baselines, rule, output)
    return terms.total(sign, percentile, floor) / baselines


def expected_gradients(
    classifier: Classifier,
    images: Images,
    targets: Targets,
    seeds: Seeds,
    background: Background,
    *,
    samples: Count,
    output: Output,
) -> Attributions:
    """Average the gradient at random points on lines from images of a background set.

        A = (1/n) Σₛ (x − bₛ) · ∇f(bₛ + αₛ (x − bₛ)),    bₛ drawn from the background set, αₛ ~ U[0, 1)

    Args:
        samples: Number n of draws of a background image, with replacement, and of a point on the line from it, one pass
            each, from the image's own seed; a larger n keeps the first draws.

    Returns:
        Signed attributions in the output's unit. Their sum is an unbiased estimate of f(x) minus the mean of f over the
        background set.

    Differs from the usual code: none known except the random draws (SHAP's GradientExplainer is this estimate).
    """
    check_at_least("expected_gradients", "samples", samples, 1)
    lines = BackgroundLines(images, seeds, background, samples)
    found = torch.zeros_like(images)
    differentiate = by_images(classifier, output)
    for row, number, gradient in gradients(targets, samples, classifier.batch, lines.points, differentiate):
        found[row] += (images[row] - background[lines.start(row, number)]) * gradient
    return found / samples


@shared(calls=2)  # two calls, as entries of several layers, rules or baselines alternate
def _line(
    classifier: Classifier,
    images: Images,
    targets: Targets,
    steps: int,
    baseline: Literal["black", "mean", "blur", "zero"],
    rule: str,
    output: str,
    layer: str,
) -> Terms:
    if baseline != "zero":  # at the layer `input`
        ends, starts = images, absent(classifier, images, baseline)
        differentiate = by_images(classifier, output)
    else:
        ends, bypass = classifier.features(images, layer)
        starts = torch.zeros_like(ends)

        def differentiate(points: Tensor, classes: Tensor, rows: list[int], _: list[int]) -> Tensor:
            return classifier.head_gradient(points, bypass[rows], classes, layer, output)

    return integrate(
        ends,
        targets,
        lambda row, _: starts[row],
        differentiate,
        lines=1,
        steps=steps,
        rule=rule,
        batch=classifier.batch,
    )


@shared(calls=2)
def _random_lines(
    classifier: Classifier,
    images: Images,
    targets: Targets,
    seeds: Seeds,
    steps: int,
    baselines: int,
    rule: str,
    output: str,
) -> Terms:
    shape = tuple(images.shape[1:])

    @lru_cache(maxsize=classifier.batch)  # no more in a batch
    def start(row: int, line: int) -> Tensor:
        return draws.uniform([seeds[row]], "baseline", line, shape)[0].to(images)

    return integrate(
        images,
        targets,
        start,
        by_images(classifier, output),
        lines=baselines,
        steps=steps,
        rule=rule,
        batch=classifier.batch,
        guided=True,
    )
