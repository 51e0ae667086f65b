"""Whether values differ by more than chance: tests of two groups and of many methods, and how large an effect is."""

import math
from functools import cache
from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import Float, Int
from scipy.special import erfc
from scipy.stats import chi2, mannwhitneyu, rankdata, studentized_range

from stages.statistics.ranks import average_rank

# Differences without ties of which the signed-rank distribution is computed; R's default stops one earlier.
EXACT = 50
# Values in a group from which on the distribution of U is approximated, as by R.
LARGE = 50
# Bits of scores, stored in float32, that differences are trusted to: 0.3 − 0.1 and 0.4 − 0.2 differ in the others.
BITS = 20

Matrix = Float[np.ndarray, "method method"]


class Friedman(NamedTuple):
    """Friedman's test: its statistic, the p-value, the cases it is over and the mean rank of each method in them."""

    statistic: float
    p: float
    cases: int
    mean_rank: Float[np.ndarray, " method"]


class Pairs(NamedTuple):
    """Every two methods compared, that of the row with that of the column."""

    p: Matrix
    adjusted: Matrix
    superiority: Matrix
    count: Int[np.ndarray, "method method"]


def mann_whitney(one: Float[np.ndarray, " first"], other: Float[np.ndarray, " second"]) -> float:
    """Test whether one group's values tend to be larger than another's (Mann–Whitney U, two-sided).

    Args:
        one: One value a (classifier, method), for instance its mean score; NaN values are left out.
        other: The same for the other group.

    Returns:
        The p-value: exact where no values are tied and both groups have fewer than 50, else the normal approximation
        with tie and continuity corrections. NaN where a group is empty.

    Reference: mann1947test; the branches are those by which nourelahi2022explainable prints its p-values.
    """
    one, other = one[~np.isnan(one)], other[~np.isnan(other)]
    if not (one.size and other.size):
        return float("nan")
    both = np.concatenate([one, other])
    tied = np.unique(both).size < both.size
    exact = not tied and max(one.size, other.size) < LARGE
    # Where all values are one value, the approximation divides by a variance of zero.
    if tied and np.ptp(both) == 0:
        return 1.0
    return float(mannwhitneyu(one, other, alternative="two-sided", method="exact" if exact else "asymptotic").pvalue)


def wilcoxon(one: Float[np.ndarray, " unit"], other: Float[np.ndarray, " unit"]) -> float:
    """Test whether paired values tend to differ in one direction (Wilcoxon's signed ranks, two-sided).

        V = Σ over d > 0 of the rank of |d|, where d = one − other, and pairs with d = 0 are dropped

    Args:
        one: One value an image, for instance; pairs with a NaN are left out.
        other: The same for the other method.

    Returns:
        The p-value. Exact where no |d| are tied, none is zero and there are at most 50; else the normal approximation
        with tie and continuity corrections. That one is too large in the tail: without ties at 51 by up to 2 % of p
        where p is above 0.05, 9 % above 0.01, a third above 0.001; at 200 by a quarter of that. 1 where all pairs are
        equal; NaN where there is none.

    Reference: wilcoxon1945individual; the branches are R's.

    Differs from R: exact at 50 too, and all differences are rounded to one unit, about a millionth of the median of the
    pairs' larger values that are not 0, since those of rounded numbers are not tied to the last bit.
    """
    return float(_signed_rank(_differences(one[:, None], other[:, None]))[0])


def superiority(one: Float[np.ndarray, " first"], other: Float[np.ndarray, " second"], *, paired: bool) -> float:
    """Give the probability that a value of one group is the larger one, equal ones counted half.

        P(X > Y) + P(X = Y) / 2

    Args:
        one: Values of X; NaN values are left out.
        other: Values of Y.
        paired: Whether X and Y are of the same image, place by place, and a pair is left out where one is NaN;
            otherwise every value is compared with every other.

    Returns:
        0 to 1; 0.5 where neither tends to be larger. NaN where there is nothing to compare.

    Reference: mcgraw1992common, the common-language effect size; ties by vargha2000critique.
    """
    if paired:
        signs = np.sign(_differences(one[:, None], other[:, None]))
    else:
        one, other = one[~np.isnan(one)], np.sort(other[~np.isnan(other)])
        below, reached = (np.searchsorted(other, one, side=side) for side in ("left", "right"))
        signs = (below + reached - other.size) / max(other.size, 1) if other.size else np.empty(0)
    known = signs[~np.isnan(signs)]
    return float((1 + known.mean()) / 2) if known.size else float("nan")


def pairwise(values: Float[np.ndarray, "unit method"]) -> Pairs:
    """Compare every two methods by Wilcoxon's test, on the units where both are defined.

    Args:
        values: One score a unit: an image, or the mean over the tiles of a grid, which are not independent.

    Returns:
        The p-values, 1 on the diagonal; the same after Holm's adjustment over all pairs; the probability that the
        row's score is the larger one on a unit; and the number of units. NaN where two methods share no unit.
    """
    number = values.shape[1]
    known = ~np.isnan(values)
    p, larger = np.full((2, number, number), np.nan)
    for first in range(number):
        change = _differences(values[:, [first]], values[:, first:])
        p[first, first:] = p[first:, first] = _signed_rank(change)
        signs, shared = np.sign(change), (~np.isnan(change)).sum(axis=0)
        total = np.where(np.isnan(signs), 0, signs).sum(axis=0)
        larger[first, first:] = np.divide(
            1 + total / np.maximum(shared, 1), 2, where=shared > 0, out=larger[first, first:]
        )
        larger[first:, first] = 1 - larger[first, first:]
    upper = np.triu_indices(number, k=1)
    adjusted = p.copy()
    adjusted[upper] = adjusted.T[upper] = holm(p[upper])
    return Pairs(p, adjusted, larger, known.T.astype(np.int64) @ known.astype(np.int64))


def holm(p: Float[np.ndarray, " test"]) -> Float[np.ndarray, " test"]:
    """Adjust p-values so that any false finding among all tests is as rare as the threshold says.

        p̃₍ᵢ₎ = maxⱼ≤ᵢ min(1, (m − j + 1) · p₍ⱼ₎), p₍₁₎ ≤ … ≤ p₍ₘ₎

    Args:
        p: NaN where a test is undefined; it stays so and is not counted in m.

    Reference: holm1979simple.
    """
    return _adjusted(p, lambda number, place: number - place + 1, np.maximum.accumulate)


def benjamini_hochberg(p: Float[np.ndarray, " test"]) -> Float[np.ndarray, " test"]:
    """Adjust p-values so that among findings the share of false ones is, on average, what the threshold says.

        p̃₍ᵢ₎ = minⱼ≥ᵢ min(1, m / j · p₍ⱼ₎), p₍₁₎ ≤ … ≤ p₍ₘ₎

    Args:
        p: NaN where a test is undefined; it stays so and is not counted in m.

    Reference: benjamini1995controlling; it holds for independent tests, and for those that depend positively.
    """
    return _adjusted(p, lambda number, place: number / place, lambda found: np.minimum.accumulate(found[::-1])[::-1])


def friedman(values: Float[np.ndarray, "case method"], *, better: Literal["higher", "lower"]) -> Friedman:
    """Test whether methods differ in their ranks over cases.

        χ² = (12 / (n k (k + 1)) · Σ Rₘ² − 3 n (k + 1)) / (1 − Σ (t³ − t) / (n k (k² − 1)))

    with Rₘ the sum of a method's ranks over n cases, ties at their average, and t the sizes of the ties.

    Args:
        values: One row a case; cases in which a method has no value are left out, and `cases` counts the others.
        better: Which way is better.

    Returns:
        χ² is at least 0; its p-value is that of the χ² distribution with k − 1 degrees of freedom, which is rough
        below ten cases or so. Both are NaN where there are fewer than two methods or no cases, or all are tied.

    Reference: friedman1937use; the correction for ties is that of conover1999practical.
    """
    whole = values[~np.isnan(values).any(axis=1)]
    ranks = average_rank(whole, better=better)
    cases, number = ranks.shape
    mean = ranks.mean(axis=0) if cases else np.full(number, np.nan)
    # The form without a separate correction: the variance of the ranks as they are.
    spread = (ranks**2).sum() - cases * number * (number + 1) ** 2 / 4
    if not spread > 0:
        return Friedman(float("nan"), float("nan"), cases, mean)
    statistic = float((number - 1) * ((ranks.sum(axis=0) - cases * (number + 1) / 2) ** 2).sum() / spread)
    return Friedman(statistic, float(chi2.sf(statistic, number - 1)), cases, mean)


def nemenyi(methods: int, cases: int, *, alpha: float) -> float:
    """Give the critical difference: mean ranks that are further apart differ significantly.

        q / √2 · √(k (k + 1) / (6 n)), q the studentized range of k means and infinitely many degrees of freedom

    Args:
        methods: k, at least 2.
        cases: n, over which the ranks are averaged; at least 1.
        alpha: How often any two of equal methods may be told apart.

    Returns:
        In ranks.

    Reference: nemenyi1963distribution, demsar2006statistical.
    """
    quantile = float(studentized_range.ppf(1 - alpha, methods, np.inf))
    return quantile / math.sqrt(2) * math.sqrt(methods * (methods + 1) / (6 * cases))


def _signed_rank(change: Float[np.ndarray, "unit pair"]) -> Float[np.ndarray, " pair"]:
    """Give the p-values of Wilcoxon's test of some differences, NaN where there is none."""
    whole, kept = (~np.isnan(change)).sum(axis=0), ~np.isnan(change) & (change != 0)
    number = kept.sum(axis=0)
    ranks = np.where(kept, rankdata(np.where(kept, np.abs(change), np.inf), axis=0), 0)
    positive, squares = np.where(change > 0, ranks, 0).sum(axis=0), (ranks**2).sum(axis=0)
    total, untied = number * (number + 1) / 2, number * (number + 1) * (2 * number + 1) / 6
    distance = np.abs(positive - total / 2)
    shifted = np.where(distance > 0, distance - 0.5, 0)
    p = erfc(shifted / np.sqrt(np.maximum(squares, 1) / 2))  # the variance is Σ ranks² / 4, ties and all
    exact = (number == whole) & (number <= EXACT) & (squares == untied)
    for size in np.unique(number[exact & (number > 0)]).tolist():
        here = exact & (number == size)
        tails = _signed_ranks(size).cumsum()
        p[here] = np.minimum(1, 2 * tails[np.minimum(positive, total - positive)[here].astype(int)])
    return np.where(whole > 0, np.where(number > 0, p, 1.0), np.nan)


def _differences(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Subtract, in whole units of the last bit that a value of usual size in each two columns is trusted to.

    The usual size is the median of the pairs' larger values. Of the largest, one image could turn all others to ties.
    """
    change = one - other
    larger = np.where(np.isnan(change), 0, np.fmax(np.abs(one), np.abs(other)))
    known = larger > 0
    ordered, middle = np.sort(np.where(known, larger, np.inf), axis=0), np.maximum(known.sum(axis=0) - 1, 0) // 2
    usual = np.take_along_axis(ordered, middle[None], axis=0)[0] if len(ordered) else middle
    unit = np.frexp(np.where(known.any(axis=0), usual, 0))[1] - BITS
    return np.ldexp(np.round(np.ldexp(change, -unit)), unit)


@cache
def _signed_ranks(number: int) -> np.ndarray:
    """Give the distribution of V: the share of the 2ⁿ choices of signs that give each sum of ranks."""
    chances = np.ones(1)
    for rank in range(1, number + 1):
        chances = (np.pad(chances, (0, rank)) + np.pad(chances, (rank, 0))) / 2
    return chances


def _adjusted(p, factor, run) -> np.ndarray:
    known = np.flatnonzero(~np.isnan(p))
    order = known[np.argsort(p[known], kind="stable")]
    found = np.full(p.shape, np.nan)
    found[order] = np.minimum(1, run(factor(order.size, np.arange(1, order.size + 1)) * p[order]))
    return found
