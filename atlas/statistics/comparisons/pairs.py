"""Compare every two methods image by image: the difference of means, and whether it exceeds chance."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from atlas.statistics.comparisons.significance import holm
from atlas.statistics.intervals.bootstrap import Counts, PerCell, Sums, pool
from atlas.statistics.intervals.means import (
    WINS,
    Hits,
    Moments,
    hit_interval,
    hit_test,
    mean_interval,
    mean_test,
    moments,
)

# Bits of float32 scores that are trusted in differences: 0.3 − 0.1 and 0.4 − 0.2 differ in the other bits.
BITS = 20

Matrix = Float[np.ndarray, "method method"]
Numbers = Int[np.ndarray, "method method"]


class Pairs(NamedTuple):
    """Comparisons of every two methods, the one of the row with the one of the column."""

    p: Matrix
    p_adjusted: Matrix
    superiority: Matrix
    difference: Matrix
    difference_low: Matrix
    difference_high: Matrix
    count: Numbers  # type: ignore[assignment]  # hides the count of tuples
    difference_count: Numbers


def compare_pairs(scores: Float[np.ndarray, "unit part method"], *, binary: bool, level: float) -> Pairs:
    """Compare the mean scores of every two methods, over the images (or tiles) where both are defined.

    Differences are taken score by score, so that an image's difficulty cancels. A grid with its tiles is one unit.
    Unadjusted p-values are at most 1 − level where intervals exclude 0, as both are computed by `means`.

    Args:
        scores: NaN where undefined; an image has one part, a grid one per tile.
        binary: Whether every score is 0 or 1.
        level: The coverage probability of the intervals.

    Returns:
        Two-sided p-values, 1 on the diagonal; the same after Holm's adjustment over all pairs; the probability that the
        row's score is the larger one on a unit, by the mean over its tiles, ties counted half; the difference of means,
        row minus column, in the units of the scores, with its interval; the numbers of units and of scores that both
        have. NaN where two methods share nothing; p-values and intervals also where they share fewer than five units.

    Reference: hall1992removal, agresti2005simple (the test), holm1979simple, mcgraw1992common (superiority).
    """
    number = scores.shape[-1]
    table = Pairs(*np.full((6, number, number), np.nan), *np.zeros((2, number, number), np.int64))
    unit = _unit(scores)
    for first in range(number):
        change = scores[..., [first]] - scores[..., first:]
        sums, counts = pool(change)
        coarse = np.maximum(unit[first], unit[first:])
        found = moments(sums, counts)
        found = found._replace(error=np.where(found.error * np.sqrt(found.units) <= coarse / 2, 0, found.error))
        p, low, high = _tested(found, change, coarse, binary=binary, level=level)
        larger, count = _larger(sums, counts, coarse), counts.sum(axis=0)
        columns = (p, p, larger, found.mean, low, high, found.units, count)
        turned = (p, p, 1 - larger, -found.mean, -high, -low, found.units, count)
        for matrix, there, back in zip(table, columns, turned, strict=True):
            matrix[first:, first], matrix[first, first:] = back, there
    own = np.diag_indices(number)
    table.difference_low[own] = table.difference_high[own] = np.where(np.isnan(table.p[own]), np.nan, 0)
    upper = np.triu_indices(number, k=1)
    table.p_adjusted[upper] = table.p_adjusted.T[upper] = holm(table.p[upper])
    return table


def _tested(
    found: Moments, change: Float[np.ndarray, "unit part pair"], coarse: PerCell, *, binary: bool, level: float
) -> tuple[PerCell, PerCell, PerCell]:
    if binary:
        count = (~np.isnan(change)).sum(axis=(0, 1))
        up, down = ((sign * change > 0.5).sum(axis=(0, 1)) / np.maximum(count, 1) for sign in (1, -1))
        wins = Hits(up, down, count.astype(np.float64))
        return hit_test(found, wins), *hit_interval(found, wins, pseudo=WINS, level=level)
    # Differences that are rounding errors only count as none.
    none = (found.error == 0) & (np.abs(found.mean) <= coarse / 2)
    return mean_test(found._replace(mean=np.where(none, 0, found.mean))), *mean_interval(found, level=level)


def _larger(sums: Sums, counts: Counts, coarse: PerCell) -> PerCell:
    """Return the share of units on which a sum of differences is above 0, ties counted half."""
    shared = (counts > 0).sum(axis=0)
    least = coarse / 2 * counts
    signs = (sums > least).sum(axis=0) - (sums < -least).sum(axis=0)
    return np.where(shared > 0, (1 + signs / np.maximum(shared, 1)) / 2, np.nan)


def _unit(scores: Float[np.ndarray, "unit part method"]) -> PerCell:
    """Return, by method, the last bit that is trusted in a score of typical size.

    The typical size is the median of the scores that are not 0. With the largest score instead, one image could turn
    all others into ties.
    """
    size = np.abs(scores).reshape(-1, scores.shape[-1])
    size = np.where(size > 0, size, np.nan)
    some = ~np.isnan(size).all(axis=0)
    usual = np.zeros(size.shape[1])
    usual[some] = np.nanmedian(size[:, some], axis=0)
    return np.ldexp(1.0, np.frexp(usual)[1] - BITS)
