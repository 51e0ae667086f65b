"""Record the target's probability while the pixels of one image are exchanged for those of another."""

from typing import NamedTuple

import torch
from torch import Tensor

from atlas.metrics.shared.order import ranking
from atlas.metrics.shared.outputs import clean_logits, output_of
from atlas.metrics.shared.rows import at_least, finite
from atlas.model.arrays import Curves, Images, Logits, Maps, Scores, Seeds, Targets
from atlas.model.classifier import Classifier


class End(NamedTuple):
    """One end of the curves of a batch: the images, the target's probability on them, and the prediction."""

    images: Images
    probability: Scores
    predicted: Tensor


def end(classifier: Classifier, images: Images, targets: Targets) -> End:
    """Evaluate images: one forward pass per image."""
    images = images.to(classifier.device)
    return _end(classifier, images, classifier.logits(images), targets)


def clean(classifier: Classifier, images: Images, targets: Targets) -> End:
    """Evaluate the unchanged images, once for all maps and metrics of a batch."""
    return _end(classifier, images.to(classifier.device), clean_logits(classifier, images), targets)


def _end(classifier: Classifier, images: Images, logits: Logits, targets: Targets) -> End:
    probability = output_of(classifier, logits, targets, "probability")
    return End(images, probability, classifier.task.predicted(logits, targets))


def target_probability(classifier: Classifier, images: Images, targets: Targets) -> Scores:
    """Return the probability of each image's target."""
    return end(classifier, images, targets).probability


def schedule(pixels: int, step: int) -> list[int]:
    """Return how many of an image's pixels are exchanged at each point of a curve: 0, step, 2 step … and all."""
    return [*range(0, pixels, step), pixels]


def switching_curves(
    classifier: Classifier,
    maps: Maps,
    targets: Targets,
    seeds: Seeds,
    before: End,
    after: End,
    pixels: int,
    chosen: Tensor,
) -> Curves:
    """Exchange pixels in the order of the map, all channels of a pixel at once, and record the probability.

    The images are made on the device, one full batch at a time over (image, step): only the current batch is in memory.

    Args:
        before: The start of the curves: no pixel exchanged.
        after: The end of the curves: every pixel exchanged.
        pixels: Pixels exchanged at each step; the last step may be smaller.
        chosen: The images that have a curve. The others, and those whose map is not finite, cost nothing and are NaN.
    """
    at_least(1, "a curve of probabilities", "pixels", pixels)
    device, targets = classifier.device, targets.to(classifier.device)
    rows = (chosen.to(device) & finite(maps).to(device)).nonzero().flatten()
    exchanged = torch.tensor(schedule(maps[0].numel(), pixels), device=device)
    steps = len(exchanged) - 1
    curves = torch.full((len(maps), steps + 1), torch.nan, device=device)
    curves[rows, 0], curves[rows, -1] = before.probability[rows], after.probability[rows]
    rank = ranking(maps, seeds).argsort(dim=1).to(device)
    row = rows.repeat_interleave(steps - 1)
    step = torch.arange(1, steps, device=device).repeat(len(rows))
    for start in range(0, len(row), classifier.batch):
        r, s = row[start : start + classifier.batch], step[start : start + classifier.batch]
        switched = (rank[r] < exchanged[s][:, None]).view(-1, 1, *maps.shape[1:])
        images = torch.where(switched, after.images[r], before.images[r])
        curves[r, s] = target_probability(classifier, images, targets[r])
    return curves
