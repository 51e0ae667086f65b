"""Check a network's outputs once: that they are logits, and that its fast form computes the same ones as built."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from typing import Any

import torch
from torch import Tensor, nn

from atlas.model.arrays import Images, Logits
from atlas.model.classifier import DTYPES, Classifier
from atlas.model.outputs import shaped
from atlas.study.errors import UserError
from atlas.study.seeds import uniform

# By how much, as a share of the largest logit, fusing and another order of summation may change a logit in float32.
TOLERANCE = 1e-3
COMPARED = 8  # images
ENOUGH = 8  # outputs, all from 0 to 1, which is very unlikely for logits
DIFFERENTIATED = 4  # images whose gradients are compared
NOISE = 0.1  # share of noise added: in flat areas, rounding decides which of equal values has a maximum's gradient
CLOSE = 1e-4  # tolerance within which nonnegative outputs that sum to 1 count as a softmax


def compared(
    name: str,
    network: nn.Module,
    images: Images,
    *,
    mean: list[float],
    std: list[float],
    engine: dict,
    other: nn.Module | None = None,
) -> dict[str, Any]:
    """Compare a network's fast form with the network as built, by logits and gradients, both in float32.

    Args:
        name: The classifier's name.
        network: The network with its weights; it is not modified.
        images: A few images on which the two are compared.
        mean, std: Normalization of each channel.
        engine: Device and batch.
        other: The same network, built with other random numbers and filled with the same weights, to check that the
            weights determine all of it; None skips this check.

    Returns:
        For the card: `runs`, fast or plain (plain if a difference exceeds the tolerance); `difference`, the largest one
        as a share of the largest logit, null if a logit is not finite; `gradient_difference`, the same for the gradient
        of the largest logit by the image, null if there is none or the logits differ; `tolerance`; `images`, their
        number.

    Raises:
        UserError: the network does not take the images or does not return logits, an image's logits depend on others,
            or the logits of `other` differ.
    """
    images = images.to(engine["device"])
    about: dict[str, Any] = {"mean": mean, "std": std, "engine": {**engine, "precision": "float32"}}
    expected = _steady(name, network, images, mean, std)
    if other is not None:
        _check_rebuilt(name, other, images, expected, mean, std)
    difference = _difference(Classifier(name, deepcopy(network).float(), **about), images, expected)
    # Logits that are not finite cannot be compared here: the first pass reports them, and for which images.
    known = bool(torch.isfinite(expected).all())
    agree, gradients = difference <= TOLERANCE if difference is not None else not known, None
    if agree and known:
        gradients = _gradient_difference(name, network, images, expected.argmax(1), about)
        agree = gradients is not None and gradients <= TOLERANCE
    return {
        "runs": "fast" if agree else "plain",
        "difference": difference,
        "gradient_difference": gradients,
        "tolerance": TOLERANCE,
        "images": len(images),
    }


@contextmanager
def taking(name: str, shape: tuple[int, ...]) -> Iterator[None]:
    """Convert what a network raises for images of a shape (channel, y, x) to a UserError of one line."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:  # a network may raise anything
        message = " ".join(f"{type(error).__name__}: {error}".split())
        size = " x ".join(map(str, shape))
        raise UserError(
            f"classifier {name}: its network does not take images of {size} (channel, y, x): {message:.300}"
        ) from error


def logits(name: str, network: nn.Module, normalized: Tensor) -> Logits:
    """Return a network's logits of normalized images.

    Raises:
        UserError: it returns something else: no tensor, not one row of numbers per image, a single number,
            probabilities, or numbers that are not finite.
    """
    with torch.no_grad():
        found = shaped(name, network(normalized), len(normalized))
    if found.shape[1] < 2:
        message = "its network gives one logit an image, expected one for each of two classes or more"
        raise UserError(f"classifier {name}: {message}: of a logit z `output: sigmoid` makes two")
    if (found >= 0).all() and ((found.sum(1) - 1).abs() <= CLOSE).all():
        message = "its outputs are at least 0 and sum to 1 for each image"
        raise UserError(f"classifier {name}: {message}; expected logits: leave out the softmax at the network's end")
    if (found <= 0).all() and (found.logsumexp(1).abs() <= CLOSE).all():
        message = "its outputs are the logarithms of numbers that sum to 1 for each image"
        raise UserError(
            f"classifier {name}: {message}; expected logits: leave out the log_softmax at the network's end"
        )
    return found


def check_no_sigmoids(name: str, logits: Logits) -> None:
    """Check that a network's outputs for real images are not sigmoids of logits: enough values, all in [0, 1].

    For two classes with the logits −z/2 and z/2, as `output: sigmoid` makes them, z is checked.

    Raises:
        UserError: the outputs look like sigmoids.
    """
    if logits.shape[1] == 2 and bool((logits[:, 0] == -logits[:, 1]).all()):
        logits = 2 * logits[:, 1]
    if logits.numel() >= ENOUGH and bool(((logits >= 0) & (logits <= 1)).all()):
        message = f"its outputs for {len(logits)} images are all from 0 to 1, as probabilities by sigmoid are"
        raise UserError(f"classifier {name}: {message}; expected logits: leave out the sigmoid at the network's end")


def _check_rebuilt(
    name: str, other: nn.Module, images: Images, expected: Logits, mean: list[float], std: list[float]
) -> None:
    """Check that a network built once more has the same logits: that its weights determine all of it."""
    center, scale = (torch.tensor(values, device=images.device).view(-1, 1, 1) for values in (mean, std))
    found = logits(name, other.float().to(images.device).eval(), (images - center) / scale)
    if _share(found, expected) > TOLERANCE:
        message = "its logits depend on numbers drawn when it is built, which its weights do not hold"
        raise UserError(f"classifier {name}: {message}: make them persistent buffers, or modules")


def _difference(classifier: Classifier, images: Images, expected: Logits) -> float | None:
    """Return the largest difference of logits as a share of the largest logit; None if there is no finite one."""
    try:
        found = classifier.logits(images)
    except Exception:  # a fast form may raise anything that the network as built does not
        return None
    return _share(found, expected) if found.shape == expected.shape else None


def _gradient_difference(
    name: str, network: nn.Module, images: Images, targets: Tensor, about: dict[str, Any]
) -> float | None:
    """Return the largest difference of gradients as a share of the largest; None if one form gives no gradient.

    In float32 a ReLU whose input is about 0 may be active in one form only. If the gradients differ, the comparison is
    repeated in float64, if the network runs in it.
    """
    images, targets = images[:DIFFERENTIATED], targets[:DIFFERENTIATED]
    noise = uniform(list(range(len(images))), "compared", 0, tuple(images.shape[1:])).to(images)
    images, found = (1 - NOISE) * images + NOISE * noise, None
    for precision in ("float32", "float64"):
        engine = {**about["engine"], "batch": min(len(images), about["engine"]["batch"]), "precision": precision}
        try:
            fast, plain = (
                Classifier(name, deepcopy(network).to(DTYPES[precision]), **{**about, "engine": engine}, plain=plain)
                .gradient(images, targets, "logit")
                .nan_to_num()
                for plain in (False, True)
            )
        except Exception:  # a step has no gradient, or does not take float64
            return found
        found = _share(fast, plain)
        if found <= TOLERANCE:
            return found
    return found


def _steady(name: str, network: nn.Module, images: Images, mean: list[float], std: list[float]) -> Logits:
    """Return the logits of a network as built, in float32, after checking that each image's are always the same.

    Raises:
        UserError: they depend on the other images of its batch, or on earlier calls.
    """
    network = deepcopy(network).float().to(images.device).eval()
    center, scale = (torch.tensor(values, device=images.device).view(-1, 1, 1) for values in (mean, std))
    with taking(name, tuple(images.shape[1:])):
        found = logits(name, network, (images - center) / scale)
        again = logits(name, network, (images.flip(0) - center) / scale).flip(0)
        alone = torch.cat([logits(name, network, (one[None] - center) / scale) for one in images])
    if _share(again, found) > TOLERANCE or _share(alone, found) > TOLERANCE:
        message = "an image's logits depend on the other images of its batch, or on earlier calls"
        raise UserError(
            f"classifier {name}: {message}; expected a network whose logits of an image are always the same"
        )
    return found


def _share(found: Tensor, expected: Tensor) -> float:
    """Return the largest difference as a share of the largest number; infinity if the shapes differ."""
    if found.shape != expected.shape:
        return math.inf
    scale = expected.double().abs().max().clamp(min=torch.finfo(torch.float32).tiny)
    return float((found.double() - expected.double()).abs().max() / scale)
