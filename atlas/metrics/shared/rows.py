"""Compute row by row what would otherwise depend on the other rows of a batch."""

from collections.abc import Callable

import torch
from torch import Tensor


def by_row(function: Callable[..., Tensor], *tensors: Tensor) -> Tensor:
    """Apply a function of one row to every row, each a fresh contiguous copy.

    Torch's sums and logarithms take different code paths (a vectorized body and a scalar tail, another split of a sum
    on a GPU, unaligned memory) depending on the number of rows and the position of a row, which changes the last digit.
    A row that is computed alone cannot depend on the others.
    """
    rows = zip(*tensors, strict=True)
    return torch.stack([function(*(part.clone(memory_format=torch.contiguous_format) for part in row)) for row in rows])


def finite(tensor: Tensor) -> Tensor:
    """Return which rows hold only finite numbers. Other maps have no order, and no score that needs one."""
    return tensor.isfinite().flatten(1).all(dim=1)


def at_least(low: int, function: str, setting: str, value: int) -> None:
    """Reject a setting below its smallest value.

    Raises:
        ValueError: with the function, the setting, what was got and what is expected.
    """
    if value < low:
        raise ValueError(f"{function}: {setting} is {value}, expected {low} or more")
