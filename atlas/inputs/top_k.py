"""Find the pixels at the top of a map, in the forms in which noisy samples vote on them."""

import torch
from torch import Tensor

from atlas.model.arrays import Maps, Ties, Tops
from atlas.study.schema.types import Top

# The quantile of the clean image's map at which the authors' code clips the maps of its noisy samples.
CLIPPED = 0.995


def top_k(maps: Maps, *, levels: list[int], form: Top, scales: Tensor | None = None) -> tuple[Tops, Ties]:
    """Mark the top K% of each map's pixels, for every level K.

    strict marks the pixels that are among the ⌊K · pixels / 100⌋ highest signed scores in any order of equal scores:
    #{j : aⱼ ≥ aᵢ} ≤ ⌊K · pixels / 100⌋. Equal scores that straddle the edge of the top are left out together, so the
    order of pixels never decides; a constant map has no marked pixel. strict_rectified does the same after setting
    negative scores to 0. Both depend on the map alone, and the marks of a level are among those of a higher one.

    authors follows the published code: it divides a map by its scale, clips it to [−1, 1], takes absolute values and
    marks those above the (100 − K)th percentile (linear interpolation). So negative attributions count as positive,
    fewer than K% are marked where scores are equal, and the marks depend on the clean image through the scale.

    Args:
        maps: Finite maps.
        levels: K, in percent.
        form: strict, strict_rectified or authors.
        scales: One per map, by `scale_of`; needed for authors only.

    Returns:
        The marks, and whether equal scores at the edge of the top were left out, so that fewer than K% are marked.
    """
    flat = maps.flatten(1)
    if form == "authors":
        assert scales is not None
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
        else:  # the highest score that is not among the top
            edge = flat.kthvalue(pixels - number, dim=1, keepdim=True).values
        top = flat > edge
        ties.append(top.sum(dim=1) < number)
        tops.append(top.view_as(maps))
    return torch.stack(tops, dim=1), torch.stack(ties, dim=1)


def scale_of(maps: Maps) -> Tensor:
    """Return the authors' divisor for maps of noisy samples: a quantile of the clean image's signed map."""
    return _quantile(maps.flatten(1), CLIPPED)


def _quantile(flat: Tensor, share: float) -> Tensor:
    """Interpolate linearly between the two neighboring order statistics, as NumPy does."""
    place = share * (flat.shape[1] - 1)
    low = min(int(place), flat.shape[1] - 2)
    below, above = (flat.kthvalue(low + k, dim=1).values for k in (1, 2))
    return torch.lerp(below, above, place - low)
