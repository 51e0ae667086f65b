"""Flatten images and their perturbed versions into full batches."""

from collections.abc import Callable, Iterator

from torch import Tensor

from stages.arrays import Images, Targets
from stages.classifier import Classifier


def pairs(outer: int, inner: int, batch: int) -> Iterator[list[tuple[int, int]]]:
    """Yield every (outer, inner) pair in order, a batch of pairs at a time; only the last one is shorter."""
    total = outer * inner
    for start in range(0, total, batch):
        yield [divmod(pair, inner) for pair in range(start, min(start + batch, total))]


def gradients(
    classifier: Classifier,
    images: Images,
    targets: Targets,
    samples: int,
    perturb: Callable[[list[int], list[int]], Tensor],
) -> Iterator[tuple[int, int, Tensor]]:
    """Yield (row, sample, gradient of the target's logit at that perturbed image), a row's samples in order.

    No more than one batch of perturbed images exists at a time. Whoever adds up a row's gradients one by one gets
    the same bits in any company.

    Args:
        samples: Perturbed versions of every image.
        perturb: Makes one perturbed image per pair of row and sample.
    """
    for batch in pairs(len(images), samples, classifier.batch):
        rows = [row for row, _ in batch]
        inputs = perturb(rows, [sample for _, sample in batch])
        for (row, sample), gradient in zip(batch, classifier.gradient(inputs, targets[rows]), strict=True):
            yield row, sample, gradient
