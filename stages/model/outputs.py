"""Say what a network is to give, and what of it is explained: the target's logit, its probability, or the loss."""

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


def shaped(name: str, found: object) -> Tensor:
    """Give what a network gave, if it is one tensor of logits (image, class).

    Raises:
        Problem: it did not.
    """
    due = "expected one tensor of logits, (image, class)"
    if not isinstance(found, Tensor):
        raise Problem(f"classifier {name}: its network gives a {type(found).__name__}; {due}")
    if found.dim() != 2:
        raise Problem(f"classifier {name}: its network gives {tuple(found.shape)} for {len(found)} images; {due}")
    return found
