"""Intervals of means of few and skewed scores, and the matching test of a mean difference.

There are no random draws: an interval, and whether it contains 0, follow from mean, variance and skewness of the units,
so that letters from the test agree with the intervals beside them, and all pairs of many methods take little time.
`benchmarks/coverage.py` measures how often intervals contain the true mean.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Num
from scipy.special import ndtr, ndtri, stdtr, stdtrit

from atlas.statistics.intervals.bootstrap import LEAST, Counts, PerCell, Sums, mean
from atlas.statistics.rankings.ranks import TIE

# The ratio, by simulation, of a distribution's skewness to that of a few scores from it.
MORE = 1.25
# Added to hits and to misses (Agresti and Coull), and to the wins and losses of a pair of methods.
HITS, WINS = 2.0, 0.5
# Units needed per unit of skewness, by simulation.
SKEWED = 7


class Moments(NamedTuple):
    """The quantities behind the interval of a mean, by cell: mean, standard error, skewness, number of units."""

    mean: PerCell
    error: PerCell
    skewness: PerCell
    units: Num[np.ndarray, " cell"]


class Hits(NamedTuple):
    """Shares of hits and misses, or of wins and losses, by cell, and the number of scores."""

    up: PerCell
    down: PerCell
    count: PerCell  # type: ignore[assignment]  # hides the count of tuples


def moments(sums: Sums, counts: Counts) -> Moments:
    """Return mean, standard error and skewness of the mean over all parts of all units.

        m = Σ Sᵤ / Σ cᵤ,   eᵤ = (Sᵤ − m cᵤ) / c̄,   error = √(Σ eᵤ² / (n (n − 1)))
        G₁ = √(n (n − 1)) / (n − 2) · (Σ eᵤ³ / n) / (Σ eᵤ² / n)^1.5

    Args:
        sums: Sums of the defined scores by unit, all parts together (the tiles of a grid are not independent).
        counts: Number of defined scores by unit; units without any are left out.

    Returns:
        Error and skewness are 0 if all units are equal, NaN if fewer than three have a defined score.

    Reference: cochran1977sampling (ratio of two means), joanes1998comparing (G₁).
    """
    middle = mean(sums, counts)
    here = counts > 0
    number = here.sum(axis=0)
    parts = counts.sum(axis=0) / np.maximum(number, 1)
    away = np.where(here, sums - middle * counts, 0) / np.maximum(parts, TIE)
    squares = away**2
    spread, third = squares.sum(axis=0), (squares * away).sum(axis=0)
    # Equal scores may differ from their mean by rounding.
    spread = np.where(spread > number * (TIE * np.abs(middle)) ** 2, spread, 0)
    few = number < 3
    n = np.where(few, 3, number).astype(np.float64)
    skewness = _over(third / n, (spread / n) ** 1.5) * np.sqrt(n * (n - 1)) / (n - 2)
    error = np.sqrt(spread / (n * (n - 1)))
    return Moments(middle, np.where(few, np.nan, error), np.where(few, np.nan, skewness), number)


def hits(sums: Sums, counts: Counts) -> Hits:
    """Return the shares of hits and misses of scores of 0 and 1."""
    total = counts.sum(axis=0)
    up = _over(sums.sum(axis=0), total)
    return Hits(up, 1 - up, total.astype(np.float64))


def mean_interval(found: Moments, *, level: float) -> tuple[PerCell, PerCell]:
    """Return the interval of the mean: Student's, with its end on the side of the long tail moved outward by the
    skewness.

        z(t) = t + a t² + a² t³ / 3 + a / 2,   a = 1.25 · G₁ / (3 √n),   t = (m − μ) / error
        all μ with |t| ≤ q or |z(t)| ≤ q,   q the (1 + level) / 2 quantile of Student's t with n − 1 degrees of freedom

    z transforms a skewed t into a symmetric one. The other end is not moved inward, since the skewness of a few scores
    is hardly known.

    Args:
        found: Moments of the scores.
        level: The coverage probability for the mean over all images of the kind, for instance 0.95.

    Returns:
        Lower and upper ends, in the units of the scores. NaN if fewer than five units have a defined score. For equal
        scores the interval has no width, though another unit's score may differ.

    Reference: hall1992removal.

    Differs from the paper: the union with Student's interval, t quantiles, and 1.25 times the skewness, since that of
    few scores underestimates the distribution's.
    """
    quantile = stdtrit(np.maximum(found.units - 1, 1), (1 + level) / 2)
    bend = _bend(found)
    ends = np.stack([_back(quantile, bend), _back(-quantile, bend)])
    low = found.mean - np.maximum(ends[0], quantile) * found.error
    high = found.mean - np.minimum(ends[1], -quantile) * found.error
    known = found.units >= LEAST
    return np.where(known, low, np.nan), np.where(known, high, np.nan)


def mean_test(found: Moments) -> PerCell:
    """Test whether a mean, for instance of differences, is 0: p ≤ 1 − level if the interval excludes 0.

        p = 2 · P(T ≥ min(|t|, |z(t)|)) with t and z as in `mean_interval` at μ = 0, and at least 2^(1 − n)

    Returns:
        Two-sided p-values. n units that all differ in one direction have p = 2^(1 − n) by the sign test, whatever their
        sizes, which is the smallest possible p; equal scores have it, or 1 if they are 0. NaN if fewer than five units
        have a defined score.

    Reference: hall1992removal.
    """
    t = _over(found.mean, found.error)
    bend = _bend(found)
    z = t + bend * t**2 + bend**2 * t**3 / 3 + bend / 2
    cautious = np.where(t > 0, np.minimum(t, z), -np.maximum(t, z))
    p = np.minimum(1, 2 * stdtr(np.maximum(found.units - 1, 1), -cautious))
    p = np.where(found.error > 0, p, np.where(found.mean == 0, 1.0, 0.0))
    return _bounded(p, found)


def hit_interval(found: Moments, hits: Hits, *, pseudo: float, level: float) -> tuple[PerCell, PerCell]:
    """Return the interval of a mean of hits, or of a mean difference of hits.

        p± = (N s± + k) / (N + 2k),   d = p₊ − p₋ ± q √((p₊ + p₋ − d²) / (N + 2k)),   q the normal quantile

    with s₊ and s₋ the shares of hits and misses, or of wins and losses; for hits the mean is (1 + d) / 2. N is the
    number of scores; for grids, the number of independent scores with the same standard error, at least the number of
    grids and at most that of tiles.

    Args:
        found: Moments of the scores.
        hits: Their shares.
        pseudo: k, the pseudo-counts added to hits and misses (or wins and losses): 2 or 0.5.
        level: The coverage probability for the mean.

    Returns:
        Lower and upper ends, within 0 and 1 for hits and −1 and 1 for differences. NaN if fewer than five units have a
        defined score.

    Reference: agresti1998approximate (hits), agresti2005simple (differences), korn1998confidence (N).

    Differs from the papers: no pseudo-counts are added where there is no difference, and N is not lowered for few
    grids.
    """
    middle, error = _hit_rate(found, hits, pseudo)
    reach = ndtri((1 + level) / 2) * error
    low, high = np.maximum(middle - reach, -1), np.minimum(middle + reach, 1)
    if pseudo == HITS:
        low, high = (1 + low) / 2, (1 + high) / 2
    known = found.units >= LEAST
    return np.where(known, low, np.nan), np.where(known, high, np.nan)


def hit_test(found: Moments, hits: Hits) -> PerCell:
    """Test whether the mean difference of hits is 0: two-sided, with the interval's standard error.

    Returns:
        p-values as by `mean_test`; 1 if no unit has a win or a loss.

    Reference: agresti2005simple.
    """
    middle, error = _hit_rate(found, hits, WINS)
    return _bounded(2 * ndtr(-np.abs(_over(middle, error))), found)


def are_hits(scores: Float[np.ndarray, "..."]) -> bool:
    """Return whether every defined score is 0 or 1."""
    return bool(((scores == 0) | (scores == 1) | np.isnan(scores)).all())


def intervals(sums: Sums, counts: Counts, *, binary: bool, level: float, times: float = 1) -> tuple[PerCell, PerCell]:
    """Return the interval of each mean: that for hits if all scores are 0 or 1, otherwise the general one.

    Args:
        sums: Sums of the defined scores by unit.
        counts: Number of defined scores by unit.
        binary: Whether all scores are 0 or 1.
        level: The coverage probability for the mean.
        times: Compute intervals as if there were this many times the units, with scores like these.
    """
    found = moments(sums, counts)
    found = found._replace(units=times * found.units, error=found.error / np.sqrt(times))
    if binary:
        shares = hits(sums, counts)
        return hit_interval(found, shares._replace(count=times * shares.count), pseudo=HITS, level=level)
    return mean_interval(found, level=level)


def _hit_rate(found: Moments, hits: Hits, pseudo: float) -> tuple[PerCell, PerCell]:
    """Return p₊ − p₋ and its standard error."""
    scale = 2 if pseudo == HITS else 1  # hits are averaged as 0 and 1, not as −1 and 1
    variance = hits.up + hits.down - (hits.up - hits.down) ** 2
    number = np.clip(_over(variance, (scale * found.error) ** 2), found.units, np.maximum(hits.count, found.units))
    up, down = ((number * share + pseudo) / (number + 2 * pseudo) for share in (hits.up, hits.down))
    middle = up - down
    return middle, np.sqrt((up + down - middle**2) / (number + 2 * pseudo))


def _bend(found: Moments) -> PerCell:
    """Return a of `mean_interval`."""
    return MORE * found.skewness / (3 * np.sqrt(np.maximum(found.units, 1)))


def _back(value: PerCell, bend: PerCell) -> PerCell:
    """Return the t at which z has a value; z is monotone."""
    small = np.abs(bend) < 1e-6
    scale = np.where(small, 1, bend)
    return np.where(small, value, (np.cbrt(1 + 3 * scale * (value - scale / 2)) - 1) / scale)


def _bounded(p: PerCell, found: Moments) -> PerCell:
    """Return p-values not below those of the sign test; NaN where there are too few units for an interval."""
    return np.where(found.units >= LEAST, np.maximum(p, 2.0 ** (1 - found.units)), np.nan)


def _over(top: np.ndarray, bottom: np.ndarray) -> np.ndarray:
    """Divide; 0 where the divisor is 0 or undefined."""
    return np.divide(top, bottom, out=np.zeros(np.shape(top)), where=bottom > 0)
