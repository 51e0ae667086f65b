"""Scale maps to [0, 1], and compare them independently of their scale."""

import torch
from torch import Tensor

from atlas.metrics.shared.rows import finite
from atlas.model.arrays import Maps


def scaled(maps: Maps) -> tuple[Maps, Tensor]:
    """Scale each map by its own lowest and highest value; also return which maps are finite and not constant.

    (a − min a) / (max a − min a)
    """
    low, high = maps.amin(dim=(1, 2)), maps.amax(dim=(1, 2))
    spread = high - low
    return (maps - low[:, None, None]) / spread[:, None, None], finite(maps) & (spread > 0)


def pearson(one: Tensor, other: Tensor) -> Tensor:
    """Correlate the values of two rows: −1 to 1, NaN where either is constant or not finite."""
    values = torch.stack([one.flatten(), other.flatten()]).double()
    centered = values - values.mean(dim=1, keepdim=True)
    product = (centered[0] * centered[1]).sum() / centered.square().sum(dim=1).sqrt().prod()
    varied = (values.amax(dim=1) > values.amin(dim=1)).all()
    return torch.where(varied, product.clamp(-1, 1), torch.nan).float()
