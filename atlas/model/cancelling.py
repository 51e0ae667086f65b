"""Detect sums over features that are 0 in exact arithmetic, so that only rounding errors would remain.

If a layer's activations are used by a layer normalization only, scaling and shifting them changes nothing downstream.
So at each place g · A sums to 0 over features, and so does g, for every image: a map of such sums is noise.
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

# |Σ| / Σ| | below which a sum counts as 0. If terms do not cancel, it is about 1/√features: 0.02 for 2048 features.
LEAST = 1e-3
FEW = 4  # images, or places, that are checked: a single one may have such a ratio by chance
# Normalizations over features, with the position of ε among their arguments; ε keeps some of the input's scale.
NORMALIZATIONS = {functional.layer_norm: 4, functional.group_norm: 4, functional.rms_norm: 3}
EPSILON = 1e-30  # the value of ε during a check


def check_terms(
    classifier: Classifier, images: Images, layer: str, terms: Callable[[Features, Features], Tensor]
) -> None:
    """Refuse a sum over features that is 0 for every image; decided once per layer, in float64, on images of noise.

    Args:
        classifier: The classifier whose layer is checked.
        images: Images of the size in use.
        layer: The layer whose activations are used.
        terms: Returns the terms to be summed over the second dimension, given activations and their gradients.

    Raises:
        Unsupported: the sum is 0.
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
    """Yield a float64 copy of a classifier, for a few images, whose layer normalizations keep no scale."""
    made = classifier.altered(lambda network: None, precision="float64", batch=FEW)
    made.passes = dict(made.passes)  # the passes of a check are not a method's
    with _Scaled():
        yield made


def noise(classifier: Classifier, shape: tuple[int, ...]) -> Images:
    """Return a few images of noise."""
    return uniform(list(range(FEW)), "cancelling", 0, shape).to(classifier.device)


def _cancels(classifier: Classifier, shape: tuple[int, ...], layer: str, terms: Callable[..., Tensor]) -> bool:
    images = noise(classifier, shape)
    with exact(classifier) as known, suppress(NotFinite):  # here on noise; for the images, later passes report it
        targets = known.logits(images).argmax(1)
        return cancelled(terms(*known.features_and_gradients(images, targets, layer, "logit")))
    return False


class _Scaled(TorchFunctionMode):
    """Make normalizations over features add a negligible ε to what they divide by."""

    def __torch_function__(
        self, function: Callable, types: tuple, args: tuple = (), settings: dict[str, Any] | None = None
    ) -> Any:
        """Call a function of torch, with a tiny ε if it has one."""
        if function in NORMALIZATIONS:
            args, settings = args[: NORMALIZATIONS[function]], {**(settings or {}), "eps": EPSILON}
        return function(*args, **(settings or {}))
