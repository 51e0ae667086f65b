"""One metric's scores of all methods on one classifier, as a table of means and ranks with their intervals."""

from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import Bool, Float

from atlas.statistics.intervals.bootstrap import mean, pool, rank_interval, resampled_means
from atlas.statistics.intervals.means import are_hits, intervals, moments
from atlas.statistics.rankings.ranks import rank, worst_rank

PerMethod = Float[np.ndarray, " method"]


class Summary(NamedTuple):
    """A leaderboard: one number per method in each column."""

    mean: PerMethod
    low: PerMethod
    high: PerMethod
    skewness: PerMethod
    count: PerMethod  # type: ignore[assignment]  # hides the count of tuples
    rank_count: PerMethod
    rank: PerMethod
    rank_low: PerMethod
    rank_high: PerMethod


def summarize(
    scores: Float[np.ndarray, "unit part method"],
    weights: Float[np.ndarray, "resample unit"],
    *,
    better: Literal["higher", "lower"],
    level: float,
    min_count: int,
) -> tuple[Summary, Float[np.ndarray, "draw method"]]:
    """Return means and ranks, with intervals for both.

    Args:
        scores: NaN where undefined; an image has one part, a grid one per tile.
        weights: How often each resample drew each unit.
        better: The direction of better scores.
        level: The coverage probability for means, and the share of the resamples inside an interval of ranks.
        min_count: The number of units with a defined score that a method needs to be ranked, as a mean over a few
            images is not ranked. All ranked methods must also share as many.

    Returns:
        The table, where `count` is the number of defined scores of a mean; and the places of the methods, ties at the
        average of their ranks, by the original scores and then in each resample, from which mean ranks and their
        intervals are computed. Ranks are by other means: over the `rank_count` scores that all ranked methods have, so
        that a method that is undefined on hard images has no advantage. If these come from fewer than `min_count`
        units, the methods with the fewest defined scores are not ranked. If no method is ahead of another, as they all
        tie or there is only one, none is ranked, though `rank_count` states the number of scores compared.
    """
    sums, counts = pool(scores)
    means, binary = mean(sums, counts), are_hits(scores)
    low, high = intervals(sums, counts, binary=binary, level=level)
    skewness = moments(sums, counts).skewness
    ranked, shared = _comparable(~np.isnan(scores), (counts > 0).sum(axis=0) >= min_count, min_count)
    number, over = counts.sum(axis=0).astype(np.float64), np.where(ranked, float(shared.sum()), 0.0)
    compared = [means[None], resampled_means(weights, sums, counts)]
    if not shared.all():
        sums, shared_counts = pool(np.where(shared[..., None], scores, np.nan))
        compared = [mean(sums, shared_counts)[None], resampled_means(weights, sums, shared_counts)]
    alike = np.where(ranked, np.concatenate(compared), np.nan)
    if not (rank(alike[0], better=better) > 1).any():
        alike = np.full(alike.shape, np.nan)
    ranks = np.stack([order(alike, better=better) for order in (rank, worst_rank)])
    best, worst = rank_interval(ranks[:, 1:], ranks[:, 0], level=level)
    return Summary(means, low, high, skewness, number, over, ranks[0, 0], best, worst), ranks.mean(axis=0)


def _comparable(
    defined: Bool[np.ndarray, "unit part method"], ranked: Bool[np.ndarray, " method"], min_count: int
) -> tuple[Bool[np.ndarray, " method"], Bool[np.ndarray, "unit part"]]:
    """Return the methods that share enough units, and the scores that all of them have."""
    number = defined.sum(axis=(0, 1))
    while True:
        shared = np.all(defined[..., ranked], axis=-1)
        if not ranked.any() or shared.any(axis=1).sum() >= min_count:
            return ranked, shared
        ranked = ranked & (number > number[ranked].min())
