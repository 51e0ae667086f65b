"""Check and prepare the arguments that users give in Python: a network, images, targets, maps, masks, boxes."""

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from copy import deepcopy
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from atlas.model import batch_cache
from atlas.model.classifier import Classifier
from atlas.model.comparing import compared, taking
from atlas.study.errors import UserError
from atlas.study.seeds import image_seed

LARGEST = 32  # images per batch, if the caller does not set it
LOOKED_AT = 2  # images on which the network's fast form is compared with the network itself

Array = Any  # a tensor, or anything that NumPy converts to an array: a list, an xarray.DataArray


@contextmanager
def undisturbed() -> Iterator[None]:
    """Enable gradients whatever the caller's mode, and clear the caches afterwards, so that no tensor is kept."""
    try:
        with torch.inference_mode(False), torch.enable_grad():
            yield
    finally:
        batch_cache.forget()


def classifier_of(
    module: nn.Module | Classifier,
    images: Tensor,
    *,
    mean: Sequence[float] | None,
    std: Sequence[float] | None,
    device: str | torch.device | None,
    batch: int | None,
) -> Classifier:
    """Return a classifier of a copy of a network; a Classifier is used as it is.

    Args:
        module: The network, in evaluation mode.
        images: The images; the first few are run through it.
        mean, std: Normalization of each channel; None if it takes images in [0, 1].
        device: Where it runs; None: where its parameters are.
        batch: Images per pass; None: the number of images, at most 32.

    Raises:
        UserError: it is in training mode, does not take the images, or returns no logits; or something is given that a
            Classifier already has.
    """
    if isinstance(module, Classifier):
        text = {"mean": mean, "std": std, "device": device, "batch": batch}
        if own := [name for name, value in text.items() if value is not None]:
            raise UserError(f"{', '.join(own)}: a Classifier has its own; leave it out, or give the module")
        return module
    if not isinstance(module, nn.Module):
        raise UserError(f"module: got {kind_of(module)}; expected a torch.nn.Module, or an atlas.Classifier")
    name, channels = type(module).__name__, images.shape[1]
    if training := [path or "it" for path, part in module.named_modules() if part.training]:
        raise UserError(f"module: {training[0]} is in training mode; expected evaluation mode: call module.eval()")
    mean = [0.0] * channels if mean is None else [float(value) for value in mean]
    std = [1.0] * channels if std is None else [float(value) for value in std]
    for what, values in (("mean", mean), ("std", std)):
        if len(values) != channels:
            raise UserError(f"{what}: got {len(values)} numbers for images of {channels} channels; expected one each")
    if min(std) <= 0:
        raise UserError(f"std: got {std}; expected numbers above 0")
    place = next(module.parameters(), torch.empty(0)).device if device is None else torch.device(device)
    rows = min(len(images), LARGEST) if batch is None else batch
    if not isinstance(rows, int) or rows < 1:
        raise UserError(f"batch: got {batch!r}; expected a whole number of at least 1")
    about: dict[str, Any] = {
        "mean": mean,
        "std": std,
        "engine": {"device": str(place), "precision": "float32", "batch": rows},
    }
    network = deepcopy(module)
    form = compared(name, network, images[:LOOKED_AT], **about)
    if form["runs"] == "plain":
        message = f"{name}: its fast form computes other numbers, so it runs as it was built"
        warnings.warn(message, stacklevel=4)
    return Classifier(name, network, **about, plain=form["runs"] == "plain")


def pictures(images: Array, what: str = "images") -> Tensor:
    """Return images as float32 of (image, channel, y, x) in [0, 1].

    Raises:
        UserError: they are invalid.
    """
    found = _tensor(images, what)
    if found.dim() != 4 or 0 in found.shape:
        raise UserError(f"{what}: got the shape {tuple(found.shape)}; expected (image, channel, y, x)")
    if not found.is_floating_point():
        raise UserError(f"{what}: got numbers of {_dtype(found)}; expected floating-point intensities in [0, 1]")
    if not torch.isfinite(found).all():
        raise UserError(f"{what}: got NaN or infinity; expected intensities in [0, 1]")
    low, high = float(found.min()), float(found.max())
    if low < 0 or high > 1:
        message = "the network's normalization is given by mean and std, not done before"
        raise UserError(f"{what}: got values from {low:.3g} to {high:.3g}; expected intensities in [0, 1]: {message}")
    return found.float()


def classes(targets: Array, rows: int) -> Tensor:
    """Return targets as int64, one per image.

    Raises:
        UserError: they are invalid.
    """
    found = _tensor(targets, "targets")
    if tuple(found.shape) != (rows,):
        raise UserError(f"targets: got the shape {tuple(found.shape)}; expected ({rows},), a class for each image")
    if found.is_floating_point() or found.dtype == torch.bool:
        raise UserError(f"targets: got numbers of {_dtype(found)}; expected whole numbers, the classes' places")
    return found.long()


def check_targets(classifier: Classifier, images: Tensor, targets: Tensor) -> None:
    """Check that a classifier has the target classes.

    Raises:
        UserError: it does not.
    """
    if "classes" not in classifier.found:
        with taking(classifier.name, tuple(images.shape[1:])):
            classifier.found["classes"] = classifier.logits(images[:1]).shape[1]
    count = classifier.found["classes"]
    if wrong := sorted({int(one) for one in targets if not 0 <= one < count}):
        raise UserError(f"targets: got the class {wrong[0]}; {classifier.name} has the classes 0 to {count - 1}")


def seeds_of(seeds: Sequence[int] | None, rows: int) -> list[int]:
    """Return one seed per image: the given ones, or seeds made from the positions.

    Raises:
        UserError: they are not one whole number per image.
    """
    if seeds is None:
        return [image_seed(0, str(position)) for position in range(rows)]
    found = [int(one) for one in seeds]
    if len(found) != rows or min(found) < 0:
        raise UserError(
            f"seeds: got {len(found)} numbers for {rows} images; expected a whole number of at least 0 for each"
        )
    return found


def maps_of(maps: Array) -> Tensor:
    """Return maps as float32 of (image, y, x).

    Raises:
        UserError: they are invalid.
    """
    found = _tensor(maps, "maps")
    if found.dim() != 3 or 0 in found.shape or not found.is_floating_point():
        message = f"the shape {tuple(found.shape)} and numbers of {_dtype(found)}"
        raise UserError(f"maps: got {message}; expected floating-point numbers of (image, y, x)")
    return found.float()


def masks_of(masks: Array | None, what: str, shape: tuple[int, ...]) -> Tensor | None:
    """Return masks of (image, y, x).

    Raises:
        UserError: they are invalid, or do not have the maps' shape.
    """
    if masks is None:
        return None
    found = _tensor(masks, what)
    if found.dtype != torch.bool or tuple(found.shape) != shape:
        message = f"the shape {tuple(found.shape)} and numbers of {_dtype(found)}"
        raise UserError(f"{what}: got {message}; expected bool of (image, y, x) = {shape}, as the maps have")
    return found


def boxes_of(boxes: Array | None, rows: int) -> Tensor | None:
    """Return boxes of (image, box, 4) as int64.

    Raises:
        UserError: they are invalid.
    """
    if boxes is None:
        return None
    found = _tensor(boxes, "boxes")
    whole = not found.is_floating_point() and found.dtype != torch.bool
    if found.dim() != 3 or len(found) != rows or found.shape[2] != 4 or not whole:
        message = f"the shape {tuple(found.shape)} and numbers of {_dtype(found)}"
        expected = f"whole numbers of ({rows}, box, 4): x0, y0, x1, y1 in pixels, x1 and y1 one past the last"
        raise UserError(f"boxes: got {message}; expected {expected}, or -1 for no box")
    return found.long()


def kind_of(value: object) -> str:
    """Return the name of a value's type, for a message."""
    return f"{type(value).__module__}.{type(value).__qualname__}".removeprefix("builtins.")


def _tensor(value: Array, what: str) -> Tensor:
    if isinstance(value, Tensor):
        return value.detach()
    try:
        return torch.tensor(np.asarray(value))
    except (TypeError, ValueError):
        raise UserError(f"{what}: got {kind_of(value)}; expected a tensor or an array of numbers") from None


def _dtype(tensor: Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")
