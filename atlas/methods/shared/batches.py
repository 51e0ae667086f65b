"""Flatten images and their perturbed versions into full batches."""

from collections.abc import Callable, Iterable, Iterator
from typing import Any

from torch import Tensor

from atlas.model.arrays import Targets


def pairs(outer: int, inner: int, batch: int) -> Iterator[list[tuple[int, int]]]:
    """Yield every (outer, inner) pair in order, one batch of pairs at a time; only the last one is shorter."""
    total = outer * inner
    for start in range(0, total, batch):
        yield [divmod(pair, inner) for pair in range(start, min(start + batch, total))]


def gradients(
    targets: Targets,
    samples: int,
    batch: int,
    perturb: Callable[[list[int], list[int]], Tensor],
    differentiate: Callable[[Tensor, Tensor, list[int], list[int]], Iterable],
) -> Iterator[tuple[int, int, Any]]:
    """Yield (row, sample, gradient at that perturbed image), a row's samples in order.

    At most one batch of perturbed images exists at a time. Adding up a row's gradients one by one gives the same bits
    in any batch.

    Args:
        targets: The class of every row.
        samples: Perturbed versions per row.
        batch: Perturbed images made at a time.
        perturb: Makes one perturbed image, or activation, per pair of row and sample.
        differentiate: Returns their gradients, given their targets, rows and samples.
    """
    for batched in pairs(len(targets), samples, batch):
        rows, numbers = ([pair[place] for pair in batched] for place in (0, 1))
        found = differentiate(perturb(rows, numbers), targets[rows], rows, numbers)
        for (row, number), gradient in zip(batched, found, strict=True):
            yield row, number, gradient
