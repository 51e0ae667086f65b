"""The guide of Guided AbsoluteGrad: suppress pixels with a low variance."""

from torch import Tensor

from atlas.model.arrays import Images
from atlas.model.batch_cache import shared
from atlas.study.errors import UserError
from atlas.study.schema.types import Floor


def guide(variance: Images, percentile: int, floor: Floor) -> Images:
    """Return 1 where the variance exceeds its percentile over the pixels of an image's channel, otherwise the floor.

    Args:
        variance: Variance of the maps to be guided.
        percentile: Percentage of pixels to suppress, 0 to 100.
        floor: The variance itself (raw), the variance scaled to [0, 1] in its channel (minmax), or 0.
    """
    ordered = _ascending(variance)
    # The value at or below the percentile suffices: no variance lies between it and the interpolated one.
    threshold = ordered[..., percentile * (ordered.shape[-1] - 1) // 100, None, None]
    lowest, highest = ordered[..., 0, None, None], ordered[..., -1, None, None]
    suppressed = {"raw": variance, "minmax": _scaled(variance, lowest, highest), "zero": variance.new_zeros(())}[floor]
    return suppressed.where(variance <= threshold, 1.0)


def check_guide(function: str, percentile: int, terms: str, count: int) -> None:
    """Reject a percentile outside 0 to 100, and a variance of fewer than 2 terms.

    Raises:
        UserError: one of these; the message names the setting `terms` that determines their number.
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
