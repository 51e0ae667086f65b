"""Replace an image patch by patch, and measure the effect on the classifier, whatever the map."""

from collections.abc import Callable
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from atlas.metrics.shared.outputs import clean_logits, color, output_of, outputs, pairs
from atlas.metrics.shared.rows import at_least
from atlas.model.arrays import Images, Seeds, Targets
from atlas.model.batch_cache import shared
from atlas.model.batches import summed
from atlas.model.classifier import Classifier
from atlas.study.schema.types import Response
from atlas.study.seeds import uniform


class Patched(NamedTuple):
    """The effects of replacing patches one at a time.

    The patch of each pixel; the drop of the target's output (image draw patch); the difference subtracted from each
    pixel, summed over its channels (image draw y x).
    """

    patches: Tensor
    drops: Tensor
    taken: Tensor


class Accumulated(NamedTuple):
    """The effects of replacing patches one after the other.

    The drop of the target's logit (image draw patch); the difference subtracted from each row, summed over its columns
    and channels (image draw patch y).
    """

    drops: Tensor
    taken: Tensor


@shared(calls=4)  # several calls, as entries with different settings alternate
def patched(
    classifier: Classifier,
    images: Images,
    targets: Targets,
    seeds: Seeds,
    patch: int,
    samples: int,
    baseline: Literal["black", "mean", "uniform"],
    output: Response,
) -> Patched:
    """Replace each patch of a grid separately: one pass per patch and draw, besides the clean image."""
    whole = images.to(classifier.device)
    height, width = whole.shape[-2:]
    number, count = _grid(height, width, patch, 0)
    number, drops, taken = number.to(whole.device), [], []
    for draw in range(samples):
        if baseline == "uniform":
            other = uniform(seeds, "infidelity", draw, tuple(whole.shape[1:])).to(whole.device)
        else:
            other = color(classifier, baseline).expand(whole.shape)
        drops.append(_drops(classifier, images, targets, output, number, count, torch.eq, other))
        taken.append(_over_channels(whole - other))
    return Patched(number, torch.stack(drops, dim=1), torch.stack(taken, dim=1))


@shared(calls=4)
def accumulated(
    classifier: Classifier,
    images: Images,
    targets: Targets,
    seeds: Seeds,
    patch: int,
    samples: int,
    baseline: Literal["black", "uniform"],
) -> Accumulated:
    """Replace the patches of Quantus 0.4.4 one after the other, in the normalized image."""
    mean, std = classifier.mean.view(-1, 1, 1), classifier.std.view(-1, 1, 1)
    normalized = (images.to(classifier.device) - mean) / std
    height, width = images.shape[-2:]
    number, count = _grid(height, width, patch, patch - 1)
    number, drops, taken = number.to(classifier.device), [], []
    steps = torch.arange(count, device=number.device)[:, None, None]
    for draw in range(samples):
        if baseline == "uniform":
            other = uniform(seeds, "infidelity", draw, tuple(images.shape[1:])).to(classifier.device)
        else:
            other = normalized.amin(dim=(1, 2, 3), keepdim=True).expand(images.shape)
        drops.append(_drops(classifier, images, targets, "logit", number, count, torch.le, other * std + mean))
        lost = _over_channels(normalized - other)
        taken.append(torch.stack([(one * (number <= steps)).sum(dim=2) for one in lost]))
    return Accumulated(torch.stack(drops, dim=1), torch.stack(taken, dim=1))


def check_patches(function: str, patch: int, samples: int, baseline: str) -> None:
    """Reject invalid numbers of patches and draws.

    Raises:
        ValueError: there are none of them, or several draws of a baseline that is not random.
    """
    at_least(1, function, "patch", patch)
    at_least(1, function, "samples", samples)
    if samples > 1 and baseline != "uniform":
        raise ValueError(f"{function}: samples is {samples}, expected 1: the baseline '{baseline}' is not drawn")


def _grid(height: int, width: int, patch: int, shift: int) -> tuple[Tensor, int]:
    """Number the patches of a grid in reading order, and count them.

    If shifted up and left, the grid ends before the image does: pixels beyond it get the count as their number.
    """
    rows, columns = -(-height // patch), -(-width // patch)
    down, across = ((torch.arange(side) + shift) // patch for side in (height, width))
    reached = (down[:, None] < rows) & (across < columns)
    return torch.where(reached, down[:, None] * columns + across, rows * columns), rows * columns


def _drops(
    classifier: Classifier,
    images: Tensor,
    targets: Tensor,
    output: Response,
    number: Tensor,
    count: int,
    replaced: Callable[[Tensor, Tensor], Tensor],
    other: Tensor,
) -> Tensor:
    """Return the drop of the output when the patches whose number equals, or is at most, the step are replaced."""
    whole = images.to(classifier.device)
    row, step = pairs(torch.arange(len(whole), device=whole.device), count)

    def made(r: Tensor, s: Tensor) -> Tensor:
        return torch.where(replaced(number, s[:, None, None])[:, None], other[r], whole[r])

    found = outputs(classifier, targets, row, step, made, output).view(len(whole), count)
    return output_of(classifier, clean_logits(classifier, images), targets, output)[:, None] - found


def _over_channels(difference: Tensor) -> Tensor:
    """Add channels one by one, in float64: the result of a sum over a dimension may depend on the number of rows."""
    return summed(difference.double().unbind(dim=1))
