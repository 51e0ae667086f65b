"""Find, among all maps of a set, those that are similar."""

import torch
from torch import Tensor

from atlas.metrics.shared.rows import finite
from atlas.model.arrays import AllImages, AllMaps
from atlas.model.batch_cache import shared
from atlas.model.classifier import Classifier
from atlas.study.errors import Unsupported

BLOCK = 2**23  # numbers of a block of maps


@shared(calls=2, lasting=True)  # two calls, as metrics on all images and on fewer alternate
def predicted(classifier: Classifier, all_images: AllImages) -> Tensor:
    """Return the predictions for all images of a set: one forward pass per image, whatever the maps. Images are in
    memory a batch at a time.

    Raises:
        Unsupported: an image may have several labels, so that it belongs to no single class.
    """
    if classifier.task.several:
        raise Unsupported("its images may have several labels: whether two are of the same class cannot be said")
    size, found = classifier.batch, [torch.empty(0, dtype=torch.long, device=classifier.device)]
    for at in range(0, len(all_images), size):
        found.append(classifier.logits(all_images[at : at + size].to(classifier.device)).argmax(dim=1))
    return torch.cat(found)


@shared(calls=2, lasting=True)
def agreeing(all_maps: AllMaps, classes: Tensor, threshold: float) -> Tensor:
    """Return the share of each map's neighbors that have its class, NaN if it has none; computed once for the set.

    Maps are divided, and compared, a block at a time: besides the maps themselves and a number for every two of them,
    no more than a few blocks of float64 are in memory.
    """
    flat, whole = all_maps.flatten(1), finite(all_maps)
    rows, of_known = whole.nonzero().flatten(), classes.to(all_maps.device)[whole]
    scores = torch.full((len(flat),), torch.nan, device=flat.device)
    blocks = _blocks(len(rows), flat.shape[1])
    largest = torch.cat(
        [flat[:0, :1].double(), *(flat[rows[one]].double().abs().amax(1, keepdim=True) for one in blocks)]
    )
    largest = largest.where(largest > 0, 1.0)

    def known(part: slice) -> Tensor:
        return flat[rows[part]].double().abs() / largest[part]

    varied = torch.zeros(flat.shape[1], dtype=torch.bool, device=flat.device)
    for one in blocks:
        varied |= (known(one) != known(slice(1))).any(dim=0)
    if not varied.any():
        return scores
    spread = torch.cat([_spread(flat[:, part][rows], largest) for part in _columns(varied, len(rows))])
    distances = torch.empty(len(rows), len(rows), dtype=torch.float64, device=flat.device)
    for at, one in enumerate(blocks):
        alike = known(one)[:, varied] / spread
        for other in blocks[at:]:
            found = torch.cdist(alike, known(other)[:, varied] / spread, compute_mode="donot_use_mm_for_euclid_dist")
            distances[one, other], distances[other, one] = found, found.T
    near = (distances / distances.max() <= threshold).fill_diagonal_(False)
    scores[whole] = (near & (of_known[:, None] == of_known)).sum(dim=1) / near.sum(dim=1)
    return scores


def _spread(maps: Tensor, largest: Tensor) -> Tensor:
    """Return the standard deviation of some pixels over all maps."""
    return (maps.double().abs() / largest).std(dim=0, correction=0)


def _blocks(rows: int, size: int) -> list[slice]:
    """Return slices of rows of a size that have about BLOCK numbers each."""
    step = max(1, BLOCK // size)
    return [slice(at, min(rows, at + step)) for at in range(0, rows, step)]


def _columns(varied: Tensor, rows: int) -> list[Tensor]:
    """Return the positions of pixels that vary, in parts that have about BLOCK numbers in all rows."""
    return [*varied.nonzero().flatten().split(max(1, BLOCK // rows))]
