"""Methods of one backward pass to the image."""

from typing import Literal

from stages.arrays import Attributions, Images, Targets
from stages.classifier import Classifier, shared
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
) -> Attributions:
    """Differentiate the target's logit by the image.

        A = ∇f(x)

    Args:
        sign: Which gradients are kept: both signs, those above 0, those below 0 (the others 0), or absolute values.

    Returns:
        Signed attributions in logits per unit of intensity.

    Differs from the paper: signed, where Simonyan et al. take the largest absolute value over channels (the entry's
    `channels: max_abs` does that); by intensities in [0, 1], so that the classifier's normalization is inside f.
    """
    return kept(_gradient(classifier, images, targets), sign)


def input_x_gradient(classifier: Classifier, images: Images, targets: Targets) -> Attributions:
    """Multiply the image by the gradient of the target's logit.

        A = x · ∇f(x)

    Returns:
        Signed attributions in logits; 0 wherever the image is black. On a linear classifier they sum to
        f(x) − f(black).

    Differs from the usual code: x is the intensity in [0, 1], not the normalized input, so black and not the mean
    color is what gets nothing.
    """
    return images * _gradient(classifier, images, targets)


def guided_backprop(
    classifier: Classifier,
    images: Images,
    targets: Targets,
    *,
    sign: Literal["positive", "negative", "absolute"],
) -> Attributions:
    """Differentiate the target's logit, letting only gradients of one sign back through every ReLU.

    A ReLU passes g · 1[input > 0] · 1[g > 0] back, or 1[g < 0], or |g| · 1[input > 0].

    Args:
        sign: The gradients that pass: `positive` is the method of the paper, the others are variants of Guided
            AbsoluteGrad's authors.

    Returns:
        Signed attributions in logits per unit of intensity. On a network without ReLU this is the gradient.

    Raises:
        Unsupported: the network's forward cannot be traced, so that not every ReLU can be found.
    """
    return classifier.guided_gradient(images, targets, sign)


@shared
def _gradient(classifier: Classifier, images: Images, targets: Targets) -> Images:
    return classifier.gradient(images, targets)
