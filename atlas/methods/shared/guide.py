"""The guide of Guided AbsoluteGrad: hold down the pixels whose variance is low."""

from torch import Tensor

from atlas.model.arrays import Images
from atlas.model.batch_cache import shared
from atlas.study.errors import UserError
from atlas.study.schema.types import Floor


def guide(variance: Images, percentile: int, floor: Floor) -> Images:
    """Return 1 where the variance exceeds its percentile over the pixels of an image's channel, else the floor.

    Args:
        variance: Of the maps that are to be guided.
        percentile: Share of pixels held down, 0 to 100.
        floor: The variance itself (raw), that scaled to [0, 1] in its channel (minmax), or 0.
    """
    ordered = _ascending(variance)
    # The value at or below the percentile will do: no variance lies between it and the interpolated one.
    threshold = ordered[..., percentile * (ordered.shape[-1] - 1) // 100, None, None]
    lowest, highest = ordered[..., 0, None, None], ordered[..., -1, None, None]
    held = {"raw": variance, "minmax": _scaled(variance, lowest, highest), "zero": variance.new_zeros(())}[floor]
    return held.where(variance <= threshold, 1.0)


def check_guide(function: str, percentile: int, terms: str, count: int) -> None:
    """Refuse a percentile outside 0 to 100, and a variance of fewer than 2 terms.

    Raises:
        UserError: so it is; the message names the setting `terms` that says how many there are.
    """
    if not 0 <= percentile <= 100:
        raise UserError(f"{function}: the setting 'percentile' is {percentile}, expected 0 to 100")
    if percentile and count < 2:
        raise UserError(f"{function}: the setting '{terms}' is {count}, expected at least 2: it takes a variance")


@shared
def _ascending(variance: Images) -> Tensor:
    """Sort each channel's values, so that every percentile is a look-up."""
    return variance.flatten(2).sort(dim=2).values


def _scaled(variance: Images, lowest: Tensor, highest: Tensor) -> Images:
    span = highest - lowest
    return (variance - lowest) / span.where(span > 0, 1.0)
