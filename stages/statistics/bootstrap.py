"""Intervals by resampling: which images happened to be drawn, and what that does to means and ranks.

Everything is paired: one resample of the images serves every method, so what images have in common cancels when
methods are ranked. A score belongs to a unit (an image, or a grid with its tiles); units are resampled, never the
parts of one.
"""

import numpy as np
from jaxtyping import Float, Int

Weights = Float[np.ndarray, "resample unit"]
Sums = Float[np.ndarray, "unit cell"]
Counts = Int[np.ndarray, "unit cell"]


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
    return np.bincount((picks + rows).ravel(), minlength=resamples * units).reshape(resamples, units).astype(float)


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
    return _ratio(weights @ sums, weights @ counts.astype(np.float64))


def interval(
    samples: Float[np.ndarray, "resample cell"], counts: Counts, *, level: float
) -> tuple[Float[np.ndarray, " cell"], Float[np.ndarray, " cell"]]:
    """Give the percentile interval of resampled means.

    Args:
        samples: One mean a resample.
        counts: Defined scores by unit.
        level: Share of the resamples inside, 0.95 for instance.

    Returns:
        Lower and upper ends, of the resamples in which the mean is defined. NaN where fewer than two units have a
        defined score: one unit says nothing of how units vary.
    """
    tail = (1 - level) / 2
    known = ((counts > 0).sum(axis=0) >= 2) & ~np.isnan(samples).all(axis=0)
    ends = np.full((2, samples.shape[1]), np.nan)
    whole = known & ~np.isnan(samples).any(axis=0)
    ends[:, whole] = np.quantile(samples[:, whole], [tail, 1 - tail], axis=0)
    partly = known & ~whole
    ends[:, partly] = np.nanquantile(samples[:, partly], [tail, 1 - tail], axis=0)
    return ends[0], ends[1]


def rank_interval(
    samples: Float[np.ndarray, "resample cell"],
    ranks: Float[np.ndarray, " cell"],
    *,
    level: float,
    attained: bool,
) -> tuple[Float[np.ndarray, " cell"], Float[np.ndarray, " cell"]]:
    """Give the percentile interval of resampled ranks, widened where it must be to hold the rank itself.

    Args:
        samples: One rank a resample.
        ranks: Rank by the scores as they are.
        level: Share of the resamples inside.
        attained: Whether the ends are to be ranks that occurred (whole numbers), rounded outwards.

    Returns:
        Best and worst ends; NaN where unranked. Resampled ranks are drawn to the middle of the table, since noise can
        push the first only down and the last only up: hence the widening.
    """
    tail = (1 - level) / 2
    ends = np.full((2, samples.shape[1]), np.nan)
    known = ~np.isnan(ranks) & ~np.isnan(samples).all(axis=0)
    for end, share, method in ((0, tail, "lower"), (1, 1 - tail, "higher")):
        rule = method if attained else "linear"
        ends[end, known] = np.nanquantile(samples[:, known], share, axis=0, method=rule)
    return np.fmin(ends[0], ranks), np.fmax(ends[1], ranks)


def _ratio(top: np.ndarray, bottom: np.ndarray) -> np.ndarray:
    return np.divide(top, bottom, out=np.full(np.shape(top), np.nan), where=bottom > 0)
