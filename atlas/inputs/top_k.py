"""Which pixels of a map are at its top: the form in which noisy copies vote on them."""

import torch
from torch import Tensor

from atlas.model.arrays import Maps, Ties, Tops
from atlas.study.schema.types import Top

# Of the map of the clean image, beyond which the authors' code clips the maps of its noisy copies.
CLIPPED = 0.995


def top_k(maps: Maps, *, levels: list[int], form: Top, scales: Tensor | None = None) -> tuple[Tops, Ties]:
    """Mark the top K% of each map's pixels, for every level K.

    strict marks the pixels that are among the highest ⌊K · pixels / 100⌋ signed scores however equal ones are ordered:
    #{j : aⱼ ≥ aᵢ} ≤ ⌊K · pixels / 100⌋. Equal scores that the edge of the top would part are left out together, so that
    no order of pixels decides: of a constant map none is marked. strict_rectified does so after negative scores were
    set to 0. Both are functions of the map alone, and the marks of a level are within those of a higher one.

    authors does what the published code does: it divides a map by its scale, clips it to [−1, 1], takes absolute values
    and marks those above the (100 − K)th percentile (linear interpolation). So negative evidence counts as positive,
    fewer than K% are marked where scores are equal, and the marks depend on the clean image through the scale.

    Args:
        maps: Finite.
        levels: In percent.
        form: strict, strict_rectified or authors.
        scales: Of each map, by `scale_of`; authors alone needs them.

    Returns:
        The marks, and whether equal scores at the edge of the top were left out, so that fewer than K% are marked.
    """
    flat = maps.flatten(1)
    if form == "authors":
        divided = flat / torch.where(scales == 0, torch.ones_like(scales), scales)[:, None]
        flat = divided.clamp(-1, 1).abs()
    elif form == "strict_rectified":
        flat = flat.clamp(min=0)
    pixels = flat.shape[1]
    tops, ties = [], []
    for level in levels:
        number = level * pixels // 100
        if form == "authors":
            edge = _quantile(flat, 1 - level / 100)[:, None]
        else:  # the highest score that is not among so many
            edge = flat.kthvalue(pixels - number, dim=1, keepdim=True).values
        top = flat > edge
        ties.append(top.sum(dim=1) < number)
        tops.append(top.view_as(maps))
    return torch.stack(tops, dim=1), torch.stack(ties, dim=1)


def scale_of(maps: Maps) -> Tensor:
    """Return what the authors' code divides the maps of noisy copies by: a quantile of the clean image's signed map."""
    return _quantile(maps.flatten(1), CLIPPED)


def _quantile(flat: Tensor, share: float) -> Tensor:
    """Interpolate between the two order statistics next to a share, as NumPy does."""
    place = share * (flat.shape[1] - 1)
    low = min(int(place), flat.shape[1] - 2)
    below, above = (flat.kthvalue(low + k, dim=1).values for k in (1, 2))
    return torch.lerp(below, above, place - low)
