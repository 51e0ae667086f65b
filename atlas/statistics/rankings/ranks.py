"""Ranks, with 1 for the best."""

from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import Bool, Float

Direction = Literal["higher", "lower"]

# Relative. Means of equal scores may differ in the last bit, depending on the order of summation.
TIE = 1e-12


class Averages(NamedTuple):
    """A table of printed numbers: mean and standard deviation of each method's cells, and the number of cells."""

    mean: Float[np.ndarray, " method"]
    sd: Float[np.ndarray, " method"]
    count: Float[np.ndarray, " method"]  # type: ignore[assignment]  # hides the count of tuples


class Quartiles(NamedTuple):
    """Groups of values ranked by their medians."""

    median: Float[np.ndarray, " group"]
    low: Float[np.ndarray, " group"]
    high: Float[np.ndarray, " group"]
    count: Float[np.ndarray, " group"]  # type: ignore[assignment]  # hides the count of tuples
    rank: Float[np.ndarray, " group"]


def rank(values: Float[np.ndarray, "*case method"], *, better: Direction) -> Float[np.ndarray, "*case method"]:
    """Rank methods within each case: one more than the number that are better.

    Args:
        values: For instance mean scores.
        better: The direction of better values.

    Returns:
        1 for the best; equal values share the best of their ranks ("1224"). NaN where the value is NaN: an undefined
        value has no rank and does not affect the others.
    """
    signed = values if better == "higher" else -values
    ahead = larger(signed[..., None, :], signed[..., :, None]).sum(axis=-1)
    return np.where(np.isnan(values), np.nan, 1.0 + ahead)


def larger(one: Float[np.ndarray, "..."], other: Float[np.ndarray, "..."]) -> Bool[np.ndarray, "..."]:
    """Return where one value is larger than the other and not tied with it; false where one is NaN."""
    return one > other + TIE * np.abs(other)


def mean_rank(
    ranks: Float[np.ndarray, "*case metric method"],
) -> tuple[Float[np.ndarray, "*case method"], Float[np.ndarray, "*case method"]]:
    """Average ranks over metrics.

    Returns:
        The mean over the metrics that ranked a method, NaN if none did; and how many did. Means over different metrics
        are not comparable, so check the number.
    """
    ranked = ~np.isnan(ranks)
    number = ranked.sum(axis=-2).astype(np.float64)
    total = np.where(ranked, ranks, 0).sum(axis=-2)
    return _divided(total, number), number


def average_rank(values: Float[np.ndarray, "*case method"], *, better: Direction) -> Float[np.ndarray, "*case method"]:
    """Rank methods within each case, equal values at the average of their ranks ("1 2.5 2.5 4").

    Args:
        values: For instance mean scores.
        better: The direction of better values.

    Returns:
        1 for the best; NaN where the value is NaN.
    """
    return (rank(values, better=better) + worst_rank(values, better=better)) / 2


def worst_rank(values: Float[np.ndarray, "*case method"], *, better: Direction) -> Float[np.ndarray, "*case method"]:
    """Rank methods within each case, equal values at the worst of their ranks ("1334"); otherwise as `rank`."""
    number = (~np.isnan(values)).sum(axis=-1, keepdims=True)
    return number + 1.0 - rank(values, better="lower" if better == "higher" else "higher")


def average(cells: Float[np.ndarray, "case method"]) -> Averages:
    """Average each method's cells over cases, such as classifiers.

    Returns:
        The mean over the cells that are not NaN; their standard deviation with ddof 1, NaN if there are fewer than two;
        and their number.

    Reference: nourelahi2022explainable, whose tables of methods and of classifiers are reproduced this way.
    """
    known = ~np.isnan(cells)
    number = known.sum(axis=0).astype(np.float64)
    mean = _divided(np.where(known, cells, 0).sum(axis=0), number)
    squares = (np.where(known, cells - mean, 0) ** 2).sum(axis=0)
    return Averages(mean, np.sqrt(_divided(squares, number - 1)), number)


def rank_medians(values: Float[np.ndarray, "group value"], *, better: Direction) -> Quartiles:
    """Rank groups by the median of their values, such as architectures by all cells of their classifiers.

    Args:
        values: NaN where a group has no value.
        better: The direction of better values.

    Returns:
        Median, first and third quartile, by linear interpolation between the values that are not NaN; their number; and
        the rank of the median. NaN if there are none.

    Reference: nourelahi2022explainable.
    """
    number = (~np.isnan(values)).sum(axis=1).astype(np.float64)
    ends = np.full((3, len(values)), np.nan)
    some = number > 0
    ends[:, some] = np.nanquantile(values[some], [0.5, 0.25, 0.75], axis=1)
    return Quartiles(ends[0], ends[1], ends[2], number, rank(ends[0], better=better))


def _divided(total: np.ndarray, number: np.ndarray) -> np.ndarray:
    return np.divide(total, number, out=np.full(total.shape, np.nan), where=number > 0)
