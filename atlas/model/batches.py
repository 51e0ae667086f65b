"""Run functions over batches of one fixed size."""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor


def batched(size: int, function: Callable, *tensors: Tensor) -> Any:
    """Run a function of tensors over batches of a fixed size; the last batch is padded with its first row.

    The function returns a tensor or a tuple of tensors.
    """
    rows = len(tensors[0])
    results = []
    for start in range(0, rows, size):
        # A strided part would be summed in another order than a padded one.
        parts = [tensor[start : start + size].contiguous() for tensor in tensors]
        count = len(parts[0])
        if count < size:
            parts = [torch.cat([part, part[:1].expand(size - count, *part.shape[1:])]) for part in parts]
        found = function(*parts)
        results.append(tuple(part[:count] for part in found) if isinstance(found, tuple) else (found[:count],))
    joined = tuple(torch.cat(parts) if len(results) > 1 else parts[0] for parts in zip(*results, strict=True))
    return joined if isinstance(found, tuple) else joined[0]


def summed(parts: Iterable[Tensor]) -> Tensor:
    """Return the sum of tensors, added one after the other: the order of torch's own sums depends on the shape."""
    total: Any = sum(parts)  # an int only if there are none
    return total
