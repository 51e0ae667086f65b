"""Say what a network is to give, and what of it is explained: the target's logit, its probability, or the loss."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from stages.study.problem import Problem


def _logit(logits: Tensor, targets: Tensor) -> Tensor:
    return logits.gather(1, targets[:, None]).sum()


def _probability(logits: Tensor, targets: Tensor) -> Tensor:
    return _logit(logits.softmax(dim=1), targets)


def _loss(logits: Tensor, targets: Tensor) -> Tensor:
    return nn.functional.cross_entropy(logits, targets, reduction="sum")


# What is differentiated, by name.
OUTPUTS = {"logit": _logit, "probability": _probability, "loss": _loss}


class NotFinite(Problem):
    """A network gave NaN or infinity."""


def finite(name: str, logits: Tensor) -> Tensor:
    """Give a classifier's logits if they are finite; else raise NotFinite."""
    if not torch.isfinite(logits).all():
        raise NotFinite(f"classifier {name}: its logits are not finite (NaN or infinity)")
    return logits


def shaped(name: str, found: object, images: int) -> Tensor:
    """Give what a network gave of so many images, if it is one tensor of logits (image, class), a row an image.

    Raises:
        Problem: it did not.
    """
    due = "expected one tensor of logits, (image, class)"
    if not isinstance(found, Tensor):
        parts = ", ".join(map(repr, found)) if isinstance(found, Mapping) else "0, 1, ..."
        which = f": `output` of its network's entry says which part is meant, of {parts}"
        told = which if isinstance(found, Mapping | tuple | list) else ""
        raise Problem(f"classifier {name}: its network gives a {type(found).__name__}; {due}{told}")
    if found.dim() != 2 or len(found) != images:
        raise Problem(f"classifier {name}: its network gives {tuple(found.shape)} for {images} images; {due}")
    return found


def selected(network: nn.Module, output: int | str | list[int | str]) -> nn.Module:
    """Have a network give what an entry's `output` says of its output; its modules and weights keep their names.

    Args:
        network: It is changed in place.
        output: A place in a tuple, a key, or `sigmoid`, where of one logit z an image the classes' logits are 0 and z;
            a list of these is followed in order.
    """
    kind, steps = type(network), output if isinstance(output, list) else [output]

    def forward(self: nn.Module, images: Any) -> Any:
        found = kind.forward(self, images)
        for step in steps:
            found = _part(found, step, images)
        return found

    network.__class__ = type(kind.__name__, (kind,), {"forward": forward, "__module__": kind.__module__})
    return network


def _part(found: Any, step: int | str, images: Any) -> Any:
    if step == "sigmoid":
        # In a trace there are stand-ins without numbers; what its steps then give is checked by its rows.
        if isinstance(found, Tensor) and not len(images) == found.shape[:1].numel() == found.numel():
            told = f"the network gives {tuple(found.shape)} for {len(images)} images, expected one logit an image"
            raise Problem(f"params.yaml: network.output = 'sigmoid': {told}")
        logit = found.reshape(-1, 1)
        return torch.cat([torch.zeros_like(logit), logit], dim=1)
    try:
        return found[step]
    except (KeyError, IndexError, TypeError):
        known = list(found) if isinstance(found, Mapping) else len(found) if hasattr(found, "__len__") else "no parts"
        told = f"the network gives a {type(found).__name__} of {known}"
        raise Problem(f"params.yaml: network.output = {step!r}: there is no such part; {told}") from None
