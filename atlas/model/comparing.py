"""Look once at a network's outputs: that they are logits, and that its fast form gives those it gives as built."""

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

# By how much, as a share of the largest logit, folding and another order of sums may move a logit in float32.
TOLERANCE = 1e-3
COMPARED = 8  # images
ENOUGH = 8  # outputs, all from 0 to 1, which logits hardly ever are
DIFFERENTIATED = 4  # images whose gradients are compared
NOISE = 0.1  # its share in these: gradients of a maximum of equal values, as in flat areas, are chosen by rounding
CLOSE = 1e-4  # within which outputs of at least 0 that sum to 1 are called a softmax


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
    """Compare a network's fast form with itself as it was built, by its logits and by its gradients, both in float32.

    Args:
        name: Of the classifier.
        network: With its weights; it stays as it is.
        images: On which the two are compared, a few.
        mean, std: Of each channel.
        engine: Device and batch.
        other: The same network, built at other random numbers and filled with the same weights; None where nothing
            is to be said of what they do not hold.

    Returns:
        For the card: `runs`, fast or plain, which it is where a difference is above the tolerance; `difference`, the
        largest one as a share of the largest logit, null where a logit is not finite; `gradient_difference`, that of
        the largest logit's gradient by the image, null where there is none or the logits differ; `tolerance`;
        `images`, their number.

    Raises:
        UserError: the network does not take the images, gives no logits, an image's logits are not its alone, or those
        of
            the other differ.
    """
    images = images.to(engine["device"])
    about = {"mean": mean, "std": std, "engine": {**engine, "precision": "float32"}}
    expected = _steady(name, network, images, mean, std)
    if other is not None:
        _check_held(name, other, images, expected, mean, std)
    difference = _difference(Classifier(name, deepcopy(network).float(), **about), images, expected)
    # Of logits that are not finite there is no telling here: the first pass says so, and of which images.
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
    """Yield what a network raises at images of a shape (channel, y, x) as a UserError in one line."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:  # whatever a network may raise
        told = " ".join(f"{type(error).__name__}: {error}".split())
        size = " x ".join(map(str, shape))
        raise UserError(
            f"classifier {name}: its network does not take images of {size} (channel, y, x): {told:.300}"
        ) from error


def logits(name: str, network: nn.Module, normalized: Tensor) -> Logits:
    """Return a network's logits of normalized images.

    Raises:
        UserError: it gives something else: no tensor, no row of numbers for each image, a single one, probabilities, or
            numbers that are not finite.
    """
    with torch.no_grad():
        found = shaped(name, network(normalized), len(normalized))
    if found.shape[1] < 2:
        told = "its network gives one logit an image, expected one for each of two classes or more"
        raise UserError(f"classifier {name}: {told}: of a logit z `output: sigmoid` makes two")
    if (found >= 0).all() and ((found.sum(1) - 1).abs() <= CLOSE).all():
        told = "its outputs are at least 0 and sum to 1 for each image"
        raise UserError(f"classifier {name}: {told}; expected logits: leave out the softmax at the network's end")
    if (found <= 0).all() and (found.logsumexp(1).abs() <= CLOSE).all():
        told = "its outputs are the logarithms of numbers that sum to 1 for each image"
        raise UserError(f"classifier {name}: {told}; expected logits: leave out the log_softmax at the network's end")
    return found


def check_no_sigmoids(name: str, logits: Logits) -> None:
    """Check that a network's outputs for real images are not sigmoids of logits: enough values, all in [0, 1].

    Of two classes whose logits are −z/2 and z/2, as `output: sigmoid` makes them, it is z that is looked at.

    Raises:
        UserError: they are taken for sigmoids.
    """
    if logits.shape[1] == 2 and bool((logits[:, 0] == -logits[:, 1]).all()):
        logits = 2 * logits[:, 1]
    if logits.numel() >= ENOUGH and bool(((logits >= 0) & (logits <= 1)).all()):
        told = f"its outputs for {len(logits)} images are all from 0 to 1, as probabilities by sigmoid are"
        raise UserError(f"classifier {name}: {told}; expected logits: leave out the sigmoid at the network's end")


def _check_held(
    name: str, other: nn.Module, images: Images, expected: Logits, mean: list[float], std: list[float]
) -> None:
    """Check that a network which was built once more gives the same logits: that its weights are all of it."""
    center, scale = (torch.tensor(values, device=images.device).view(-1, 1, 1) for values in (mean, std))
    found = logits(name, other.float().to(images.device).eval(), (images - center) / scale)
    if _share(found, expected) > TOLERANCE:
        told = "its logits depend on numbers drawn when it is built, which its weights do not hold"
        raise UserError(f"classifier {name}: {told}: make them persistent buffers, or modules")


def _difference(classifier: Classifier, images: Images, expected: Logits) -> float | None:
    """Return the largest difference of logits as a share of the largest; None where there is no finite one."""
    try:
        found = classifier.logits(images)
    except Exception:  # whatever a fast form may raise where the network as it was built does not
        return None
    return _share(found, expected) if found.shape == expected.shape else None


def _gradient_difference(
    name: str, network: nn.Module, images: Images, targets: Tensor, about: dict[str, Any]
) -> float | None:
    """Return the largest difference of gradients as a share of the largest; None where a form gives no gradient.

    In float32 a ReLU whose input is about 0 may be on in one form and off in the other: where they differ, float64
    tells, if the network runs in it.
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
        except Exception:  # a step has no gradient, or takes no float64
            return found
        found = _share(fast, plain)
        if found <= TOLERANCE:
            return found
    return found


def _steady(name: str, network: nn.Module, images: Images, mean: list[float], std: list[float]) -> Logits:
    """Return the logits of a network as it was built, in float32, where each image's are its alone, at any time.

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
        told = "an image's logits depend on the other images of its batch, or on earlier calls"
        raise UserError(f"classifier {name}: {told}; expected a network whose logits of an image are always the same")
    return found


def _share(found: Tensor, expected: Tensor) -> float:
    """Return the largest difference as a share of the largest number; infinity where the shapes differ."""
    if found.shape != expected.shape:
        return math.inf
    scale = expected.double().abs().max().clamp(min=torch.finfo(torch.float32).tiny)
    return float((found.double() - expected.double()).abs().max() / scale)
