"""Score a map of a grid of images by how much of it lies in the target's tile."""

import torch
from torch import Tensor

from atlas.metrics.shared.rows import by_row
from atlas.model.arrays import Maps, Masks, Scores

ATTRS = {
    "grid_pointing_game": {
        "long_name": "Grid pointing game",
        "units": "1",
        "reference": "rao2022towards",
        "better": "higher",
    },
}

# Below this total, the reference code treats a map as having no positive attribution.
NOTHING = 1e-7


def grid_pointing_game(maps: Maps, tiles: Masks) -> Scores:
    """Measure the share of positive attribution that lies in the target's tile.

        Σ_tile max(a, 0) / Σ max(a, 0)

    Returns:
        0 to 1, higher is better. A uniform map scores the tile's area, 1/n² on a grid of n x n. A map whose total
        positive attribution does not exceed 1e-7 scores 0, as in the reference code.

    Undefined where the map is not finite.

    Differs from the paper (Rao et al. 2022): none. Because of the 1e-7, the score depends on the map's scale if all of
    a map is that small.
    """
    return by_row(_share, maps, tiles)


def _share(one: Tensor, tile: Tensor) -> Tensor:
    positive = one.clamp(min=0)
    total = positive.sum()
    share = torch.where(total > NOTHING, (positive * tile).sum() / total, 0.0)
    return torch.where(one.isfinite().all(), share, torch.nan)
