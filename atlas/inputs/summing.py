"""Check that attributions at a layer do not cancel when they are summed over features."""

from collections.abc import Callable
from contextlib import suppress
from typing import Any

from torch import Tensor

from atlas.model.cancelling import FEW, REASON, cancelled, exact, noise
from atlas.model.classifier import Classifier
from atlas.model.outputs import NotFinite
from atlas.study.errors import Unsupported
from atlas.study.schema.settings import Entry, canonical


def check_sum(
    bound: Entry, attributions: Tensor, given: dict[str, Any], call: Callable[[Entry, dict[str, Any]], Tensor]
) -> None:
    """Refuse to sum attributions at a layer over features if they cancel for every image; decided once per entry.

    Args:
        bound: The method's entry.
        attributions: What it returned for a batch.
        given: Inputs of the batch, by name.
        call: Calls a method with inputs.

    Raises:
        Unsupported: they cancel.
    """
    inside = bound.settings.get("layer", "input") != "input"
    if bound.options["channels"] != "sum" or not inside or attributions.shape[1] == 1:
        return
    known = bound.function, canonical(bound.settings)
    found = given["classifier"].found
    if known not in found:
        found[known] = _cancels(bound, given["classifier"], tuple(given["images"].shape[1:]), call)
    if found[known]:
        raise Unsupported(REASON)


def _cancels(bound: Entry, classifier: Classifier, shape: tuple[int, ...], call: Callable) -> bool:
    images = noise(classifier, shape)
    with exact(classifier) as known, suppress(NotFinite):  # here on noise; for the images, later passes report it
        inputs = {"classifier": known, "images": images, "seeds": list(range(FEW)), "background": images}
        inputs["targets"] = known.logits(images).argmax(1)
        return cancelled(call(bound, inputs))
    return False
