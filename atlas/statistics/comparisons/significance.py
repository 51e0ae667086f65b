"""Tests of whether values differ by more than chance, of two groups and of many methods, and an effect size."""

import math
from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import Float
from scipy.stats import chi2, mannwhitneyu, rankdata, studentized_range

from atlas.statistics.rankings.ranks import average_rank

Rule = Literal["permutation", "wilcox_test"]
# Group size from which R approximates the distribution of U.
LARGE = 50
# Limit on the additions for the exact distribution of U, which grow with the fourth power of the group size.
STEPS = 10**8


class Friedman(NamedTuple):
    """Friedman's test: statistic, p-value, number of cases, and the mean rank of each method over the cases."""

    statistic: float
    p: float
    cases: int
    mean_rank: Float[np.ndarray, " method"]


def mann_whitney(
    one: Float[np.ndarray, " first"],
    other: Float[np.ndarray, " second"],
    *,
    rule: Rule,
) -> float:
    """Test whether one group's values tend to be larger than another's (Mann–Whitney U, two-sided).

        p = min(1, 2 · min(P(U ≤ u), P(U ≥ u)))

    Args:
        one: One value per (classifier, method), for instance its mean score; NaN values are left out.
        other: The same for the other group.
        rule: How p is computed. permutation: exactly, over all ways to split the values, tied or not, into two groups
            of these sizes, if that takes no more than about 10⁸ steps (two groups of 58); otherwise by the normal
            approximation with tie and continuity corrections. wilcox_test, R's rule: exactly if no values are tied and
            both groups have fewer than 50, otherwise by that approximation.

    Returns:
        The p-value. NaN if a group is empty; 1 if all values are equal.

    Reference: mann1947test; nourelahi2022explainable prints p-values by R's rule. With ties the approximation can be
    off by a tenth at 0.05, and many times too large in the tail.
    """
    one, other = one[~np.isnan(one)], other[~np.isnan(other)]
    if not (one.size and other.size):
        return float("nan")
    both = np.concatenate([one, other])
    tied = np.unique(both).size < both.size
    # If all values are equal, the approximation divides by a variance of zero.
    if tied and np.ptp(both) == 0:
        return 1.0
    few, number = min(one.size, other.size), both.size
    possible = few * number * (2 * few * number) <= STEPS
    if rule == "permutation" and tied and possible:
        return _permutation_p_value(rankdata(both), one.size)
    exact = possible if rule == "permutation" else not tied and max(one.size, other.size) < LARGE
    return float(mannwhitneyu(one, other, alternative="two-sided", method="exact" if exact else "asymptotic").pvalue)


def superiority(one: Float[np.ndarray, " first"], other: Float[np.ndarray, " second"]) -> float:
    """Return the probability that a value of one group is larger than one of the other, ties counted half.

        P(X > Y) + P(X = Y) / 2

    Args:
        one: Values of X; NaN values are left out.
        other: Values of Y.

    Returns:
        0 to 1; 0.5 if neither tends to be larger. NaN if a group has no value.

    Reference: mcgraw1992common, the common-language effect size; ties by vargha2000critique.
    """
    one, other = one[~np.isnan(one)], np.sort(other[~np.isnan(other)])
    if not (one.size and other.size):
        return float("nan")
    below, reached = (np.searchsorted(other, one, side=side) for side in ("left", "right"))
    return float((1 + ((below + reached - other.size) / other.size).mean()) / 2)


def holm(p: Float[np.ndarray, " test"]) -> Float[np.ndarray, " test"]:
    """Adjust p-values so that the threshold bounds the probability of any false finding among all tests.

        p̃₍ᵢ₎ = maxⱼ≤ᵢ min(1, (m − j + 1) · p₍ⱼ₎), p₍₁₎ ≤ … ≤ p₍ₘ₎

    Args:
        p: p-values; NaN where a test is undefined, which stays NaN and is not counted in m.

    Reference: holm1979simple.
    """
    known = np.flatnonzero(~np.isnan(p))
    order = known[np.argsort(p[known], kind="stable")]
    found = np.full(p.shape, np.nan)
    found[order] = np.minimum(1, np.maximum.accumulate(np.arange(order.size, 0, -1) * p[order]))
    return found


def friedman(values: Float[np.ndarray, "case method"], *, better: Literal["higher", "lower"]) -> Friedman:
    """Test whether methods differ in their ranks over cases.

        χ² = (12 / (n k (k + 1)) · Σ Rₘ² − 3 n (k + 1)) / (1 − Σ (t³ − t) / (n k (k² − 1)))

    with Rₘ the sum of a method's ranks over n cases, ties at their average, and t the sizes of the ties.

    Args:
        values: One row per case; cases in which a method has no value are left out, and `cases` counts the others.
        better: The direction of better values.

    Returns:
        χ² is at least 0; its p-value is from the χ² distribution with k − 1 degrees of freedom, a rough approximation
        below about ten cases. Both are NaN if there are fewer than two methods or no cases, or all are tied.

    Reference: friedman1937use; the correction for ties is that of conover1999practical.
    """
    whole = values[~np.isnan(values).any(axis=1)]
    ranks = average_rank(whole, better=better)
    cases, number = ranks.shape
    mean = ranks.mean(axis=0) if cases else np.full(number, np.nan)
    # Equivalent to the formula with a tie correction: it uses the variance of the ranks as they are.
    spread = (ranks**2).sum() - cases * number * (number + 1) ** 2 / 4
    if not spread > 0:
        return Friedman(float("nan"), float("nan"), cases, mean)
    statistic = float((number - 1) * ((ranks.sum(axis=0) - cases * (number + 1) / 2) ** 2).sum() / spread)
    return Friedman(statistic, float(chi2.sf(statistic, number - 1)), cases, mean)


def nemenyi(methods: int, cases: int, *, alpha: float) -> float:
    """Return the critical difference: mean ranks that are further apart differ significantly.

        q / √2 · √(k (k + 1) / (6 n)), q the studentized range of k means and infinitely many degrees of freedom

    Args:
        methods: k, at least 2.
        cases: n, over which the ranks are averaged; at least 1.
        alpha: The probability that some of equal methods are distinguished.

    Returns:
        In ranks.

    Reference: nemenyi1963distribution, demsar2006statistical.
    """
    quantile = float(studentized_range.ppf(1 - alpha, methods, np.inf))
    return quantile / math.sqrt(2) * math.sqrt(methods * (methods + 1) / (6 * cases))


def _permutation_p_value(ranks: Float[np.ndarray, " value"], size: int) -> float:
    """Return the two-sided p-value of the sum of the first `size` ranks, over all choices of as many."""
    whole = (2 * ranks).astype(np.int64)  # tied ranks are half-integers
    whole -= whole.min()
    whole //= np.gcd.reduce(whole)
    one = whole[:size] if 2 * size <= whole.size else whole[size:]  # the smaller group
    most = int(np.sort(whole)[-one.size :].sum())
    subsets = np.zeros((one.size + 1, most + 1))  # their number, by size and sum
    subsets[0, 0] = 1
    for rank in whole.tolist():
        subsets[1:, rank:] += subsets[:-1, : most + 1 - rank].copy()
    chances, at = subsets[-1] / subsets[-1].sum(), int(one.sum())
    return float(min(1, 2 * min(chances[: at + 1].sum(), chances[at:].sum())))
