"""Class activation maps whose weights are averaged over many versions of the image.

A is activation k of the layer at row i and column j for the clean image, g the gradient of the target's logit with
respect to it. Maps have the size of the layer. None is scaled to [0, 1].
"""

from collections.abc import Callable, Iterable
from typing import Literal

import torch
from torch import Tensor

from atlas.methods.shared.background import BackgroundLines
from atlas.methods.shared.batches import gradients
from atlas.methods.shared.cam import plus_plus, weighted
from atlas.methods.shared.checks import check_at_least
from atlas.methods.shared.fill import color
from atlas.methods.shared.masks.feature import clean_features
from atlas.model.arrays import Background, Features, Images, LayerAttributions, Seeds, Targets
from atlas.model.batch_cache import shared
from atlas.model.classifier import Classifier
from atlas.study import seeds as draws
from atlas.study.schema.types import Color, Count, Layer, NotNegative

ATTRS = {
    "smooth_gradcam_pp": {
        "long_name": "Smooth Grad-CAM++",
        "units": "logit",
        "reference": "omeiza2019smooth",
    },
    "integrated_gradcam": {
        "long_name": "Integrated Grad-CAM",
        "units": "logit",
        "reference": "sattarzadeh2021integrated",
    },
    "expected_gradcam": {
        "long_name": "Expected Grad-CAM",
        "units": "logit · activation",
        "reference": "buono2024expected",
    },
}


def smooth_gradcam_pp(
    classifier: Classifier,
    images: Images,
    targets: Targets,
    seeds: Seeds,
    *,
    samples: Count,
    deviation: NotNegative,
    form: Literal["paper", "torchcam"],
    layer: Layer,
) -> LayerAttributions:
    """Weight the activations as Grad-CAM++ does, by powers of the gradient averaged over noisy samples of the image.

        ReLU(Σₖ wₖ Aₖ),    wₖ = Σᵢⱼ α ReLU(E g),    α = E g² / (2 E g² + E g³ Σₐᵦ Aₖ)

    Args:
        samples: Number n of noisy samples, one forward and backward pass each, besides the clean image's forward pass.
        deviation: Standard deviation of the noise on the normalized image.
        form: `paper`; or `torchcam`, which uses ReLU(g) and the weighted A of the last noisy sample, and Σₐᵦ E g³ A in
            the denominator.
        layer: The layer of the activations. If they have both signs, the denominator may nearly vanish or be negative,
            so that the weight loses its meaning.

    Returns:
        Maps of at least 0. Without noise the paper's form is Grad-CAM++.

    Differs from the paper as printed, whose α has E g in the numerator, an error that torchcam corrects, too; and from
    torchcam, which adds 1e-8 to the denominator.
    """
    check_at_least("smooth_gradcam_pp", "samples", samples, 1)
    check_at_least("smooth_gradcam_pp", "deviation", deviation, 0)
    clean = clean_features(classifier, images, layer)[0]
    shape = tuple(images.shape[1:])
    deviations = deviation * classifier.std.view(-1, 1, 1)

    def perturb(rows: list[int], numbers: list[int]) -> Tensor:
        pairs = zip(rows, numbers, strict=True)
        noise = [draws.normal([seeds[row]], "smooth_gradcam_pp", number, shape) for row, number in pairs]
        return images[rows] + deviations * torch.cat(noise).to(images)

    one, two, three = (torch.zeros_like(clean) for _ in range(3))
    last_features, last_gradients = torch.zeros_like(clean), torch.zeros_like(clean)
    differentiate = _both(classifier, layer)
    for row, number, (features, gradient) in gradients(targets, samples, classifier.batch, perturb, differentiate):
        for power, total in enumerate((one, two, three), start=1):
            total[row] += gradient**power / samples
        if number == samples - 1:
            last_features[row], last_gradients[row] = features, gradient

    def paper(features: Features, one: Tensor, two: Tensor, three: Tensor) -> Tensor:
        return weighted(features, plus_plus(features, one, two, three)).relu()

    def torchcam(features: Features, two: Tensor, three: Tensor, last: Tensor, gradient: Tensor) -> Tensor:
        divisors = 2 * two + (three * features).sum((2, 3), keepdim=True)
        alphas = (two / divisors.where(divisors != 0, 1.0)).where(divisors != 0, 0.0)
        return weighted(last, (alphas * gradient.relu()).sum((2, 3), keepdim=True)).relu()

    if form == "torchcam":
        return classifier.batched(torchcam, clean, two, three, last_features, last_gradients)
    return classifier.batched(paper, clean, one, two, three)


def integrated_gradcam(
    classifier: Classifier,
    images: Images,
    targets: Targets,
    *,
    steps: Count,
    baseline: Color,
    difference: bool,
    layer: Layer,
) -> LayerAttributions:
    """Average Grad-CAM along the line from a baseline to the image.

        (1/n) Σₛ ReLU(Σₖ wₖₛ Aₖ(xₛ)),    wₖₛ = (1/hw) Σᵢⱼ gₖ(xₛ),    xₛ = b + (s/n) (x − b),    s = 0 … n − 1

    Args:
        steps: Number n of points on the line, one pass each; the image itself is not among them.
        baseline: The start of the line.
        difference: Whether the baseline's activations are subtracted from A(xₛ), as in the paper, which costs one more
            pass. The authors' code subtracts nothing by default.
        layer: The layer of the activations.

    Returns:
        Maps of at least 0.

    Differs from the authors' code: a mean, where it sums.
    """
    check_at_least("integrated_gradcam", "steps", steps, 1)
    start = color(classifier, baseline)
    empty = classifier.features(start.expand_as(images), layer)[0] if difference else None

    def along(rows: list[int], numbers: list[int]) -> Tensor:
        alphas = images.new_tensor([number / steps for number in numbers]).view(-1, 1, 1, 1)
        return start + alphas * (images[rows] - start)

    found: dict[int, Tensor] = {}
    for row, _, (features, gradient) in gradients(targets, steps, classifier.batch, along, _both(classifier, layer)):
        change = features if empty is None else features - empty[row]
        step = (gradient.mean((1, 2), keepdim=True) * change).sum(0, keepdim=True).relu() / steps
        found[row] = found[row] + step if row in found else step
    return torch.stack([found[row] for row in range(len(images))])


def expected_gradcam(
    classifier: Classifier,
    images: Images,
    targets: Targets,
    seeds: Seeds,
    background: Background,
    *,
    samples: Count,
    difference: Literal["latent", "image"],
    smoothing: Literal["uniform", "gaussian"],
    scale: NotNegative,
    layer: Layer,
) -> LayerAttributions:
    """Weight the activations by their expected gradients, on lines from images of a background set.

        ReLU(Σₖ wₖ Aₖ),    wₖ = (1/n) Σₛ (1/hw) Σᵢⱼ D gₖ(zₛ),    zₛ = bₛ + αₛ (x − bₛ) + ηₛ,    αₛ ~ U[0, 1)

    b is drawn from the background set, with replacement; D is A(x) − A(b) or A(x − b).

    Args:
        samples: Number n of draws, one forward and backward pass each, from the image's own seed; a larger n keeps the
            first draws.
        difference: D: `latent`, the difference of activations, which costs one pass for the image and one for each
            image of the background set, only once; or `image`, the activations of the difference of normalized images,
            one more pass per draw.
        smoothing: η: uniform in [0, scale), or Gaussian with scale as its standard deviation, on the normalized image.
        scale: Scale of the smoothing; 0 for none.
        layer: The layer of the activations.

    Returns:
        Maps of at least 0. On a network of global average pooling and a linear layer w, for any α and η, `latent` gives
        wₖ = w_ck (Ā(x) − Ā(b)) / hw, with means over places and draws.

    Differs from the paper where it is silent or ambiguous: the kernel is the mean over draws; the background set is
    held out, as a set of the other evaluated images would change with the study. According to the paper's running
    times, n is about 20. Each kind of difference uses its own gradients.
    """
    check_at_least("expected_gradcam", "samples", samples, 1)
    check_at_least("expected_gradcam", "scale", scale, 0)
    shape, deviations = tuple(images.shape[1:]), scale * classifier.std.view(-1, 1, 1)
    noisy = {"uniform": draws.uniform, "gaussian": draws.normal}[smoothing]
    lines = BackgroundLines(images, seeds, background, samples)
    clean = clean_features(classifier, images, layer)[0]
    absent = _background(classifier, background, layer) if difference == "latent" else None

    def along(rows: list[int], numbers: list[int]) -> Tensor:
        pairs = zip(rows, numbers, strict=True)
        noise = torch.cat([noisy([seeds[row]], "expected_gradcam", number, shape) for row, number in pairs])
        return lines.points(rows, numbers) + deviations * noise.to(images)

    def weigh(points: Tensor, classes: Tensor, rows: list[int], numbers: list[int]) -> Tensor:
        _, gradient = classifier.features_and_gradients(points, classes, layer, "logit")
        if absent is None:
            # An image whose normalization is the difference of the normalized images.
            apart = images[rows] - lines.starts(rows, numbers) + classifier.mean.view(-1, 1, 1)
            change = classifier.features(apart, layer)[0]
        else:
            pairs = zip(rows, numbers, strict=True)
            change = clean[rows] - absent[[lines.start(row, number) for row, number in pairs]]
        return classifier.batched(_mean_product, change, gradient)

    weights = clean.new_zeros(*clean.shape[:2], 1, 1)
    for row, _, weight in gradients(targets, samples, classifier.batch, along, weigh):
        weights[row] += weight / samples
    return classifier.batched(lambda *parts: weighted(*parts).relu(), clean, weights)


def _mean_product(change: Tensor, gradient: Tensor) -> Tensor:
    return (change * gradient).mean((2, 3), keepdim=True)


@shared(calls=2, lasting=True)  # two calls, as entries of two layers alternate
def _background(classifier: Classifier, background: Background, layer: str) -> Features:
    return classifier.features(background, layer)[0]


def _both(classifier: Classifier, layer: str) -> Callable[..., Iterable[tuple[Tensor, Tensor]]]:
    """Return a function that computes activations and gradients at images, for `gradients`."""
    return lambda points, classes, *_: zip(
        *classifier.features_and_gradients(points, classes, layer, "logit"), strict=True
    )
