"""One metric's scores of all methods, on one classifier, in a table: means and ranks with their intervals."""

from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import Bool, Float

from stages.statistics.bootstrap import Kind, mean, mean_interval, pool, rank_interval, resampled_means
from stages.statistics.ranks import rank, worst_rank

PerMethod = Float[np.ndarray, " method"]


class Summary(NamedTuple):
    """A leaderboard: one number a method in each column."""

    mean: PerMethod
    low: PerMethod
    high: PerMethod
    count: PerMethod
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
    fewest: int,
    kind: Kind,
) -> tuple[Summary, Float[np.ndarray, "resample method"]]:
    """Average, rank, and say how far both could have come out otherwise.

    Args:
        scores: NaN where undefined; an image has one part, a grid one a tile.
        weights: How often each resample drew each unit.
        better: Which way is better.
        level: Share of the resamples inside an interval.
        fewest: Units with a defined score that a method needs to be ranked: a mean over a few images ranks nobody.
            Ranked methods need as many on which all of them have one.
        kind: Which interval means have; ranks have the percentile interval.

    Returns:
        The table, where `count` is the number of defined scores a mean is over; and the rank of each method in
        each resample, from which ranks over several metrics get their intervals. Ranks are of other means, over the
        `rank_count` scores that all ranked methods have: one that is undefined on hard images is not ahead for that.
        Where these are of fewer than `fewest` units, the methods with the fewest defined scores are not ranked.
    """
    sums, counts = pool(scores)
    means = mean(sums, counts)
    samples = resampled_means(weights, sums, counts)
    low, high = mean_interval(samples, sums, counts, level=level, kind=kind)
    ranked, shared = _comparable(~np.isnan(scores), (counts > 0).sum(axis=0) >= fewest, fewest)
    compared = [means, samples]
    if not shared.all():
        sums, shared_counts = pool(np.where(shared[..., None], scores, np.nan))
        compared = [mean(sums, shared_counts), resampled_means(weights, sums, shared_counts)]
    alike = [np.where(ranked, values, np.nan) for values in compared]
    ranks, resampled = (np.stack([order(values, better=better) for order in (rank, worst_rank)]) for values in alike)
    best, worst = rank_interval(resampled, ranks, level=level)
    number, over = counts.sum(axis=0).astype(np.float64), np.where(ranked, float(shared.sum()), 0.0)
    return Summary(means, low, high, number, over, ranks[0], best, worst), resampled[0]


def _comparable(
    defined: Bool[np.ndarray, "unit part method"], ranked: Bool[np.ndarray, " method"], fewest: int
) -> tuple[Bool[np.ndarray, " method"], Bool[np.ndarray, "unit part"]]:
    """Give the methods that share enough units, and the scores that all of them have."""
    number = defined.sum(axis=(0, 1))
    while True:
        shared = defined[..., ranked].all(axis=-1)
        if not ranked.any() or shared.any(axis=1).sum() >= fewest:
            return ranked, shared
        ranked = ranked & (number > number[ranked].min())
