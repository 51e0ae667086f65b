"""Score a map by how the classifier and the method respond to the image seen through it."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from atlas.metrics.shared.outputs import clean_logits, color, output_of
from atlas.metrics.shared.rows import by_row
from atlas.metrics.shared.scaled import pearson, scaled
from atlas.model.arrays import Images, Maps, Scores, Seeds, Targets
from atlas.model.batch_cache import shared
from atlas.model.classifier import Classifier
from atlas.study.schema.types import Color

ATTRS = {
    "average_drop": {
        "long_name": "Average drop",
        "units": "1",
        "reference": "chattopadhay2018gradcam",
        "better": "lower",
    },
    "increase_in_confidence": {
        "long_name": "Increase in confidence",
        "units": "1",
        "reference": "chattopadhay2018gradcam",
        "better": "higher",
    },
    "coherency": {
        "long_name": "Coherency",
        "units": "1",
        "reference": "poppi2021revisiting",
        "better": "higher",
    },
    "adcc": {
        "long_name": "Average drop, coherency, complexity",
        "units": "1",
        "reference": "poppi2021revisiting",
        "better": "higher",
    },
}


class Masked(NamedTuple):
    """The rows of a batch whose map can be scaled: their scaled maps, and the images seen through these.

    Also the target's probability on each, and on the clean image.
    """

    rows: Tensor
    scaled: Maps
    images: Images
    probability: Scores
    clean: Scores


def average_drop(maps: Maps, images: Images, targets: Targets, classifier: Classifier, *, fill: Color) -> Scores:
    """Measure the share of the target's probability that is lost when the image is seen through the map.

        max(0, p(x) − p(x ∘ M + fill ∘ (1 − M))) / p(x)

    M is the map scaled to [0, 1].

    Args:
        fill: What replaces the image where the map is 0.

    Returns:
        0 to 1, lower is better.

    Undefined where p(x) is 0, or the map is constant or not finite.

    Differs from the paper: none known (Chattopadhay et al. 2018, who give the mean over images in percent).
    """
    masked = _masked(maps, images, targets, classifier, fill)
    return _spread(masked, _drop(masked), len(maps))


def increase_in_confidence(
    maps: Maps, images: Images, targets: Targets, classifier: Classifier, *, fill: Color
) -> Scores:
    """Return whether the target's probability rises when the image is seen through the map.

        p(x ∘ M + fill ∘ (1 − M)) > p(x)

    M is the map scaled to [0, 1].

    Args:
        fill: What replaces the image where the map is 0.

    Returns:
        1 or 0, higher is better.

    Undefined where the map is constant or not finite.

    Differs from the paper: none known (Chattopadhay et al. 2018, who give the count over images in percent).
    """
    masked = _masked(maps, images, targets, classifier, fill)
    return _spread(masked, (masked.probability > masked.clean).float(), len(maps))


def coherency(
    maps: Maps,
    images: Images,
    targets: Targets,
    classifier: Classifier,
    seeds: Seeds,
    explain: Callable,
    *,
    fill: Color,
) -> Scores:
    """Compare the map with the map of the image seen through it.

        (1 + Pearson(map of x, map of x ∘ M + fill ∘ (1 − M))) / 2

    M is the map scaled to [0, 1]; the method's random draws use the image's seed both times.

    Args:
        fill: What replaces the image where the map is 0.

    Returns:
        0 to 1, higher is better; 1/2 if the two are uncorrelated.

    Undefined where either map is constant or not finite.

    Differs from the paper: none known (Poppi et al. 2021, who fill with the mean color).
    """
    return _coherency(maps, images, targets, classifier, seeds, explain, fill)


def adcc(
    maps: Maps,
    images: Images,
    targets: Targets,
    classifier: Classifier,
    seeds: Seeds,
    explain: Callable,
    *,
    fill: Color,
) -> Scores:
    """Take the harmonic mean of coherency, simplicity and the share of the target's probability that is kept.

        3 / (1 / coherency + 1 / (1 − mean M) + 1 / (1 − average drop))

    M is the map scaled to [0, 1]. With the family's other metrics of the same fill, this costs no further pass.

    Args:
        fill: What replaces the image where the map is 0.

    Returns:
        0 to 1, higher is better; 0 if one of the three is.

    Undefined where p(x) is 0, and where the map, or that of the image seen through it, is constant or not finite.

    Differs from the paper: none known (Poppi et al. 2021, who fill with the mean color).
    """
    masked = _masked(maps, images, targets, classifier, fill)
    coherent = _coherency(maps, images, targets, classifier, seeds, explain, fill)[masked.rows]
    simple = 1 - by_row(lambda one: one.mean(), masked.scaled) if len(masked.rows) else coherent
    return _spread(masked, 3 / (1 / coherent + 1 / simple + 1 / (1 - _drop(masked))), len(maps))


@shared(calls=2)  # two calls, as metrics on all images and on fewer alternate
def _masked(maps: Tensor, images: Tensor, targets: Tensor, classifier: Classifier, fill: Color) -> Masked:
    """Evaluate images seen through the maps: one pass for each map that can be scaled, besides the clean images."""
    clean = output_of(classifier, clean_logits(classifier, images), targets, "probability")
    share, scalable = scaled(maps.to(classifier.device))
    rows = scalable.nonzero().flatten()
    share, behind = share[rows], color(classifier, fill)
    seen = images.to(classifier.device)[rows] * share[:, None] + behind * (1 - share[:, None])
    through = clean[:0]
    if len(rows):
        through = output_of(classifier, classifier.logits(seen), targets.to(rows.device)[rows], "probability")
    return Masked(rows, share, seen, through, clean[rows])


@shared(calls=2)
def _coherency(
    maps: Tensor, images: Tensor, targets: Tensor, classifier: Classifier, seeds: Seeds, explain: Callable, fill: Color
) -> Tensor:
    masked = _masked(maps, images, targets, classifier, fill)
    rows = masked.rows
    if not len(rows):
        return _spread(masked, masked.clean, len(maps))
    own = [seeds[row] for row in rows.tolist()]
    again = explain(classifier, masked.images, targets.to(rows.device)[rows], own, alone=True)
    both = by_row(pearson, masked.scaled, again.to(rows.device))
    return _spread(masked, (1 + both) / 2, len(maps))


def _drop(masked: Masked) -> Tensor:
    return (masked.clean - masked.probability).clamp(min=0) / masked.clean


def _spread(masked: Masked, scores: Tensor, count: int) -> Tensor:
    """Assign each row its score, and NaN to those whose map cannot be scaled."""
    spread = torch.full((count,), torch.nan, device=scores.device)
    spread[masked.rows] = scores
    return spread
