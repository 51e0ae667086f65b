"""Common parts of class activation maps: a layer's activations with their gradients, and weighted sums of them."""

from torch import Tensor

from atlas.model.arrays import Features, Images, Targets
from atlas.model.batch_cache import shared
from atlas.model.classifier import Classifier


@shared(calls=2)  # two calls, as entries of two layers alternate
def activations(classifier: Classifier, images: Images, targets: Targets, layer: str) -> tuple[Features, Features]:
    """Return a layer's activations and the gradient of the target's logit by them, shared by the family."""
    return classifier.features_and_gradients(images, targets, layer, "logit")


def products(features: Tensor, gradients: Tensor) -> Tensor:
    """Return g · A, which HiResCAM sums over features."""
    return features * gradients


def mean_products(features: Tensor, gradients: Tensor) -> Tensor:
    """Return w · A with the mean gradient w, which Grad-CAM sums over features."""
    return features * gradients.mean((2, 3), keepdim=True)


def weighted(features: Tensor, weights: Tensor) -> Tensor:
    """Return Σₖ wₖ Aₖ as one channel."""
    return (weights * features).sum(1, keepdim=True)


def plus_plus(features: Tensor, gradients: Tensor, squares: Tensor, cubes: Tensor) -> Tensor:
    """Return the weights of Grad-CAM++, Σᵢⱼ α ReLU(g) with α = g² / (2 g² + g³ Σ A), 0 where the denominator is."""
    denominators = 2 * squares + cubes * features.sum((2, 3), keepdim=True)
    alphas = (squares / denominators.where(denominators != 0, 1.0)).where(denominators != 0, 0.0)
    return (alphas * gradients.relu()).sum((2, 3), keepdim=True)
