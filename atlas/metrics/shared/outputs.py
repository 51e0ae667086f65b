"""Evaluate the target's output on images that are made on the fly, one batch at a time."""

from collections.abc import Callable

import torch
from torch import Tensor

from atlas.model.arrays import Images, Logits, Scores, Targets
from atlas.model.batch_cache import shared
from atlas.model.classifier import Classifier
from atlas.study.schema.types import Color, Response


@shared(calls=4)  # several calls, as metrics on all images and on fewer alternate
def clean_logits(classifier: Classifier, images: Images) -> Logits:
    """Evaluate the unchanged images: one forward pass per image, whatever the map."""
    return classifier.logits(images.to(classifier.device))


def output_of(classifier: Classifier, logits: Logits, targets: Targets, output: Response) -> Scores:
    """Return each target's logit, or its probability."""
    read = classifier.task.probabilities(logits) if output == "probability" else logits
    return read.gather(1, targets.to(read.device)[:, None])[:, 0]


def outputs(
    classifier: Classifier,
    targets: Targets,
    row: Tensor,
    step: Tensor,
    made: Callable[[Tensor, Tensor], Images],
    output: Response,
) -> Tensor:
    """Return the target's output on one image for each pair of a row and a step, in full batches over the pairs.

    Args:
        targets: The targets of all rows.
        row, step: The pairs.
        made: Makes the images of some pairs; only those of the current batch are in memory.
    """
    found = [torch.empty(0, device=classifier.device)]
    targets = targets.to(classifier.device)
    for start in range(0, len(row), classifier.batch):
        r, s = row[start : start + classifier.batch], step[start : start + classifier.batch]
        found.append(output_of(classifier, classifier.logits(made(r, s)), targets[r], output))
    return torch.cat(found)


def pairs(rows: Tensor, steps: int) -> tuple[Tensor, Tensor]:
    """Pair each row with each step, 0 ... steps - 1."""
    return rows.repeat_interleave(steps), torch.arange(steps, device=rows.device).repeat(len(rows))


def color(classifier: Classifier, name: Color) -> Tensor:
    """Return the color of absent pixels, which broadcasts over images: 0, or the mean, which normalizes to 0."""
    return (classifier.mean if name == "mean" else torch.zeros_like(classifier.mean)).view(-1, 1, 1)
