"""Class activation maps: weighted sums of a layer's activations, from one pass shared by all of them.

A is activation k of the layer at row i and column j, g the gradient of the target's logit with respect to it. Maps have
the size of the layer, which is `final` (the last spatial one), `input` (the normalized image, with its channels as
activations) or the path of a module. None is scaled to [0, 1].
"""

from typing import Literal

import torch
from torch import Tensor

from atlas.methods.shared.cam import activations, mean_products, plus_plus, products, weighted
from atlas.methods.shared.masks.feature import clean_features
from atlas.model.arrays import Attributions, Features, Images, LayerAttributions, Targets
from atlas.model.cancelling import check_terms
from atlas.model.classifier import Classifier
from atlas.model.layers import enlarged
from atlas.study.schema.types import Layer

ATTRS = {
    "cam": {
        "long_name": "CAM",
        "units": "logit",
        "reference": "zhou2016learning",
    },
    "gradcam": {
        "long_name": "Grad-CAM",
        "units": "logit",
        "reference": "selvaraju2017gradcam",
    },
    "gradcam_pp": {
        "long_name": "Grad-CAM++",
        "units": "logit",
        "reference": "chattopadhay2018gradcam",
    },
    "hirescam": {
        "long_name": "HiResCAM",
        "units": "logit",
        "reference": "draelos2020hirescam",
    },
    "xgradcam": {
        "long_name": "XGrad-CAM",
        "units": "logit",
        "reference": "fu2020axiom",
    },
    "layercam": {
        "long_name": "LayerCAM",
        "units": "logit",
        "reference": "jiang2021layercam",
    },
    "eigencam": {
        "long_name": "Eigen-CAM",
        "units": "activation",
        "reference": "muhammad2020eigencam",
    },
    "guided_gradcam": {
        "long_name": "Guided Grad-CAM",
        "units": "logit² / intensity",
        "reference": "selvaraju2017gradcam",
    },
}


def cam(
    classifier: Classifier, images: Images, targets: Targets, *, rectified: bool, layer: Layer
) -> LayerAttributions:
    """Weight the activations by the target's row of the final linear layer.

        Σₖ w_ck Aₖ

    Args:
        rectified: Whether negative values, which count against the target, are set to 0.
        layer: The layer before the head.

    Returns:
        Signed maps in logits unless rectified: they average to the target's logit minus its bias.

    Raises:
        Unsupported: what follows the layer is not global average pooling and one linear layer.

    Differs from the authors' script if rectified, like TorchCAM and others.
    """
    weights = classifier.head_weights(layer, tuple(images.shape[1:]))[targets]
    features, _ = clean_features(classifier, images, layer)
    found = classifier.batched(weighted, features, weights[:, :, None, None])
    return found.relu() if rectified else found


def gradcam(classifier: Classifier, images: Images, targets: Targets, *, layer: Layer) -> LayerAttributions:
    """Weight the activations by their mean gradients.

        ReLU(Σₖ wₖ Aₖ),    wₖ = (1/hw) Σᵢⱼ gₖ

    Args:
        layer: The layer of the activations.

    Returns:
        Maps of at least 0; 0 everywhere where all inputs are negative. On a network of global average pooling and a
        linear layer this is ReLU(CAM)/hw.

    Raises:
        Unsupported: the sum is 0 up to rounding, as before a layer normalization only, if there is a single place.
    """
    check_terms(classifier, images, layer, mean_products)
    return classifier.batched(_gradcam, *activations(classifier, images, targets, layer))


def gradcam_pp(
    classifier: Classifier, images: Images, targets: Targets, *, form: Literal["paper", "torchcam"], layer: Layer
) -> LayerAttributions:
    """Weight the activations by their positive gradients, with a separate coefficient for each location.

        ReLU(Σₖ wₖ Aₖ),    wₖ = Σᵢⱼ αₖ ReLU(gₖ),    αₖ = g² / (2 g² + g³ Σₐᵦ Aₖ)

    α is 0 where g or the denominator is 0.

    Args:
        form: `paper`, or `torchcam`, whose code loses the division: α = g².
        layer: The layer of the activations. If they have both signs, the denominator, 2 + g Σₐᵦ Aₖ after division by
            g², may nearly vanish or be negative, so that the weight loses its meaning.

    Returns:
        Maps of at least 0.

    Differs from pytorch-grad-cam, which adds 1e-6 to the denominator.
    """

    def combine(features: Features, gradients: Features) -> Tensor:
        if form == "torchcam":
            return weighted(features, (gradients**2 * gradients.relu()).sum((2, 3), keepdim=True)).relu()
        # α divided through by g²: the same number, but small gradients do not underflow when squared.
        present = (gradients != 0).to(gradients)
        return weighted(features, plus_plus(features, gradients, present, gradients)).relu()

    return classifier.batched(combine, *activations(classifier, images, targets, layer))


def hirescam(classifier: Classifier, images: Images, targets: Targets, *, layer: Layer) -> LayerAttributions:
    """Multiply activations and gradients at every location.

        ReLU(Σₖ gₖ Aₖ)

    Args:
        layer: The layer of the activations.

    Returns:
        Maps of at least 0. If the gradient is constant over an activation's map (global average pooling and a linear
        layer), this is Grad-CAM.

    Raises:
        Unsupported: the sum is 0 up to rounding at every place, as before a layer normalization only.
    """
    check_terms(classifier, images, layer, products)

    def combine(features: Features, gradients: Features) -> Tensor:
        return weighted(features, gradients).relu()

    return classifier.batched(combine, *activations(classifier, images, targets, layer))


def xgradcam(classifier: Classifier, images: Images, targets: Targets, *, layer: Layer) -> LayerAttributions:
    """Weight the activations by the mean of their gradients, weighted by the activation at each location.

        ReLU(Σₖ wₖ Aₖ),    wₖ = Σᵢⱼ gₖ Aₖ / Σᵢⱼ Aₖ

    w is 0 where the activations of a feature sum to 0.

    Args:
        layer: The layer of the activations. If they have both signs, their sum may nearly vanish, so that the weight
            loses its meaning.

    Returns:
        Maps of at least 0. If the gradient is constant over an activation's map, this is Grad-CAM, except for features
        that are never active.

    Differs from the common packages, which add 1e-8 or 1e-7 to the divisor.
    """

    def combine(features: Features, gradients: Features) -> Tensor:
        sums = features.sum((2, 3), keepdim=True)
        weights = (gradients * features).sum((2, 3), keepdim=True) / sums.where(sums != 0, 1.0)
        return weighted(features, weights.where(sums != 0, 0.0)).relu()

    return classifier.batched(combine, *activations(classifier, images, targets, layer))


def layercam(classifier: Classifier, images: Images, targets: Targets, *, layer: Layer) -> LayerAttributions:
    """Multiply activations and positive gradients at every location.

        ReLU(Σₖ ReLU(gₖ) Aₖ)

    Args:
        layer: The layer of the activations.

    Returns:
        Maps of at least 0.

    Differs from the paper: one layer, so no scaling by tanh to fuse several.
    """

    def combine(features: Features, gradients: Features) -> Tensor:
        return weighted(features, gradients.relu()).relu()

    return classifier.batched(combine, *activations(classifier, images, targets, layer))


def eigencam(classifier: Classifier, images: Images, *, layer: Layer) -> LayerAttributions:
    """Project the activations onto their first principal component.

        ReLU(± Ã v),    Ã the activations (places × features) less each feature's mean, v their first right singular
        vector, the sign such that the largest magnitude is positive

    Args:
        layer: The layer of the activations.

    Returns:
        Maps of at least 0, the same for every class. Needs no gradient: its pass is shared with cam.

    Differs from pytorch-grad-cam, whose sign is the linear algebra library's, and so arbitrary.
    """

    def combine(features: Features) -> Tensor:
        return _component(features).view(len(features), 1, *features.shape[2:]).relu()

    return classifier.batched(combine, clean_features(classifier, images, layer)[0])


def guided_gradcam(classifier: Classifier, images: Images, targets: Targets, *, layer: Layer) -> Attributions:
    """Multiply guided backpropagation by the enlarged Grad-CAM.

        A = GuidedBackprop · enlarged(Grad-CAM)

    Args:
        layer: The layer of Grad-CAM.

    Returns:
        Signed attributions, 0 where Grad-CAM is.

    Raises:
        Unsupported: the network has no ReLU, or cannot be traced, so that not every ReLU can be found; or Grad-CAM is
            unsupported.

    Differs from captum by default, which repeats Grad-CAM's values and does not interpolate.
    """
    coarse = gradcam(classifier, images, targets, layer=layer)
    with classifier.rectified("positive", "input"):
        guided = classifier.gradient(images, targets, "logit")
    return guided * enlarged(coarse, tuple(images.shape[-2:]))


def _gradcam(features: Features, gradients: Features) -> Tensor:
    return weighted(features, gradients.mean((2, 3), keepdim=True)).relu()


def _component(features: Features) -> Tensor:
    """Return each place's coordinate along the first principal component, computed in double precision."""
    places = features.flatten(2).mT.double()
    places = places - places.mean(1, keepdim=True)
    # The smaller of the two Gram matrices has the same singular values.
    if places.shape[1] <= places.shape[2]:
        values, vectors = torch.linalg.eigh(places @ places.mT)
        found = vectors[..., -1] * values[:, -1:].clamp(min=0).sqrt()
    else:
        _, vectors = torch.linalg.eigh(places.mT @ places)
        found = (places @ vectors[..., -1:])[..., 0]
    upside_down = -found.amin(1, keepdim=True) > found.amax(1, keepdim=True)
    return found.where(~upside_down, -found).to(features)
