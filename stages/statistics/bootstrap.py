"""Intervals by resampling: which images happened to be drawn, and what that does to means and ranks.

Everything is paired: one resample of the images serves every method, so what images have in common cancels when
methods are ranked. A score belongs to a unit (an image, or a grid with its tiles); units are resampled, never the
parts of one.
"""

import math
from functools import lru_cache
from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import Float, Int
from scipy.special import ndtr, ndtri

from stages.statistics.ranks import TIE

Kind = Literal["percentile", "bca"]
PerCell = Float[np.ndarray, " cell"]
Matrix = Float[np.ndarray, "method method"]
# Units with a defined score below which there is no interval.
LEAST = 5

Weights = Float[np.ndarray, "resample unit"]
Sums = Float[np.ndarray, "unit cell"]
Counts = Int[np.ndarray, "unit cell"]
Samples = Float[np.ndarray, "resample cell"]


class Differences(NamedTuple):
    """Differences of mean scores between every two methods, that of the row minus that of the column."""

    difference: Matrix
    low: Matrix
    high: Matrix
    count: Int[np.ndarray, "method method"]


@lru_cache(maxsize=2)  # of images and of grids: every metric takes the same draws
def draw(units: int, *, resamples: int, seed: int) -> Weights:
    """Draw units with replacement and count how often each was drawn.

    Returns:
        Whole numbers; each resample sums to the number of units. The same seed and number of units give the same
        draws, so that metrics scored on the same images are resampled together.

    Reference: efron1993introduction.
    """
    if units == 0:
        return np.zeros((resamples, 0))
    picks = np.random.default_rng([seed, units]).integers(units, size=(resamples, units))
    rows = np.arange(resamples)[:, None] * units
    found = np.bincount((picks + rows).ravel(), minlength=resamples * units).reshape(resamples, units).astype(float)
    found.setflags(write=False)
    return found


def pool(scores: Float[np.ndarray, "unit part cell"]) -> tuple[Sums, Counts]:
    """Add up the defined scores of each unit, and count them.

    Args:
        scores: NaN where undefined; an image has one part, a grid one a tile.
    """
    defined = ~np.isnan(scores)
    return np.where(defined, scores, 0).sum(axis=1, dtype=np.float64), defined.sum(axis=1)


def mean(sums: Sums, counts: Counts) -> Float[np.ndarray, " cell"]:
    """Average the defined scores; NaN where there are none."""
    return _ratio(sums.sum(axis=0), counts.sum(axis=0))


def resampled_means(weights: Weights, sums: Sums, counts: Counts) -> Float[np.ndarray, "resample cell"]:
    """Average the defined scores of each resample; NaN where a resample holds none."""
    alike = (counts == counts[:, :1]).all()
    return _ratio(weights @ sums, weights @ (counts[:, :1] if alike else counts).astype(np.float64))


def interval(
    samples: Float[np.ndarray, "resample cell"], counts: Counts, *, level: float
) -> tuple[Float[np.ndarray, " cell"], Float[np.ndarray, " cell"]]:
    """Give the percentile interval of resampled means.

    Args:
        samples: One mean a resample.
        counts: Defined scores by unit.
        level: Share of the resamples inside, 0.95 for instance.

    Returns:
        Lower and upper ends, of the resamples in which the mean is defined. NaN where fewer than five units have a
        defined score: so few say little of how units vary, and three would be in such an interval of 95% but three
        times in four. Of equal scores it has no width, though another unit's score may differ.
    """
    tail = (1 - level) / 2
    known = ((counts > 0).sum(axis=0) >= LEAST) & ~np.isnan(samples).all(axis=0)
    ends = np.full((2, samples.shape[1]), np.nan)
    whole = known & ~np.isnan(samples).any(axis=0)
    ends[:, whole] = np.quantile(samples[:, whole], [tail, 1 - tail], axis=0)
    partly = known & ~whole
    ends[:, partly] = np.nanquantile(samples[:, partly], [tail, 1 - tail], axis=0)
    return ends[0], ends[1]


def mean_interval(samples: Samples, sums: Sums, counts: Counts, *, level: float, kind: Kind) -> tuple[PerCell, PerCell]:
    """Give the interval of the mean: quantiles of the resampled means at two shares α.

        percentile:  α = (1 ∓ level) / 2
        bca:         α = Φ(z₀ + (z₀ + z) / (1 − a · (z₀ + z))),  z = Φ⁻¹((1 ∓ level) / 2)

    z₀ = Φ⁻¹(share of the resampled means below the mean, equal ones counted half) and a = Σ dᵤ³ / (6 · (Σ dᵤ²)^1.5),
    where dᵤ is how far the mean without unit u is below the average of such means. The second interval follows a
    skewed distribution, as that of scores near an end of their range.

    Args:
        samples: One mean a resample.
        sums: Sums of the defined scores by unit, its parts together; units without any do not count in a.
        counts: Defined scores by unit.
        level: Share of the resamples inside, 0.95 for instance.
        kind: Which interval.

    Returns:
        Lower and upper ends, in the units of the scores. NaN where fewer than five units have a defined score.

    Reference: efron1987better (bca), efron1993introduction.

    Differs from the paper: where all resampled means are on one side of the mean, z₀ is as if half of one were on the
    other; and where 1 − a · (z₀ + z) is not positive, the end is the last resample on its side.
    """
    if kind == "percentile":
        return interval(samples, counts, level=level)
    shift, bend = _shift(samples, mean(sums, counts)), _bend(sums, counts)
    tails = shift + ndtri([[(1 - level) / 2], [(1 + level) / 2]])
    scale = 1 - bend * tails
    moved = np.divide(tails, scale, out=np.copysign(np.inf, tails), where=scale > 0)
    ends = _quantiles(samples, ndtr(shift + moved))
    ends[:, (counts > 0).sum(axis=0) < LEAST] = np.nan
    return ends[0], ends[1]


def differences(
    scores: Float[np.ndarray, "unit part method"], weights: Weights, *, level: float, kind: Kind
) -> Differences:
    """Give the difference of two methods' mean scores with its interval, for every two methods.

    Each is the mean of the differences score by score, over the images (or tiles) where both methods have a defined
    one, `count` of them: what makes an image easy for both cancels. It is not the difference of two means over
    different images, where some are undefined.

    Args:
        scores: NaN where undefined; an image has one part, a grid one a tile.
        weights: How often each resample drew each unit.
        level: Share of the resamples inside an interval.
        kind: Which interval.

    Returns:
        In the units of the scores; 0 on the diagonal. NaN where the two share no image, intervals also where they share
        fewer than five units.

    Reference: efron1993introduction. Where two methods are defined on the same images (or tiles), the resampled mean
    of their differences is the difference of their resampled means, which costs less.
    """
    number = scores.shape[-1]
    table = Differences(*np.full((3, number, number), np.nan), np.zeros((number, number), np.int64))
    sums, counts = pool(scores)
    samples = resampled_means(weights, sums, counts)
    found: dict[bytes, int] = {}
    undefined = np.isnan(scores).reshape(-1, number).T
    gaps = np.array([found.setdefault(one.tobytes(), len(found)) for one in undefined])
    for first in range(number):
        alike = gaps[first:] == gaps[first]
        for same, rest in ((True, first + np.flatnonzero(alike)), (False, first + np.flatnonzero(~alike))):
            if same:
                of_pairs, shared = sums[:, [first]] - sums[:, rest], counts[:, rest]
                resampled = samples[:, [first]] - samples[:, rest]
            elif rest.size:
                of_pairs, shared = pool(scores[..., first, None] - scores[..., rest])
                resampled = resampled_means(weights, of_pairs, shared)
            else:
                continue
            low, high = mean_interval(resampled, of_pairs, shared, level=level, kind=kind)
            change = mean(of_pairs, shared)
            for column, there, back in zip(table[:3], (change, low, high), (-change, -high, -low), strict=True):
                column[rest, first], column[first, rest] = back, there
            table.count[rest, first] = table.count[first, rest] = shared.sum(axis=0)
    return table


def rank_interval(
    samples: Float[np.ndarray, "end resample cell"], ranks: Float[np.ndarray, "end cell"], *, level: float
) -> tuple[Float[np.ndarray, " cell"], Float[np.ndarray, " cell"]]:
    """Give the percentile interval of resampled ranks, widened where it must be to hold the ranks themselves.

    Args:
        samples: The best rank that ties leave in each resample, and the worst: equal values are anywhere between.
        ranks: Both by the scores as they are.
        level: Share of the resamples inside.

    Returns:
        Best and worst ends, ranks that occurred (whole numbers), rounded outwards; NaN where unranked. Resampled ranks
        are drawn to the middle of the table, since noise can push the first only down and the last only up: hence the
        widening.
    """
    tail = (1 - level) / 2
    ends = np.full(ranks.shape, np.nan)
    known = ~np.isnan(ranks[0]) & ~np.isnan(samples[0]).all(axis=0)
    for end, share, method in ((0, tail, "lower"), (1, 1 - tail, "higher")):
        ends[end, known] = np.nanquantile(samples[end][:, known], share, axis=0, method=method)
    return np.fmin(ends[0], ranks[0]), np.fmax(ends[1], ranks[1])


def mean_rank_interval(
    samples: Samples, ranks: PerCell, last: PerCell, *, level: float
) -> tuple[Float[np.ndarray, " cell"], Float[np.ndarray, " cell"]]:
    """Give the interval of mean ranks: of the mean rank that as many other images of the same kind would give.

        r̄ + √2 · (quantiles of r̄* at (1 ∓ level) / 2 − mean of r̄*), within 1 to the last place

    Noise draws mean ranks to the middle of the table, and resampling draws r̄* there a second time: quantiles of r̄* as
    they are lie to one side of r̄, which averaging over metrics makes no better, since it narrows them. So r̄* are
    shifted to lie around r̄. They also vary less than r̄ from images to images, since what is resampled is already
    apart by chance: their variance is about half where methods are equal, hence √2, and nearly all of it where methods
    are far apart, where the interval is that much too wide.

    Args:
        samples: r̄*, one mean rank a resample.
        ranks: r̄, by the scores as they are.
        last: The last place that a mean rank can have.
        level: Share of the resamples inside.

    Returns:
        Best and worst ends, which hold the mean rank itself; NaN where it is NaN.

    Reference: efron1993introduction (the bias of resamples); the scale is ours, by simulation.
    """
    ends = np.full((2, ranks.size), np.nan)
    known = ~np.isnan(ranks) & ~np.isnan(samples).all(axis=0)
    drawn = samples[:, known]
    around = np.nanquantile(drawn, [(1 - level) / 2, (1 + level) / 2], axis=0) - np.nanmean(drawn, axis=0)
    ends[:, known] = np.clip(ranks[known] + math.sqrt(2) * around, 1, last[known])
    return np.fmin(ends[0], ranks), np.fmax(ends[1], ranks)


def _shift(samples: Samples, means: PerCell) -> PerCell:
    """Give z₀, finite; 0 where nothing is defined."""
    number = np.maximum((~np.isnan(samples)).sum(axis=0), 1)
    equal = np.abs(samples - means) <= TIE * np.abs(means)
    below = ((samples < means) & ~equal).sum(axis=0) + equal.sum(axis=0) / 2
    return ndtri(np.clip(below, 0.5, number - 0.5) / number)


def _bend(sums: Sums, counts: Counts) -> PerCell:
    """Give a, by the jackknife over units; 0 where they are all alike."""
    use = counts > 0
    without = _ratio(sums.sum(axis=0) - sums, counts.sum(axis=0) - counts)
    middle = np.where(use, without, 0).sum(axis=0) / np.maximum(use.sum(axis=0), 1)
    away = np.where(use, middle - without, 0)
    squares = away**2
    scale = 6 * squares.sum(axis=0) ** 1.5
    return np.divide((squares * away).sum(axis=0), scale, out=np.zeros(scale.shape), where=scale > 0)


def _quantiles(samples: Samples, shares: Float[np.ndarray, "end cell"]) -> Float[np.ndarray, "end cell"]:
    """Interpolate linearly between the defined samples of each cell, at shares of its own; NaN where it has none."""
    ordered = np.sort(samples, axis=0)  # NaN comes last
    place = shares * np.maximum((~np.isnan(samples)).sum(axis=0) - 1, 0)
    below, above = (np.take_along_axis(ordered, end(place).astype(int), axis=0) for end in (np.floor, np.ceil))
    return below + (place % 1) * (above - below)


def _ratio(top: np.ndarray, bottom: np.ndarray) -> np.ndarray:
    return np.divide(top, bottom, out=np.full(np.shape(top), np.nan), where=bottom > 0)
