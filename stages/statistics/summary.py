"""One metric's scores of all methods, on one classifier, in a table: means and ranks with their intervals."""

from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import Float

from stages.statistics.bootstrap import Kind, mean, mean_interval, pool, rank_interval, resampled_means
from stages.statistics.ranks import rank, worst_rank

PerMethod = Float[np.ndarray, " method"]


class Summary(NamedTuple):
    """A leaderboard: one number a method in each column."""

    mean: PerMethod
    low: PerMethod
    high: PerMethod
    count: PerMethod
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
        kind: Which interval means have; ranks have the percentile interval.

    Returns:
        The table, where `count` is the number of defined scores a mean is over; and the rank of each method in
        each resample, from which ranks over several metrics get their intervals.
    """
    sums, counts = pool(scores)
    means = mean(sums, counts)
    samples = resampled_means(weights, sums, counts)
    low, high = mean_interval(samples, sums, counts, level=level, kind=kind)
    enough = (counts > 0).sum(axis=0) >= fewest
    ranked = [np.where(enough, values, np.nan) for values in (means, samples)]
    ranks, resampled = (np.stack([order(values, better=better) for order in (rank, worst_rank)]) for values in ranked)
    best, worst = rank_interval(resampled, ranks, level=level)
    number = counts.sum(axis=0).astype(np.float64)
    return Summary(means, low, high, number, ranks[0], best, worst), resampled[0]
