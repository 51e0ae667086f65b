"""Say what of a network's output is explained: the target's logit, its probability, or the loss."""

from torch import Tensor, nn


def _logit(logits: Tensor, targets: Tensor) -> Tensor:
    return logits.gather(1, targets[:, None]).sum()


def _probability(logits: Tensor, targets: Tensor) -> Tensor:
    return _logit(logits.softmax(dim=1), targets)


def _loss(logits: Tensor, targets: Tensor) -> Tensor:
    return nn.functional.cross_entropy(logits, targets, reduction="sum")


# What is differentiated, by name.
OUTPUTS = {"logit": _logit, "probability": _probability, "loss": _loss}
