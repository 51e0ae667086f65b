"""Intervals of means of few and skewed scores, and the test of a mean difference that goes with them.

No draws: an interval, and whether it holds 0, follow from mean, variance and skewness of the units alone, so that
letters that come of the test say what the intervals beside them say, and so that all pairs of many methods take little
time. `benchmarks/coverage.py` measures how often intervals hold the true mean.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Num
from scipy.special import ndtr, ndtri, stdtr, stdtrit

from atlas.statistics.intervals.bootstrap import LEAST, Counts, PerCell, Sums, mean
from atlas.statistics.rankings.ranks import TIE

# By simulation: so much larger than the skewness of a few scores is that of the distribution that they come from.
MORE = 1.25
# Added to hits and to misses (Agresti and Coull), and to the wins and to the losses of a pair of methods.
HITS, WINS = 2.0, 0.5
# Units that it takes for each unit of skewness, by simulation.
SKEWED = 7


class Moments(NamedTuple):
    """What the interval of a mean is made of, by cell: the mean, its standard error, the skewness and the units."""

    mean: PerCell
    error: PerCell
    skewness: PerCell
    units: Num[np.ndarray, " cell"]


class Hits(NamedTuple):
    """Scores of which each is a hit or not, or a win, a loss or neither: shares by cell, and over how many scores."""

    up: PerCell
    down: PerCell
    count: PerCell


def moments(sums: Sums, counts: Counts) -> Moments:
    """Return mean, standard error and skewness of the mean over all parts of all units.

        m = Σ Sᵤ / Σ cᵤ,   eᵤ = (Sᵤ − m cᵤ) / c̄,   error = √(Σ eᵤ² / (n (n − 1)))
        G₁ = √(n (n − 1)) / (n − 2) · (Σ eᵤ³ / n) / (Σ eᵤ² / n)^1.5

    Args:
        sums: Sums of the defined scores by unit, its parts together (the tiles of a grid are not independent).
        counts: Defined scores by unit; units without any are left out.

    Returns:
        Error and skewness are 0 where all units are alike, NaN where fewer than three have a defined score.

    Reference: cochran1977sampling (ratio of two means), joanes1998comparing (G₁).
    """
    middle = mean(sums, counts)
    here = counts > 0
    number = here.sum(axis=0)
    parts = counts.sum(axis=0) / np.maximum(number, 1)
    away = np.where(here, sums - middle * counts, 0) / np.maximum(parts, TIE)
    squares = away**2
    spread, third = squares.sum(axis=0), (squares * away).sum(axis=0)
    # Equal scores differ from their mean by rounding.
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
    """Return the interval of the mean: Student's, its end on the side of the long tail moved outward by the skewness.

        z(t) = t + a t² + a² t³ / 3 + a / 2,   a = 1.25 · G₁ / (3 √n),   t = (m − μ) / error
        all μ with |t| ≤ q or |z(t)| ≤ q,   q the (1 + level) / 2 quantile of Student's t with n − 1 degrees of freedom

    z turns a skewed t into one that is not. The end on the other side is not moved inward, since the skewness of a few
    scores is hardly known.

    Args:
        found: Of the scores.
        level: How often the interval is to hold the mean of all images of the kind, 0.95 for instance.

    Returns:
        Lower and upper ends, in the units of the scores. NaN where fewer than five units have a defined score. Of equal
        scores the interval has no width, though another unit's score may differ.

    Reference: hall1992removal.

    Differs from the paper: the union with Student's interval, t quantiles, and 1.25 times the skewness, since that of
    few scores falls short of the distribution's.
    """
    quantile = stdtrit(np.maximum(found.units - 1, 1), (1 + level) / 2)
    bend = _bend(found)
    ends = np.stack([_back(quantile, bend), _back(-quantile, bend)])
    low = found.mean - np.maximum(ends[0], quantile) * found.error
    high = found.mean - np.minimum(ends[1], -quantile) * found.error
    known = found.units >= LEAST
    return np.where(known, low, np.nan), np.where(known, high, np.nan)


def mean_test(found: Moments) -> PerCell:
    """Test whether the mean, of differences for instance, is 0: p ≤ 1 − level where the interval leaves 0 out.

        p = 2 · P(T ≥ min(|t|, |z(t)|)) with t and z as in `mean_interval` at μ = 0, and at least 2^(1 − n)

    Returns:
        Two-sided p-values. n units that all differ in one direction have p = 2^(1 − n) by a toss of coins, whatever
        they are, and none is more sure than that; of equal scores it is that, and 1 where they are 0. NaN where fewer
        than five units have a defined score.

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
    number of scores, or where they come in grids that of as many independent ones as have the same standard error, no
    fewer than grids and no more than tiles.

    Args:
        found: Of the scores.
        hits: Their shares.
        pseudo: k, hits (or wins) and as many misses (or losses) that are added: 2 or 0.5.
        level: How often the interval is to hold the mean.

    Returns:
        Lower and upper ends, within 0 and 1 for hits and −1 and 1 for differences. NaN where fewer than five units have
        a defined score.

    Reference: agresti1998approximate (hits), agresti2005simple (differences), korn1998confidence (N).

    Differs from the papers: where there is no difference no pair is added, and N is not lowered for few grids.
    """
    middle, error = _hit_rate(found, hits, pseudo)
    reach = ndtri((1 + level) / 2) * error
    low, high = np.maximum(middle - reach, -1), np.minimum(middle + reach, 1)
    if pseudo == HITS:
        low, high = (1 + low) / 2, (1 + high) / 2
    known = found.units >= LEAST
    return np.where(known, low, np.nan), np.where(known, high, np.nan)


def hit_test(found: Moments, hits: Hits) -> PerCell:
    """Test whether the mean difference of hits is 0: two-sided, by the interval's standard error.

    Returns:
        p-values as `mean_test` gives; 1 where no unit has a win or a loss.

    Reference: agresti2005simple.
    """
    middle, error = _hit_rate(found, hits, WINS)
    return _bounded(2 * ndtr(-np.abs(_over(middle, error))), found)


def are_hits(scores: Float[np.ndarray, "..."]) -> bool:
    """Return whether every defined score is 0 or 1."""
    return bool(((scores == 0) | (scores == 1) | np.isnan(scores)).all())


def intervals(sums: Sums, counts: Counts, *, binary: bool, level: float, times: float = 1) -> tuple[PerCell, PerCell]:
    """Return the interval of each mean: of hits where all scores are 0 or 1, else of any scores.

    Args:
        sums: Sums of the defined scores by unit.
        counts: Defined scores by unit.
        binary: Whether all scores are 0 or 1.
        level: How often the interval is to hold the mean.
        times: As if there were so many times the units, with scores like these.
    """
    found = moments(sums, counts)
    found = found._replace(units=times * found.units, error=found.error / np.sqrt(times))
    if binary:
        shares = hits(sums, counts)
        return hit_interval(found, shares._replace(count=times * shares.count), pseudo=HITS, level=level)
    return mean_interval(found, level=level)


def _hit_rate(found: Moments, hits: Hits, pseudo: float) -> tuple[PerCell, PerCell]:
    """Return p₊ − p₋ and its standard error."""
    scale = 2 if pseudo == HITS else 1  # of hits the mean is of 0 and 1, not of −1 and 1
    variance = hits.up + hits.down - (hits.up - hits.down) ** 2
    number = np.clip(_over(variance, (scale * found.error) ** 2), found.units, np.maximum(hits.count, found.units))
    up, down = ((number * share + pseudo) / (number + 2 * pseudo) for share in (hits.up, hits.down))
    middle = up - down
    return middle, np.sqrt((up + down - middle**2) / (number + 2 * pseudo))


def _bend(found: Moments) -> PerCell:
    """Return a."""
    return MORE * found.skewness / (3 * np.sqrt(np.maximum(found.units, 1)))


def _back(value: PerCell, bend: PerCell) -> PerCell:
    """Return the t at which z is a value; z is monotone."""
    small = np.abs(bend) < 1e-6
    scale = np.where(small, 1, bend)
    return np.where(small, value, (np.cbrt(1 + 3 * scale * (value - scale / 2)) - 1) / scale)


def _bounded(p: PerCell, found: Moments) -> PerCell:
    """Return p-values that are not below what a toss of coins gives, nor of fewer units than an interval needs."""
    return np.where(found.units >= LEAST, np.maximum(p, 2.0 ** (1 - found.units)), np.nan)


def _over(top: np.ndarray, bottom: np.ndarray) -> np.ndarray:
    """Divide; 0 where the lower part is 0 or undefined."""
    return np.divide(top, bottom, out=np.zeros(np.shape(top)), where=bottom > 0)
