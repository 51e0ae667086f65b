"""Methods of one backward pass, to the image or to a layer's activations."""

from typing import Literal

from torch import Tensor

from atlas.methods.shared.checks import check_baseline
from atlas.methods.shared.fill import color
from atlas.model.arrays import Images, LayerAttributions, Targets
from atlas.model.batch_cache import shared
from atlas.model.classifier import Classifier
from atlas.study.schema.types import Layer, Output, Sign

ATTRS = {
    "gradient": {
        "long_name": "Gradient",
        "units": "logit / intensity",
        "reference": "simonyan2014deep",
    },
    "input_x_gradient": {
        "long_name": "Input × gradient",
        "units": "logit",
        "reference": "shrikumar2016not",
    },
    "guided_backprop": {
        "long_name": "Guided backpropagation",
        "units": "logit / intensity",
        "reference": "springenberg2015striving",
    },
}


def gradient(
    classifier: Classifier,
    images: Images,
    targets: Targets,
    *,
    sign: Sign,
    output: Output,
    layer: Layer,
) -> LayerAttributions:
    """Differentiate the target's output by the image, or by a layer's activations.

        A = ∇f(x)

    Returns:
        Signed attributions in the output's unit per unit of intensity, or of activation.

    Raises:
        Unsupported: the network cannot be cut at the layer.

    Differs from the paper: signed, where Simonyan et al. take the largest absolute value over channels (the entry's
    `channels: max_abs` does that); with respect to intensities in [0, 1], so that the classifier's normalization is
    part of f.
    """
    return _of_sign(_gradients(classifier, images, targets, output, layer)[1], sign)


def input_x_gradient(
    classifier: Classifier,
    images: Images,
    targets: Targets,
    *,
    baseline: Literal["black", "mean", "zero"],
    output: Output,
    layer: Layer,
) -> LayerAttributions:
    """Multiply the image, or a layer's activations, by the gradient of the target's output.

        A = (x − b) · ∇f(x)

    Args:
        baseline: What gets no attribution: black, or the classifier's mean color, which is 0 for the normalized image;
            at a layer other than `input`, the activations `zero`.

    Returns:
        Signed attributions in the output's unit. On a linear classifier they sum to f(x) − f(b).

    Raises:
        Unsupported: the network cannot be cut at the layer.

    Differs from the usual code: none with the mean color, which amounts to multiplying by the normalized image.
    """
    check_baseline("input_x_gradient", baseline, layer)
    activations, gradients = _gradients(classifier, images, targets, output, layer)
    starts = 0 if baseline == "zero" else color(classifier, baseline)
    return (activations - starts) * gradients


def guided_backprop(
    classifier: Classifier,
    images: Images,
    targets: Targets,
    *,
    sign: Literal["positive", "negative", "absolute"],
    layer: Layer,
) -> LayerAttributions:
    """Differentiate the target's logit, letting only gradients of one sign back through every ReLU.

    A ReLU passes g · 1[input > 0] · 1[g > 0] back, or 1[g < 0], or |g| · 1[input > 0].

    Args:
        sign: The gradients that pass: `positive` is the method of the paper, the others are variants of Guided
            AbsoluteGrad's authors.

    Returns:
        Signed attributions in logits per unit of intensity, or of activation.

    Raises:
        Unsupported: no ReLU follows the layer, so that this would be the plain gradient; the network's forward cannot
            be traced, so that not every ReLU can be found; or the network cannot be cut at the layer.
    """
    with classifier.rectified(sign, layer, tuple(images.shape[1:])):
        return _differentiated(classifier, images, targets, "logit", layer)[1]


def _of_sign(gradients: Tensor, sign: str) -> Tensor:
    """Return gradients unchanged, those above 0, those below 0 (others set to 0), or their absolute values."""
    if sign == "positive":
        return gradients.clamp(min=0)
    if sign == "negative":
        return gradients.clamp(max=0)
    return gradients.abs() if sign == "absolute" else gradients


@shared(calls=2)  # two calls, as two layers, or two outputs, alternate
def _gradients(
    classifier: Classifier, images: Images, targets: Targets, output: str, layer: str
) -> tuple[LayerAttributions, LayerAttributions]:
    return _differentiated(classifier, images, targets, output, layer)


def _differentiated(
    classifier: Classifier, images: Images, targets: Targets, output: str, layer: str
) -> tuple[LayerAttributions, LayerAttributions]:
    if layer == "input":
        return images, classifier.gradient(images, targets, output)
    return classifier.features_and_gradients(images, targets, layer, output)
