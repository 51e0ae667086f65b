"""Tests of significance against scipy, statsmodels, what R and Demšar print, and every way to deal values."""

import math
from itertools import combinations

import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st
from statsmodels.stats.multitest import multipletests

from atlas.statistics.comparisons import significance
from atlas.statistics.comparisons.letters import letters

# R's example of wilcox.test: amnion of 10 and 5.
TERM = np.array([0.80, 0.83, 1.89, 1.04, 1.45, 1.38, 1.91, 1.64, 0.73, 1.46])
WEEKS = np.array([1.15, 0.88, 0.90, 0.74, 1.21])

# Mann–Whitney


RULES = ["permutation", "wilcox_test"]


@pytest.mark.parametrize("rule", RULES)
def test_mann_whitney_prints_what_r_prints(rule):
    # R: W = 35, p = 0.1272 one-sided.
    assert round(significance.mann_whitney(TERM, WEEKS, rule=rule) / 2, 4) == 0.1272


@pytest.mark.parametrize("rule", RULES)
def test_mann_whitney_is_exact_without_ties_and_bears_empty_groups(rule):
    # Of the 20 ways to choose 3 of 6, two are as extreme.
    one, other = np.array([1.0, 2, 3]), np.array([4.0, 5, 6, np.nan])
    assert significance.mann_whitney(one, other, rule=rule) == pytest.approx(0.1)
    assert np.isnan(significance.mann_whitney(np.array([np.nan]), np.array([1.0]), rule=rule))
    assert significance.mann_whitney(np.ones(3), np.ones(4), rule=rule) == 1


@pytest.mark.parametrize(
    ("sizes", "method"), [((49, 49), "exact"), ((50, 49), "asymptotic"), ((5, 50), "asymptotic"), ((5, 49), "exact")]
)
def test_mann_whitney_by_rs_rule_is_exact_where_both_groups_are_below_fifty(sizes, method):
    rng = np.random.default_rng(0)
    one, other = rng.normal(0.3, size=sizes[0]), rng.normal(size=sizes[1])
    p = {how: scipy.stats.mannwhitneyu(one, other, method=how).pvalue for how in ("exact", "asymptotic")}
    assert abs(p["exact"] / p["asymptotic"] - 1) > 1e-4
    assert significance.mann_whitney(one, other, rule="wilcox_test") == pytest.approx(p[method])
    assert significance.mann_whitney(one, other, rule="permutation") == pytest.approx(p["exact"])


def test_mann_whitney_with_ties_is_exact_over_every_way_to_deal_the_values():
    rng = np.random.default_rng(0)
    for _ in range(60):
        first, second = rng.integers(1, 8, size=2)
        one, other = rng.integers(4, size=first) + rng.integers(2), rng.integers(4, size=second)
        both = scipy.stats.rankdata(np.concatenate([one, other]))
        dealt = np.array([both[list(chosen)].sum() for chosen in combinations(range(len(both)), first)])
        found = both[:first].sum()
        expected = min(1, 2 * min((dealt <= found + 1e-9).mean(), (dealt >= found - 1e-9).mean()))
        p = significance.mann_whitney(one.astype(float), other.astype(float), rule="permutation")
        assert p == pytest.approx(expected)


def test_mann_whitney_with_ties_is_what_scipy_finds_by_permutation():
    one, other = np.array([1.0, 2, 2, 3, 4]), np.array([2.0, 3, 3, 5, 5, 6])
    expected = scipy.stats.mannwhitneyu(one, other, method=scipy.stats.PermutationMethod()).pvalue
    assert significance.mann_whitney(one, other, rule="permutation") == pytest.approx(expected)
    assert significance.mann_whitney(other, one, rule="permutation") == pytest.approx(expected)
    assert significance.mann_whitney(one, other, rule="wilcox_test") != pytest.approx(expected, rel=0.02)


def test_mann_whitney_far_in_the_tail_is_not_that_of_the_approximation():
    one, other = np.repeat([1.0, 2], 8), np.repeat([3.0, 4], 8)
    exact = 2 / math.comb(32, 16)
    assert significance.mann_whitney(one, other, rule="permutation") == pytest.approx(exact)
    assert significance.mann_whitney(one, other, rule="wilcox_test") > 100 * exact


def test_mann_whitney_of_groups_too_large_to_count_is_approximated():
    rng = np.random.default_rng(0)
    one, other = rng.integers(9, size=(2, 150)).astype(float)
    p = [significance.mann_whitney(one, other, rule=rule) for rule in RULES]
    assert p[0] == p[1]
    few = rng.integers(9, size=5) + 3.0
    p = [significance.mann_whitney(few, other, rule=rule) for rule in RULES]
    assert p[0] != p[1] == pytest.approx(p[0], rel=0.3)


# Effects


def test_superiority_counts_pairs():
    nan = np.nan
    one, other = np.array([1.0, 2, 3, nan]), np.array([2.0, 2, nan, 0])
    # Of 3 · 3 comparisons: 1 > 0, 2 = 2 twice, 2 > 0, 3 above all three.
    assert significance.superiority(one, other) == pytest.approx(6 / 9)
    assert np.isnan(significance.superiority(one, np.full(4, nan)))


def test_superiority_is_mann_whitneys_u():
    one, other = np.random.default_rng(0).integers(9, size=(2, 30)).astype(float)
    expected = scipy.stats.mannwhitneyu(one, other).statistic / 900
    assert significance.superiority(one, other) == pytest.approx(expected)


# Many tests


def test_the_adjustment_equals_statsmodels_and_leaves_out_nan():
    rng = np.random.default_rng(0)
    p = np.round(rng.random(40) ** 3, 2)
    p[[3, 17]] = np.nan
    known = ~np.isnan(p)
    found = significance.holm(p)
    np.testing.assert_allclose(found[known], multipletests(p[known], method="holm")[1])
    assert np.isnan(found[~known]).all()
    assert np.isnan(significance.holm(np.full(2, np.nan))).all()
    assert significance.holm(np.empty(0)).size == 0


# Friedman and Nemenyi


def test_friedman_equals_scipy_with_ties():
    values = np.random.default_rng(0).integers(5, size=(12, 6)).astype(float)
    for better in ("higher", "lower"):
        found = significance.friedman(values, better=better)
        statistic, p = scipy.stats.friedmanchisquare(*values.T)
        assert (found.statistic, found.p, found.cases) == (pytest.approx(statistic), pytest.approx(p), 12)
    ranks = scipy.stats.rankdata(values, axis=1).mean(axis=0)
    np.testing.assert_allclose(found.mean_rank, ranks)


def test_friedman_is_over_whole_cases_and_bears_none():
    nan = np.nan
    values = np.array([[3.0, 2, 1], [9, 8, 7], [1, nan, 2], [6, 5, 4]])
    found = significance.friedman(values, better="higher")
    # Ranks 1 2 3 in three cases: 12 / 36 · (9 + 36 + 81) − 36 = 6.
    assert (found.statistic, found.cases) == (pytest.approx(6), 3)
    np.testing.assert_array_equal(found.mean_rank, [1, 2, 3])
    for nothing in (values[2:3], np.ones((4, 3)), np.arange(4.0)[:, None]):
        assert np.isnan(significance.friedman(nothing, better="lower").p)
    assert significance.friedman(values[2:3], better="lower").cases == 0


@pytest.mark.parametrize(
    ("alpha", "printed"),
    [
        (0.05, [1.960, 2.343, 2.569, 2.728, 2.850, 2.949, 3.031, 3.102, 3.164]),
        (0.10, [1.645, 2.052, 2.291, 2.459, 2.589, 2.693, 2.780, 2.855, 2.920]),
    ],
)
def test_critical_differences_of_demsar(alpha, printed):
    # With n = k (k + 1) / 6 the root is 1, and the difference the value that Demšar tabulates.
    for methods, value in enumerate(printed, start=2):
        scale = np.sqrt(methods * (methods + 1) / (6 * 10))
        assert significance.nemenyi(methods, 10, alpha=alpha) / scale == pytest.approx(value, abs=1e-3)


def test_the_critical_difference_of_two_is_the_sign_of_a_normal():
    # Two means: the studentized range over √2 is the absolute value of a normal variable.
    for alpha in (0.01, 0.05, 0.2):
        expected = scipy.stats.norm.ppf(1 - alpha / 2) * np.sqrt(1 / 15)
        assert significance.nemenyi(2, 15, alpha=alpha) == pytest.approx(expected)


def test_the_critical_difference_of_sixty_methods_is_that_of_simulated_ranges():
    ranges = np.ptp(np.random.default_rng(0).normal(size=(20_000, 60)), axis=1)
    quantile = np.quantile(ranges, 0.95)
    expected = quantile / np.sqrt(2) * np.sqrt(60 * 61 / (6 * 8))
    assert significance.nemenyi(60, 8, alpha=0.05) == pytest.approx(expected, rel=0.01)


# Letters


def matrix(number: int, apart: set[tuple[int, int]]) -> np.ndarray:
    p = np.full((number, number), 0.6)
    for one, other in apart:
        p[one, other] = p[other, one] = 0.01
    return p


def test_letters_of_the_middle_that_differs_from_neither_end():
    assert letters(matrix(3, {(0, 2)}), alpha=0.05) == ["a", "ab", "b"]


def test_letters_of_all_alike_and_of_all_apart():
    assert letters(matrix(3, set()), alpha=0.05) == ["a", "a", "a"]
    assert letters(matrix(3, {(0, 1), (0, 2), (1, 2)}), alpha=0.05) == ["a", "b", "c"]


def test_letters_are_few_where_neighbors_in_rank_are_alike():
    # Methods up to two ranks apart do not differ.
    apart = {(one, other) for one in range(6) for other in range(one + 3, 6)}
    assert letters(matrix(6, apart), alpha=0.05) == ["a", "ab", "abc", "bcd", "cd", "d"]


def test_letters_of_what_was_compared_with_none_and_of_one_pair_less():
    p = matrix(4, {(0, 1)})
    p[3], p[:, 3] = np.nan, np.nan
    p[0, 2] = p[2, 0] = np.nan
    assert letters(p, alpha=0.05) == ["a", "b", "ab", ""]
    assert letters(np.full((1, 1), np.nan), alpha=0.05) == [""]


def test_a_p_value_at_the_threshold_is_significant():
    p = np.array([[1, 0.05], [0.05, 1]])
    assert letters(p, alpha=0.05) == ["a", "b"]
    assert letters(p, alpha=0.049) == ["a", "a"]


def test_letters_beyond_the_alphabet():
    number = 30
    everything = {(one, other) for one in range(number) for other in range(one)}
    assert letters(matrix(number, everything), alpha=0.05)[25:28] == ["z", "a1", "b1"]


def spelled(label: str) -> set[str]:
    starts = [place for place, sign in enumerate(label) if sign.isalpha()]
    return {label[start:end] for start, end in zip(starts, [*starts[1:], len(label)], strict=True)}


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_methods_share_a_letter_exactly_where_they_do_not_differ(data):
    number = data.draw(st.integers(2, 12))
    pairs = [(one, other) for one in range(number) for other in range(one)]
    apart = data.draw(st.sets(st.sampled_from(pairs)))
    found = [spelled(label) for label in letters(matrix(number, apart), alpha=0.05)]
    for one, other in pairs:
        assert bool(found[one] & found[other]) == ((one, other) not in apart)
    assert all(found)
    # No letter can be spared: without it, some two methods that are alike would share none, or one would have none.
    for letter in set().union(*found):
        left = [label - {letter} for label in found]
        assert not all(left) or any(not left[one] & left[other] for one, other in pairs if (one, other) not in apart)
    assert "a" in found[0]
