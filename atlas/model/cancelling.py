"""Detect sums over features that are 0 in exact arithmetic, so that only rounding would be left.

What a layer normalization alone looks at may be scaled, and shifted, without any change behind it. So there g · A sums
to 0 over a place's features, and so does g, whatever the image: a map of such sums is noise.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

from torch import Tensor
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from atlas.model.arrays import Features, Images
from atlas.model.classifier import Classifier
from atlas.model.outputs import NotFinite
from atlas.study.errors import Unsupported
from atlas.study.seeds import uniform

# |Σ| / Σ| | below which a sum is called 0. Where terms do not cancel it is about 1/√features, 0.02 for 2048 of them.
LEAST = 1e-3
FEW = 4  # images, or places, that are looked at: one alone may have such a ratio by chance
# Normalizations over features, by the place of their ε among the arguments. It keeps some of the scale of their input.
NORMALIZATIONS = {functional.layer_norm: 4, functional.group_norm: 4, functional.rms_norm: 3}
EPSILON = 1e-30  # what stands there for a check


def check_terms(
    classifier: Classifier, images: Images, layer: str, terms: Callable[[Features, Features], Tensor]
) -> None:
    """Refuse a sum over features that is 0 for any image, found once for a layer: in float64, on images of noise.

    Args:
        classifier: Whose layer.
        images: Of the size that it is given.
        layer: Whose activations.
        terms: Gives what is summed over the second dimension, of activations and their gradients.

    Raises:
        Unsupported: so it is.
    """
    known = (layer, terms.__qualname__)
    if known not in classifier.found:
        classifier.found[known] = _cancels(classifier, tuple(images.shape[1:]), layer, terms)
    if classifier.found[known]:
        raise Unsupported(REASON)


def cancelled(terms: Tensor) -> bool:
    """Return whether terms cancel in their sum over the second dimension, at all places of all images."""
    whole = terms.double().abs().sum(1)
    ratios = (terms.double().sum(1).abs() / whole)[whole > 0]
    return len(ratios) >= FEW and bool((ratios < LEAST).all())


REASON = (
    "the terms of its sum over features cancel: at every place it is 0 but for rounding, as it is where a layer "
    "normalization alone follows the layer"
)


@contextmanager
def exact(classifier: Classifier) -> Iterator[Classifier]:
    """Yield a classifier of the same network in float64, whose layer normalizations lose no scale, for a few images."""
    made = classifier.altered(lambda network: None, precision="float64", batch=FEW)
    made.passes = dict(made.passes)  # of a check, which are no passes of a method's
    with _Scaled():
        yield made


def noise(classifier: Classifier, shape: tuple[int, ...]) -> Images:
    """Return a few images of noise."""
    return uniform(list(range(FEW)), "cancelling", 0, shape).to(classifier.device)


def _cancels(classifier: Classifier, shape: tuple[int, ...], layer: str, terms: Callable[..., Tensor]) -> bool:
    images = noise(classifier, shape)
    with exact(classifier) as known, suppress(NotFinite):  # on noise; of the images, passes will tell
        targets = known.logits(images).argmax(1)
        return cancelled(terms(*known.features_and_gradients(images, targets, layer, "logit")))
    return False


class _Scaled(TorchFunctionMode):
    """Let normalizations over features add nothing to what they divide by."""

    def __torch_function__(
        self, function: Callable, types: tuple, args: tuple = (), settings: dict[str, Any] | None = None
    ) -> Any:
        """Call a function of torch, with a tiny ε where it has one."""
        if function in NORMALIZATIONS:
            args, settings = args[: NORMALIZATIONS[function]], {**(settings or {}), "eps": EPSILON}
        return function(*args, **(settings or {}))
