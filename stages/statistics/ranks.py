"""Ranks, 1 the best."""

from typing import Literal

import numpy as np
from jaxtyping import Float

# Relative. Means of equal scores may differ in the last bit, as the order in which they were added does.
TIE = 1e-12


def rank(
    values: Float[np.ndarray, "*case method"], *, better: Literal["higher", "lower"]
) -> Float[np.ndarray, "*case method"]:
    """Rank methods within each case: one more than the number that are better.

    Args:
        values: Mean scores, for instance.
        better: Which way is better.

    Returns:
        1 for the best; equal values share the best of their ranks ("1224"). NaN where the value is NaN: an undefined
        value has no rank and takes none from the others.
    """
    signed = values if better == "higher" else -values
    # NaN compares false, so it is never the better one.
    ahead = (signed[..., None, :] > (signed + TIE * np.abs(values))[..., :, None]).sum(axis=-1)
    return np.where(np.isnan(values), np.nan, 1.0 + ahead)


def mean_rank(
    ranks: Float[np.ndarray, "*case metric method"],
) -> tuple[Float[np.ndarray, "*case method"], Float[np.ndarray, "*case method"]]:
    """Average ranks over metrics.

    Returns:
        The mean over the metrics that ranked a method, NaN where none did; and how many did. Means over different
        metrics cannot be compared, so look at the number.
    """
    ranked = ~np.isnan(ranks)
    number = ranked.sum(axis=-2).astype(np.float64)
    total = np.where(ranked, ranks, 0).sum(axis=-2)
    return np.divide(total, number, out=np.full(total.shape, np.nan), where=number > 0), number
