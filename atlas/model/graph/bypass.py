"""Pack the values that bypass a layer into numbers, one row per image, and unpack them again."""

from typing import Any, NamedTuple

import torch
from torch import Tensor


class Kind(NamedTuple):
    """The kind of a value: a tensor with a row per image, of some shape and dtype, or a value shared by all images."""

    shape: tuple[int, ...] | None
    dtype: torch.dtype | None
    same: Any


def described(value: Any, rows: int) -> Kind:
    """Return the kind of a value that was computed for a number of images."""
    if isinstance(value, Tensor) and value.dim() and len(value) == rows:
        return Kind(tuple(value.shape[1:]), value.dtype, None)
    return Kind(None, None, value)


def packed(values: list, rows: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Return the values that have a row per image as one tensor (image, number)."""
    of_images = [one.flatten(1).to(dtype) for one in values if described(one, rows).shape is not None]
    return torch.cat(of_images, dim=1) if of_images else torch.empty(rows, 0, dtype=dtype, device=device)


def unpacked(numbers: Tensor, kinds: list[Kind]) -> list:
    """Undo `packed`."""
    found, start = [], 0
    for kind in kinds:
        if kind.shape is None:
            found.append(kind.same)
            continue
        count = torch.Size(kind.shape).numel()
        found.append(numbers[:, start : start + count].reshape(len(numbers), *kind.shape).to(kind.dtype))
        start += count
    return found


def sizes(layer: str, features: Tensor, bypass: Tensor) -> tuple:
    """Return the key of what is known about a layer's features and the values that bypass it, by their sizes."""
    return "bypass", layer, tuple(features.shape[1:]), bypass.shape[1]
