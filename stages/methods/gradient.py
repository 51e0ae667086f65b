"""Methods of one backward pass, to the image or to a layer's activations."""

from typing import Literal

from stages.arrays import Images, LayerAttributions, Targets
from stages.classifier import Classifier
from stages.memory import shared
from stages.methods._signs import kept

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
    sign: Literal["both", "positive", "negative", "absolute"],
    output: Literal["logit", "probability", "loss"],
    layer: str,
) -> LayerAttributions:
    """Differentiate the target's output by the image, or by a layer's activations.

        A = ∇f(x)

    Args:
        sign: Which gradients are kept: both signs, those above 0, those below 0 (the others 0), or absolute values.
        output: f: the target's logit, its probability, or the cross-entropy loss.
        layer: `input`, `final`, or the path of a module.

    Returns:
        Signed attributions in the output's unit per unit of intensity, or of activation.

    Raises:
        Unsupported: the network cannot be cut at the layer.

    Differs from the paper: signed, where Simonyan et al. take the largest absolute value over channels (the entry's
    `channels: max_abs` does that); by intensities in [0, 1], so that the classifier's normalization is inside f.
    """
    return kept(_gradients(classifier, images, targets, output, layer)[1], sign)


def input_x_gradient(
    classifier: Classifier,
    images: Images,
    targets: Targets,
    *,
    output: Literal["logit", "probability", "loss"],
    layer: str,
) -> LayerAttributions:
    """Multiply the image, or a layer's activations, by the gradient of the target's output.

        A = x · ∇f(x)

    Args:
        output: f: the target's logit, its probability, or the cross-entropy loss.
        layer: `input`, `final`, or the path of a module.

    Returns:
        Signed attributions in the output's unit; 0 wherever the image is black. On a linear classifier they sum to
        f(x) − f(black).

    Raises:
        Unsupported: the network cannot be cut at the layer.

    Differs from the usual code: x is the intensity in [0, 1], not the normalized input, so black and not the mean
    color is what gets nothing.
    """
    activations, gradients = _gradients(classifier, images, targets, output, layer)
    return activations * gradients


def guided_backprop(
    classifier: Classifier,
    images: Images,
    targets: Targets,
    *,
    sign: Literal["positive", "negative", "absolute"],
    layer: str,
) -> LayerAttributions:
    """Differentiate the target's logit, letting only gradients of one sign back through every ReLU.

    A ReLU passes g · 1[input > 0] · 1[g > 0] back, or 1[g < 0], or |g| · 1[input > 0].

    Args:
        sign: The gradients that pass: `positive` is the method of the paper, the others are variants of Guided
            AbsoluteGrad's authors.
        layer: `input`, `final`, or the path of a module.

    Returns:
        Signed attributions in logits per unit of intensity, or of activation. Where no ReLU follows the layer this
        is the gradient.

    Raises:
        Unsupported: the network's forward cannot be traced, so that not every ReLU can be found, or the network
            cannot be cut at the layer.
    """
    with classifier.rectified(sign, layer):
        return _differentiated(classifier, images, targets, "logit", layer)[1]


@shared(calls=2)  # two layers, or two outputs, take turns
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
