"""Find, among all maps of a set, those that are similar."""

import torch
from torch import Tensor

from atlas.metrics.shared.rows import finite
from atlas.model.arrays import AllImages, AllMaps
from atlas.model.batch_cache import shared
from atlas.model.classifier import Classifier
from atlas.study.errors import Unsupported


@shared(calls=2, lasting=True)  # two calls, as metrics on all images and on fewer alternate
def predicted(classifier: Classifier, all_images: AllImages) -> Tensor:
    """Return the predictions for all images of a set: one forward pass per image, whatever the maps.

    Raises:
        Unsupported: an image may have several labels, so that it belongs to no single class.
    """
    if classifier.task.several:
        raise Unsupported("its images may have several labels: whether two are of the same class cannot be said")
    return classifier.logits(all_images.to(classifier.device)).argmax(dim=1)


@shared(calls=2, lasting=True)
def agreeing(all_maps: AllMaps, classes: Tensor, threshold: float) -> Tensor:
    """Return the share of each map's neighbors that have its class, NaN if it has none; computed once for the set."""
    whole = finite(all_maps)
    sizes, of_known = all_maps[whole].flatten(1).double().abs(), classes.to(all_maps.device)[whole]
    largest = sizes.amax(dim=1, keepdim=True)
    known = sizes / largest.where(largest > 0, 1.0)
    scores = torch.full((len(all_maps),), torch.nan, device=all_maps.device)
    varied = (known != known[:1]).any(dim=0)
    if not varied.any():
        return scores
    alike = known[:, varied] / known[:, varied].std(dim=0, correction=0)
    distances = torch.cdist(alike, alike, compute_mode="donot_use_mm_for_euclid_dist")
    near = (distances / distances.max() <= threshold).fill_diagonal_(False)
    scores[whole] = (near & (of_known[:, None] == of_known)).sum(dim=1) / near.sum(dim=1)
    return scores
