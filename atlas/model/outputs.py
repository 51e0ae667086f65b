"""What a network returns, how it is read, and what is explained: the target's logit, probability or loss.

If an image has one class, probabilities are the softmax of the logits, and the class of the largest logit is predicted.
If an image may have several labels, each logit is read separately, as two classes with the logits 0 and z: the label's
probability is the sigmoid of z, the label is predicted if that is at least a half, and the loss is the cross-entropy of
the two. A row then concerns one label that its image has, its target.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from atlas.study.errors import UserError
from atlas.study.schema.labels import PRESENT, several_labels


def _logit(logits: Tensor, targets: Tensor) -> Tensor:
    return logits.gather(1, targets[:, None]).sum()


def _probability(logits: Tensor, targets: Tensor) -> Tensor:
    return _logit(logits.softmax(dim=1), targets)


def _loss(logits: Tensor, targets: Tensor) -> Tensor:
    return nn.functional.cross_entropy(logits, targets, reduction="sum")


def _label_probability(logits: Tensor, targets: Tensor) -> Tensor:
    return _logit(logits.sigmoid(), targets)


def _label_loss(logits: Tensor, targets: Tensor) -> Tensor:
    return nn.functional.softplus(-logits.gather(1, targets[:, None])).sum()


def _largest(logits: Tensor, targets: Tensor) -> Tensor:
    return logits.argmax(dim=-1)


def _class_is_target(logits: Tensor, targets: Tensor) -> Tensor:
    return _largest(logits, targets) == targets


def _target_is_there(logits: Tensor, targets: Tensor) -> Tensor:
    targets = targets.to(logits.device).view(-1, *[1] * (logits.dim() - 1)).expand(*logits.shape[:-1], 1)
    return logits.gather(-1, targets)[..., 0].sigmoid() >= PRESENT


class Task(NamedTuple):
    """What logits mean: those of exclusive classes, or of labels of which an image may have several.

    Logits' last dimension is that of classes or labels, the first one belongs to `targets`. `probabilities` computes
    those of all classes; `predicted` is the prediction about a target, equal if two predictions agree; `right` tells
    where it is the target; `outputs` has the functions to differentiate, by name.
    """

    several: bool  # whether an image may have several labels
    probabilities: Callable[[Tensor], Tensor]
    predicted: Callable[[Tensor, Tensor], Tensor]
    right: Callable[[Tensor, Tensor], Tensor]
    outputs: dict[str, Callable[[Tensor, Tensor], Tensor]]


ONE_CLASS = Task(
    several=False,
    probabilities=lambda logits: logits.softmax(dim=-1),
    predicted=_largest,
    right=_class_is_target,
    outputs={"logit": _logit, "probability": _probability, "loss": _loss},
)
SEVERAL_LABELS = Task(
    several=True,
    probabilities=torch.sigmoid,
    predicted=_target_is_there,
    right=_target_is_there,
    outputs={"logit": _logit, "probability": _label_probability, "loss": _label_loss},
)


def task_of(network: nn.Module) -> Task:
    """Return what a network's logits mean: several labels if its `output` says so."""
    return getattr(network, "classification_task", ONE_CLASS)


class NotFinite(UserError):
    """A network gave NaN or infinity."""


def finite(name: str, logits: Tensor) -> Tensor:
    """Return a classifier's logits if they are finite; otherwise raise NotFinite."""
    if not torch.isfinite(logits).all():
        raise NotFinite(f"classifier {name}: its logits are not finite (NaN or infinity)")
    return logits


def shaped(name: str, found: object, images: int) -> Tensor:
    """Return a network's output for some images, if it is one tensor of logits (image, class) with one row per image.

    Raises:
        UserError: it is not.
    """
    expected = "expected one tensor of logits, (image, class)"
    if not isinstance(found, Tensor):
        parts = ", ".join(map(repr, found)) if isinstance(found, Mapping) else "0, 1, ..."
        which = f": `output` of its network's entry says which part is meant, of {parts}"
        message = which if isinstance(found, Mapping | tuple | list) else ""
        raise UserError(f"classifier {name}: its network gives a {type(found).__name__}; {expected}{message}")
    if found.dim() != 2 or len(found) != images:
        raise UserError(f"classifier {name}: its network gives {tuple(found.shape)} for {images} images; {expected}")
    return found


def selected(network: nn.Module, output: int | str | list[int | str]) -> nn.Module:
    """Make a network return the part of its output that an entry's `output` selects; modules and weights keep their
    names.

    Args:
        network: The network; it is modified in place.
        output: A position in a tuple, a key, or `sigmoid`, which turns one logit z per image into the logits −z/2 and
            z/2 of two classes (their softmax is the sigmoid of z, and either can be explained), or `sigmoids`, for
            logits of labels of which an image may have several; the items of a list are applied in order.
    """
    kind, steps = type(network), output if isinstance(output, list) else [output]
    task, steps = (SEVERAL_LABELS, steps[:-1]) if several_labels(output) else (ONE_CLASS, steps)

    def forward(self: nn.Module, images: Any) -> Any:
        found = kind.forward(self, images)
        for step in steps:
            found = _part(found, step, images)
        return found

    made = {"forward": forward, "__module__": kind.__module__, "classification_task": task}
    network.__class__ = type(kind.__name__, (kind,), made)
    return network


def _part(found: Any, step: int | str, images: Any) -> Any:
    if step == "sigmoid":
        # In a trace there are proxies without numbers; the result of its steps is checked by its rows.
        if isinstance(found, Tensor) and not len(images) == found.shape[:1].numel() == found.numel():
            message = f"the network gives {tuple(found.shape)} for {len(images)} images, expected one logit an image"
            raise UserError(f"params.yaml: network.output = 'sigmoid': {message}")
        logit = found.reshape(-1, 1)
        return torch.cat([-logit / 2, logit / 2], dim=1)
    try:
        return found[step]
    except (KeyError, IndexError, TypeError):
        known = list(found) if isinstance(found, Mapping) else len(found) if hasattr(found, "__len__") else "no parts"
        message = f"the network gives a {type(found).__name__} of {known}"
        raise UserError(f"params.yaml: network.output = {step!r}: there is no such part; {message}") from None
