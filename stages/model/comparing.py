"""Look once at a network's outputs: that they are logits, and that its fast form gives those it gives as built."""

from copy import deepcopy
from typing import Any

import torch
from torch import Tensor, nn

from stages.model.arrays import Images, Logits
from stages.model.classifier import Classifier
from stages.model.outputs import shaped
from stages.study.problem import Problem

# By how much, as a share of the largest logit, folding and another order of sums may move a logit in float32.
TOLERANCE = 1e-3
COMPARED = 8  # images
ENOUGH = 8  # outputs, all from 0 to 1, which logits hardly ever are
CLOSE = 1e-4  # within which outputs of at least 0 that sum to 1 are called a softmax


def compared(
    name: str, network: nn.Module, images: Images, *, mean: list[float], std: list[float], engine: dict
) -> dict[str, Any]:
    """Compare the logits of a network's fast form with those that it gives as it was built, both in float32.

    Args:
        name: Of the classifier.
        network: With its weights; it stays as it is.
        images: On which the two are compared, a few.
        mean, std: Of each channel.
        engine: Device and batch.

    Returns:
        For the card: `runs`, fast or plain, which it is where the difference is above the tolerance; `difference`, the
        largest one as a share of the largest logit, null where a logit is not finite; `tolerance`;
        `images`, their number.

    Raises:
        Problem: the network gives no logits.
    """
    images = images.to(engine["device"])
    about = {"mean": mean, "std": std, "engine": {**engine, "precision": "float32"}}
    fast = Classifier(name, deepcopy(network).float(), **about)
    normalized = fast.normalized(images).contiguous()
    expected = logits(name, deepcopy(network).float().to(fast.device).eval(), normalized)
    difference = _difference(fast, images, expected)
    # Of logits that are not finite there is no telling here: the first pass says so, and of which images.
    agree = difference <= TOLERANCE if difference is not None else not torch.isfinite(expected).all()
    return {
        "runs": "fast" if agree else "plain",
        "difference": difference,
        "tolerance": TOLERANCE,
        "images": len(images),
    }


def logits(name: str, network: nn.Module, normalized: Tensor) -> Logits:
    """Give a network's logits of normalized images.

    Raises:
        Problem: it gives something else: no tensor, no row of numbers for each image, a single one, probabilities, or
            numbers that are not finite.
    """
    with torch.no_grad():
        found = shaped(name, network(normalized), len(normalized))
    if found.shape[1] < 2:
        told = "its network gives one logit an image, expected one for each of two classes or more"
        raise Problem(f"classifier {name}: {told}: of a logit z the two are 0 and z, which `output: sigmoid` makes")
    if (found >= 0).all() and ((found.sum(1) - 1).abs() <= CLOSE).all():
        told = "its outputs are at least 0 and sum to 1 for each image"
        raise Problem(f"classifier {name}: {told}; expected logits: leave out the softmax at the network's end")
    return found


def check_no_sigmoids(name: str, logits: Logits) -> None:
    """Check that a network's outputs for real images are not sigmoids of logits: enough values, all in [0, 1].

    Where a class has 0 for every image they pass: `output: sigmoid` makes such logits of one that may lie in [0, 1].

    Raises:
        Problem: they are taken for sigmoids.
    """
    within = bool(((logits >= 0) & (logits <= 1)).all())
    if within and logits.numel() >= ENOUGH and bool((logits != 0).any(0).all()):
        told = f"its outputs for {len(logits)} images are all from 0 to 1, as probabilities by sigmoid are"
        raise Problem(f"classifier {name}: {told}; expected logits: leave out the sigmoid at the network's end")


def _difference(classifier: Classifier, images: Images, expected: Logits) -> float | None:
    """Give the largest difference of logits as a share of the largest; None where there is no finite one."""
    try:
        found = classifier.logits(images)
    except Exception:  # whatever a fast form may raise where the network as it was built does not
        return None
    if found.shape != expected.shape:
        return None
    scale = expected.double().abs().max().clamp(min=torch.finfo(torch.float32).tiny)
    return float((found.double() - expected.double()).abs().max() / scale)
