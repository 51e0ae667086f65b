"""See that a sum over an attribution's features says something."""

from contextlib import suppress
from typing import Any

from torch import Tensor

from stages.model.cancelling import FEW, REASON, cancelled, exact, noise
from stages.model.classifier import Classifier, NotFinite
from stages.study.params import find
from stages.study.problem import Unsupported
from stages.study.settings import Entry, canonical
from stages.study.signatures import signature


def check_sum(bound: Entry, attributions: Tensor, given: dict[str, Any]) -> None:
    """Refuse to sum attributions at a layer over features where they cancel for any image, found once for an entry.

    Args:
        bound: The method.
        attributions: What it gave of a batch.
        given: Evidence of the batch, by name.

    Raises:
        Unsupported: so it is.
    """
    inside = bound.settings.get("layer", "input") != "input"
    if bound.options["channels"] != "sum" or not inside or attributions.shape[1] == 1:
        return
    known = bound.function, canonical(bound.settings)
    found = given["classifier"].found
    if known not in found:
        found[known] = _cancels(bound, given["classifier"], tuple(given["images"].shape[1:]))
    if found[known]:
        raise Unsupported(REASON)


def _cancels(bound: Entry, classifier: Classifier, shape: tuple[int, ...]) -> bool:
    images = noise(classifier, shape)
    asks = signature("methods", bound.family, bound.function).evidence
    with exact(classifier) as known, suppress(NotFinite):  # on noise; of the images, passes will tell
        evidence = {"classifier": known, "images": images, "seeds": list(range(FEW)), "background": images}
        evidence["targets"] = known.logits(images).argmax(1)
        found = find("methods", bound.family, bound.function)(*(evidence[name] for name in asks), **bound.settings)
        return cancelled(found)
    return False
