"""Common parts of methods that perturb the last features: clean features, masks made from them, weighted sums."""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from atlas.methods.shared.batches import pairs
from atlas.methods.shared.fill import color
from atlas.methods.shared.masks.masking import alike, answers
from atlas.model.arrays import Features, Images, LayerAttributions, Logits, Seeds, Targets
from atlas.model.batch_cache import shared
from atlas.model.batches import summed
from atlas.model.classifier import Classifier
from atlas.study import seeds as draws
from atlas.study.schema.types import Color, Order


@shared(calls=2)  # two calls, as entries of two layers alternate
def clean_features(classifier: Classifier, images: Images, layer: str) -> tuple[Features, Tensor]:
    """Return the features of the unchanged images, and the head's other inputs, shared by the family."""
    return classifier.features(images, layer)


def channel_masks(classifier: Classifier, maps: Features, size: tuple[int, ...], order: Order) -> Tensor:
    """Scale each feature to [0, 1] and enlarge it bilinearly, or in the opposite order.

    A constant feature, such as one that is never active, has no range: its mask is 0 everywhere.
    """

    def of(coarse: Tensor) -> Tensor:
        # Constancy is checked before enlarging, as rounding would create a range.
        varies = coarse.amax((2, 3), keepdim=True) > coarse.amin((2, 3), keepdim=True)
        if order == "normalize_first":
            return interpolate(_scaled(coarse, varies), size=size, mode="bilinear", align_corners=False)
        return _scaled(interpolate(coarse, size=size, mode="bilinear", align_corners=False), varies)

    return classifier.batched(of, maps)


def masked_logits(
    classifier: Classifier,
    images: Images,
    targets: Targets,
    seeds: Seeds | None,
    samples: int,
    order: Order,
    fill: Color,
    layer: str,
    alter: Callable[[Tensor, list[int], list[int], list[int]], Tensor],
) -> Tensor:
    """Return the target's logit of every image (rows) masked by each of its features (columns), averaged over samples.

    Rows with the same pixels (and seeds, if there are any) are evaluated once. At most one batch of masked images
    exists at a time.

    Args:
        samples: Variants of every mask.
        order: Whether masks are scaled or enlarged first.
        fill: What replaces hidden pixels.
        layer: The layer of the features.
        alter: Makes variants of masks, given the row, sample and feature of each.
    """
    features, _ = clean_features(classifier, images, layer)
    channels, size = features.shape[1], tuple(images.shape[-2:])
    filling = color(classifier, fill)
    groups = alike(images) if seeds is None else alike(images, seeds)
    found = images.new_empty(len(images), samples * channels)
    for batched in pairs(len(groups), samples * channels, classifier.batch):
        rows = [groups[group][0] for group, _ in batched]
        drawn, features_of = ([divmod(number, channels)[part] for _, number in batched] for part in (0, 1))
        masks = channel_masks(classifier, features[rows, features_of][:, None], size, order)
        masks = alter(masks, rows, drawn, features_of)
        masked = images[rows] - filling
        masked *= masks
        masked += filling
        outputs = classifier.logits(masked)
        places = [(place, row, number) for place, (group, number) in enumerate(batched) for row in groups[group]]
        place, row, number = (list(numbers) for numbers in zip(*places, strict=True))
        found[row, number] = outputs[place, targets[row]].to(found.dtype)
    # Sample by sample: a sum over a dimension may use another order in another batch.
    return summed(found.split(channels, dim=1)) / samples


def mask_noise(
    masks: Tensor, seeds: Seeds, rows: list[int], samples: list[int], numbers: list[int], channels: int
) -> Tensor:
    """Draw standard normal noise for masks, by the image's seed, the sample and the feature."""
    shape = tuple(masks.shape[1:])
    drawn = [
        draws.normal([seeds[row]], "ss_cam", sample * channels + number, shape)
        for row, sample, number in zip(rows, samples, numbers, strict=True)
    ]
    return torch.cat(drawn).to(masks)


def logits_without(
    classifier: Classifier, features: Features, bypass: Tensor, targets: Targets, places: list[tuple], layer: str
) -> Tensor:
    """Return the target's logit for every image (rows) with each place set to 0 (columns); the last column has none."""

    def remove(copies: Features, numbers: list[int]) -> Features:
        for copy, number in zip(copies, numbers, strict=True):
            if number < len(places):
                copy[places[number]] = 0
        return copies

    def ask(features: Features, rows: list[int]) -> Logits:
        return classifier.head(features, bypass[rows], layer)

    return answers(features, targets, len(places) + 1, classifier.batch, remove, ask, bypass)


def head_probabilities(
    classifier: Classifier,
    features: Features,
    bypass: Tensor,
    targets: Targets,
    layer: str,
    count: int,
    perturb: Callable[..., Features],
) -> Tensor:
    """Return the target's probability for every image (rows) and perturbation of its features (columns)."""

    def ask(features: Features, rows: list[int]) -> Logits:
        return classifier.task.probabilities(classifier.head(features, bypass[rows], layer))

    return answers(features, targets, count, classifier.batch, perturb, ask, bypass)


def softmax_weighted(classifier: Classifier, images: Images, layer: str, logits: Tensor) -> LayerAttributions:
    """Weight the clean features by the softmax of a logit per feature."""
    features, _ = clean_features(classifier, images, layer)
    return score_weighted(classifier, features, lambda part: part.softmax(dim=1), logits)


def score_weighted(
    classifier: Classifier, features: Features, weigh: Callable[[Tensor], Tensor], scores: Tensor
) -> LayerAttributions:
    """Return ReLU(Σₖ wₖ Aₖ), with weights computed from one score per feature."""

    def of(features: Tensor, scores: Tensor) -> Tensor:
        return (weigh(scores)[:, :, None, None] * features).sum(1, keepdim=True).relu()

    return classifier.batched(of, features, scores)


def kernel(side: int, spread: bool) -> Tensor:
    """Return for every place along a side (rows) the weights of all places: 1 for itself, or ½ and ¼ beside it."""
    own = torch.eye(side)
    if not spread:
        return own
    bypass = torch.ones(side - 1).diag(1) + torch.ones(side - 1).diag(-1) if side > 1 else torch.zeros(1, 1)
    return own / 2 + bypass / 4


def _scaled(maps: Tensor, varies: Tensor) -> Tensor:
    lowest, highest = maps.amin((2, 3), keepdim=True), maps.amax((2, 3), keepdim=True)
    span = highest - lowest
    return ((maps - lowest) / span.where(span > 0, 1.0)).where(varies, 0.0)
