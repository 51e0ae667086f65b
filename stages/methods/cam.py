"""Class activation maps: weighted sums of the last spatial features, from one pass for all of them.

Every map is made at the size of the features, A of feature k at row i and column j, g the gradient of the target's
logit by A, and enlarged to the image bilinearly (corners not aligned). None is scaled to [0, 1].
"""

from collections.abc import Callable

from torch import Tensor
from torch.nn.functional import interpolate

from stages.arrays import Attributions, Features, Images, Targets
from stages.classifier import Classifier, shared

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
    "layercam": {
        "long_name": "LayerCAM",
        "units": "logit",
        "reference": "jiang2021layercam",
    },
}


def cam(classifier: Classifier, images: Images, targets: Targets) -> Attributions:
    """Weight the features by the target's row of the final linear layer.

        Σₖ w_ck Aₖ

    Returns:
        Signed maps in logits: at the features' size they average to the target's logit less its bias.

    Raises:
        Unsupported: the head is not global average pooling and one linear layer.

    Differs from some code: no ReLU on the sum, as in the authors' script. The definition needs no backward pass; it
    takes the one that its family shares.
    """
    weights = classifier.head_weights()[targets]
    features, _ = _layer(classifier, images, targets)
    return _enlarged(classifier, images, _weighted, features, weights[:, :, None, None])


def gradcam(classifier: Classifier, images: Images, targets: Targets) -> Attributions:
    """Weight the features by their mean gradients.

        ReLU(Σₖ wₖ Aₖ),    wₖ = (1/hw) Σᵢⱼ gₖ

    Returns:
        Maps of at least 0; 0 everywhere where all evidence is negative. On a network of global average pooling and
        a linear layer this is ReLU(CAM)/hw.
    """

    def combine(features: Features, gradients: Features) -> Tensor:
        return _weighted(features, gradients.mean((2, 3), keepdim=True)).relu()

    return _enlarged(classifier, images, combine, *_layer(classifier, images, targets))


def gradcam_pp(classifier: Classifier, images: Images, targets: Targets) -> Attributions:
    """Weight the features by their positive gradients, each location by a share of its own.

        ReLU(Σₖ wₖ Aₖ),    wₖ = Σᵢⱼ αₖ ReLU(gₖ),    αₖ = g² / (2 g² + g³ Σₐᵦ Aₖ)

    α is 0 where g is 0 or the denominator is.

    Returns:
        Maps of at least 0.

    Differs from TorchCAM, where the division is lost (α = g²) and the denominator sums g³ A; from pytorch-grad-cam,
    which adds 1e-6 to the denominator.
    """

    def combine(features: Features, gradients: Features) -> Tensor:
        # α divided through by g²: the same number, and small gradients do not underflow when squared.
        denominators = 2 + gradients * features.sum((2, 3), keepdim=True)
        shares = gradients.relu() / denominators.where(denominators != 0, 1.0)
        weights = shares.where(denominators != 0, 0.0).sum((2, 3), keepdim=True)
        return _weighted(features, weights).relu()

    return _enlarged(classifier, images, combine, *_layer(classifier, images, targets))


def hirescam(classifier: Classifier, images: Images, targets: Targets) -> Attributions:
    """Multiply features and gradients at every location.

        ReLU(Σₖ gₖ Aₖ)

    Returns:
        Maps of at least 0. Where the gradient is constant over a feature (global average pooling and a linear
        layer) this is Grad-CAM.
    """

    def combine(features: Features, gradients: Features) -> Tensor:
        return _weighted(features, gradients).relu()

    return _enlarged(classifier, images, combine, *_layer(classifier, images, targets))


def layercam(classifier: Classifier, images: Images, targets: Targets) -> Attributions:
    """Multiply features and positive gradients at every location.

        ReLU(Σₖ ReLU(gₖ) Aₖ)

    Returns:
        Maps of at least 0.

    Differs from the paper: one layer, so no scaling by tanh to fuse several.
    """

    def combine(features: Features, gradients: Features) -> Tensor:
        return _weighted(features, gradients.relu()).relu()

    return _enlarged(classifier, images, combine, *_layer(classifier, images, targets))


@shared
def _layer(classifier: Classifier, images: Images, targets: Targets) -> tuple[Features, Features]:
    return classifier.features_and_gradients(images, targets)


def _weighted(features: Tensor, weights: Tensor) -> Tensor:
    return (weights * features).sum(1, keepdim=True)


def _enlarged(classifier: Classifier, images: Images, combine: Callable[..., Tensor], *parts: Tensor) -> Attributions:
    size = tuple(images.shape[-2:])

    def of(*parts: Tensor) -> Tensor:
        # A part of a longer tensor and a padded one differ in strides, and so would the order of their sums.
        coarse = combine(*(part.contiguous() for part in parts))
        return interpolate(coarse, size=size, mode="bilinear", align_corners=False)

    return classifier.batched(of, *parts)
