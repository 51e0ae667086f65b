"""Follow the target's probability while the pixels of one image are exchanged for those of another."""

from typing import NamedTuple

import torch
from torch import Tensor

from stages.arrays import Curves, Images, Maps, Scores, Seeds, Targets
from stages.classifier import Classifier
from stages.memory import shared
from stages.metrics._order import ranking
from stages.metrics._rows import at_least, finite


class End(NamedTuple):
    """One end of the curves of a batch: the images there, and the target's probability on them."""

    images: Images
    probability: Scores


def end(classifier: Classifier, images: Images, targets: Targets) -> End:
    """Look at images: one forward pass an image."""
    images = images.to(classifier.device)
    return End(images, target_probability(classifier, images, targets))


@shared
def clean(classifier: Classifier, images: Images, targets: Targets) -> End:
    """Look at the unchanged images. The end of no curve depends on the map, so all maps of a batch share it."""
    return end(classifier, images, targets)


def target_probability(classifier: Classifier, images: Images, targets: Targets) -> Scores:
    """Give the softmax probability of each image's target."""
    probabilities = classifier.probabilities(images)
    return probabilities.gather(1, targets.to(probabilities.device)[:, None])[:, 0]


def schedule(pixels: int, steps: int) -> list[int]:
    """Say how many pixels are exchanged at each point of a curve: round(k * pixels / steps), k = 0 ... steps."""
    return [round(step * pixels / steps) for step in range(steps + 1)]


def switching_curves(
    classifier: Classifier,
    maps: Maps,
    targets: Targets,
    seeds: Seeds,
    before: End,
    after: End,
    steps: int,
    kept: Tensor,
) -> Curves:
    """Exchange pixels in the order of the map, all channels of a pixel at once, and record the probability.

    The exchanged images are made on the device, one full batch at a time over (image, step): none but the batch in
    flight is ever held.

    Args:
        before: Where the curves start: no pixel exchanged.
        after: Where they end: every pixel exchanged.
        steps: Intervals of the curve; it has one point more.
        kept: The images that have a curve. The others, and those whose map is not finite, cost nothing and are NaN.
    """
    at_least(1, "a curve of probabilities", "steps", steps)
    device, targets = classifier.device, targets.to(classifier.device)
    rows = (kept.to(device) & finite(maps).to(device)).nonzero().flatten()
    curves = torch.full((len(maps), steps + 1), torch.nan, device=device)
    curves[rows, 0], curves[rows, -1] = before.probability[rows], after.probability[rows]
    rank = ranking(maps, seeds).argsort(dim=1).to(device)
    exchanged = torch.tensor(schedule(rank.shape[1], steps), device=device)
    row = rows.repeat_interleave(steps - 1)
    step = torch.arange(1, steps, device=device).repeat(len(rows))
    for start in range(0, len(row), classifier.batch):
        r, s = row[start : start + classifier.batch], step[start : start + classifier.batch]
        switched = (rank[r] < exchanged[s][:, None]).view(-1, 1, *maps.shape[1:])
        images = torch.where(switched, after.images[r], before.images[r])
        curves[r, s] = target_probability(classifier, images, targets[r])
    return curves
