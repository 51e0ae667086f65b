"""Hand over what passes by a layer as numbers, a row an image, and make of these again what it was."""

from typing import Any, NamedTuple

import torch
from torch import Tensor


class Kind(NamedTuple):
    """What one value is: a tensor of the images, of a shape and a type, or the same for all images."""

    shape: tuple[int, ...] | None
    dtype: torch.dtype | None
    same: Any


def described(value: Any, rows: int) -> Kind:
    """Return what a value is, which was computed for so many images."""
    if isinstance(value, Tensor) and value.dim() and len(value) == rows:
        return Kind(tuple(value.shape[1:]), value.dtype, None)
    return Kind(None, None, value)


def packed(values: list, rows: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Return those values that are tensors of the images as (image, number)."""
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


def sizes(layer: str, features: Tensor, beside: Tensor) -> tuple:
    """Name what is known of features of a layer and of what passes by, by their sizes."""
    return "beside", layer, tuple(features.shape[1:]), beside.shape[1]
