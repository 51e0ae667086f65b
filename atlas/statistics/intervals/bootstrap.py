"""Bootstrap intervals of ranks: how the sampling of images affects the order of means.

Everything is paired: one resample of the images is used for every method, so that common properties of the images
cancel when methods are ranked. A score belongs to a unit (an image, or a grid with its tiles); whole units are
resampled, never their parts.
"""

import math
from functools import lru_cache

import numpy as np
from jaxtyping import Float, Int

PerCell = Float[np.ndarray, " cell"]
# With fewer units that have a defined score, there is no interval.
LEAST = 5

Weights = Float[np.ndarray, "resample unit"]
Sums = Float[np.ndarray, "unit cell"]
Counts = Int[np.ndarray, "unit cell"]
Samples = Float[np.ndarray, "resample cell"]


@lru_cache(maxsize=2)  # for images and for grids: all metrics use the same draws
def draw(units: int, *, resamples: int, seed: int) -> Weights:
    """Draw units with replacement and count how often each was drawn.

    Returns:
        Whole numbers; each resample sums to the number of units. The same seed and number of units give the same draws,
        so that metrics scored on the same images are resampled together.

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
    """Sum and count the defined scores of each unit.

    Args:
        scores: NaN where undefined; an image has one part, a grid one per tile.
    """
    defined = ~np.isnan(scores)
    return np.where(defined, scores, 0).sum(axis=1, dtype=np.float64), defined.sum(axis=1)


def mean(sums: Sums, counts: Counts) -> Float[np.ndarray, " cell"]:
    """Average the defined scores; NaN where there are none."""
    return _ratio(sums.sum(axis=0), counts.sum(axis=0))


def resampled_means(weights: Weights, sums: Sums, counts: Counts) -> Float[np.ndarray, "resample cell"]:
    """Average the defined scores of each resample; NaN where a resample has none."""
    alike = (counts == counts[:, :1]).all()
    return _ratio(weights @ sums, weights @ (counts[:, :1] if alike else counts).astype(np.float64))


def rank_interval(
    samples: Float[np.ndarray, "end resample cell"], ranks: Float[np.ndarray, "end cell"], *, level: float
) -> tuple[Float[np.ndarray, " cell"], Float[np.ndarray, " cell"]]:
    """Return the percentile interval of resampled ranks, widened if needed to contain the ranks themselves.

    Args:
        samples: The best and the worst rank that ties allow, in each resample: tied values may be anywhere in between.
        ranks: Both, by the original scores.
        level: Share of the resamples inside.

    Returns:
        Best and worst ends: ranks that occurred (whole numbers), rounded outwards; NaN where unranked. Resampled ranks
        are biased towards the middle of the table, since noise can only push the first down and the last up; hence the
        widening.
    """
    tail = (1 - level) / 2
    ends = np.full(ranks.shape, np.nan)
    known = ~np.isnan(ranks[0]) & ~np.isnan(samples[0]).all(axis=0)
    ends[0, known] = np.nanquantile(samples[0][:, known], tail, axis=0, method="lower")
    ends[1, known] = np.nanquantile(samples[1][:, known], 1 - tail, axis=0, method="higher")
    return np.fmin(ends[0], ranks[0]), np.fmax(ends[1], ranks[1])


def mean_rank_interval(
    samples: Samples, ranks: PerCell, last: int, *, level: float
) -> tuple[Float[np.ndarray, " cell"], Float[np.ndarray, " cell"]]:
    """Return the interval of mean ranks: of the mean rank that as many other images of the same kind would give.

        r̄ + √2 · (quantiles of r̄* at (1 ∓ level) / 2 − mean of r̄*), within 1 to the last place

    Noise biases mean ranks towards the middle of the table, and resampling biases r̄* a second time: its quantiles lie
    to one side of r̄, and averaging over metrics does not help, since it narrows them. So r̄* is shifted to be centered
    at r̄. It also varies less than r̄ does between image samples, since the original sample already contains chance
    differences: its variance is about half where methods are equal, hence √2, and nearly all of it where methods are
    far apart, where the interval is correspondingly too wide.

    Args:
        samples: r̄*, one mean rank per resample.
        ranks: r̄, by the original scores.
        last: The last place that a mean rank can have.
        level: Share of the resamples inside.

    Returns:
        Best and worst ends, which contain the mean rank itself; NaN where it is NaN.

    Reference: efron1993introduction (the bias of resamples); the scale is ours, by simulation.
    """
    ends = np.full((2, ranks.size), np.nan)
    known = ~np.isnan(ranks) & ~np.isnan(samples).all(axis=0)
    drawn = samples[:, known]
    around = np.nanquantile(drawn, [(1 - level) / 2, (1 + level) / 2], axis=0) - np.nanmean(drawn, axis=0)
    ends[:, known] = np.clip(ranks[known] + math.sqrt(2) * around, 1, last)
    return np.fmin(ends[0], ranks), np.fmax(ends[1], ranks)


def _ratio(top: np.ndarray, bottom: np.ndarray) -> np.ndarray:
    return np.divide(top, bottom, out=np.full(np.shape(top), np.nan), where=bottom > 0)
