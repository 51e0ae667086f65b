"""Tests of significance against scipy, statsmodels, what R and Demšar print, and every choice of signs."""

from itertools import product

import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st
from statsmodels.stats.multitest import multipletests

from stages.statistics import significance
from stages.statistics.letters import letters

# R's examples of wilcox.test: amnion of 10 and 5, and a depression scale of nine patients before and after.
TERM = np.array([0.80, 0.83, 1.89, 1.04, 1.45, 1.38, 1.91, 1.64, 0.73, 1.46])
WEEKS = np.array([1.15, 0.88, 0.90, 0.74, 1.21])
BEFORE = np.array([1.83, 0.50, 1.62, 2.48, 1.68, 1.88, 1.55, 3.06, 1.30])
AFTER = np.array([0.878, 0.647, 0.598, 2.05, 1.06, 1.29, 1.06, 3.14, 1.29])

# Mann–Whitney


def test_mann_whitney_prints_what_r_prints():
    # R: W = 35, p = 0.1272 one-sided.
    assert round(significance.mann_whitney(TERM, WEEKS) / 2, 4) == 0.1272


def test_mann_whitney_is_exact_without_ties_and_bears_empty_groups():
    # Of the 20 ways to choose 3 of 6, two are as extreme.
    assert significance.mann_whitney(np.array([1.0, 2, 3]), np.array([4.0, 5, 6, np.nan])) == pytest.approx(0.1)
    assert np.isnan(significance.mann_whitney(np.array([np.nan]), np.array([1.0])))
    assert significance.mann_whitney(np.ones(3), np.ones(4)) == 1


@pytest.mark.parametrize(
    ("sizes", "method"), [((49, 49), "exact"), ((50, 49), "asymptotic"), ((5, 50), "asymptotic"), ((5, 49), "exact")]
)
def test_mann_whitney_is_exact_where_both_groups_are_below_fifty(sizes, method):
    rng = np.random.default_rng(0)
    one, other = rng.normal(0.3, size=sizes[0]), rng.normal(size=sizes[1])
    p = {how: scipy.stats.mannwhitneyu(one, other, method=how).pvalue for how in ("exact", "asymptotic")}
    assert abs(p["exact"] / p["asymptotic"] - 1) > 1e-4
    assert significance.mann_whitney(one, other) == pytest.approx(p[method])


# Wilcoxon


def test_wilcoxon_prints_what_r_prints():
    # R: V = 40, p = 0.01953 one-sided.
    assert round(significance.wilcoxon(BEFORE, AFTER) / 2, 5) == 0.01953


def test_wilcoxon_is_exact_over_every_choice_of_signs():
    change = np.array([0.3, -1.1, 2.2, 0.7, -0.2, 5])
    ranks = np.argsort(np.argsort(np.abs(change))) + 1
    sums = np.array([ranks[list(signs)].sum() for signs in (np.array(c, bool) for c in product((0, 1), repeat=6))])
    found = ranks[change > 0].sum()
    expected = min(1, 2 * min((sums <= found).mean(), (sums >= found).mean()))
    assert significance.wilcoxon(change, np.zeros(6)) == pytest.approx(expected)


@pytest.mark.parametrize("number", [1, 2, 5, 49, 50, 51, 400])
def test_wilcoxon_equals_scipy_without_ties(number):
    rng = np.random.default_rng(number)
    one, other = rng.normal(0.2, size=number), rng.normal(size=number)
    method = "exact" if number <= 50 else "asymptotic"
    expected = scipy.stats.wilcoxon(one, other, correction=True, method=method).pvalue
    assert significance.wilcoxon(one, other) == pytest.approx(expected)


@pytest.mark.parametrize("number", [3, 10, 60])
def test_wilcoxon_equals_scipy_with_ties_and_zeros(number):
    for seed in range(20):
        one, other = np.random.default_rng(seed).integers(4, size=(2, number)).astype(float)
        if (one == other).all():
            continue
        expected = scipy.stats.wilcoxon(one, other, correction=True, method="asymptotic").pvalue
        assert significance.wilcoxon(one, other) == pytest.approx(expected)


def test_wilcoxon_beyond_the_exact_is_a_little_too_large_in_the_tail():
    change = np.arange(1, 52.0)
    worst = {0.05: 0.02, 0.01: 0.09, 0.001: 1 / 3}
    for negative in range(51):
        signs = np.where(np.arange(51) < negative, -1, 1)
        exact = scipy.stats.wilcoxon(change * signs, method="exact").pvalue
        found = significance.wilcoxon(change * signs, np.zeros(51))
        for least, error in worst.items():
            assert exact < least or -0.02 < found / exact - 1 < error


def test_wilcoxon_sees_ties_of_rounded_numbers():
    one, other = np.array([0.3, 0.4, 0.9, 0.8]), np.array([0.1, 0.2, 0.4, 0.8])
    assert one[0] - other[0] != one[1] - other[1]
    expected = scipy.stats.wilcoxon([2, 2, 5, 0], correction=True, method="asymptotic").pvalue
    assert significance.wilcoxon(one, other) == pytest.approx(expected)
    assert significance.wilcoxon(np.array([0.1 + 0.2]), np.array([0.3])) == 1


def test_wilcoxon_sees_ties_of_values_of_unlike_sizes():
    pair = np.array([[0.9, 0.4, 0.95, 0.35], [0.8, 0.3, 0.85, 0.25]], np.float32).astype(float)
    assert len(set(pair[0] - pair[1])) > 1
    expected = scipy.stats.wilcoxon([1, 1, 1, 1], correction=True, method="asymptotic").pvalue
    assert expected == pytest.approx(0.0719, abs=5e-5)
    assert significance.wilcoxon(*pair) == pytest.approx(expected)
    # A third column of other sizes leaves the unit of the first two alone.
    found = significance.pairwise(np.column_stack([*pair, pair[0] * 1e9]))
    assert found.p[0, 1] == found.p[1, 0] == pytest.approx(expected)
    # A value without a partner does not count.
    longer = np.append(pair[0], 1e9), np.append(pair[1], np.nan)
    assert significance.wilcoxon(*longer) == pytest.approx(expected)


@pytest.mark.parametrize("largest", [1e5, 1e7, 1e12])
def test_one_large_score_turns_no_other_to_a_tie(largest):
    one = np.random.default_rng(0).lognormal(size=64)
    other = one * 1.5
    one[0], other[0] = largest, 1.5 * largest
    assert significance.wilcoxon(one, other) == pytest.approx(scipy.stats.wilcoxon(one, other).pvalue, rel=0.3)
    assert significance.superiority(one, other, paired=True) == 0
    sparse = np.where(np.arange(64) < 40, 0, one * 1e-9), np.where(np.arange(64) < 40, 0, other * 1e-9)
    assert significance.superiority(*sparse, paired=True) == pytest.approx((40 / 2) / 64)
    assert np.isnan(significance.wilcoxon(np.empty(0), np.empty(0)))


def test_wilcoxon_leaves_out_undefined_pairs():
    nan = np.nan
    padded = np.append(BEFORE, [nan, 3]), np.append(AFTER, [1, nan])
    assert significance.wilcoxon(*padded) == significance.wilcoxon(BEFORE, AFTER)
    assert np.isnan(significance.wilcoxon(np.array([nan, 1]), np.array([2, nan])))
    assert significance.wilcoxon(BEFORE, BEFORE) == 1


# Effects


def test_superiority_counts_pairs():
    nan = np.nan
    one, other = np.array([1.0, 2, 3, nan]), np.array([2.0, 2, nan, 0])
    # Of 3 · 3 comparisons: 1 > 0, 2 = 2 twice, 2 > 0, 3 above all three; pair by pair one loss and one tie.
    assert significance.superiority(one, other, paired=False) == pytest.approx(6 / 9)
    assert significance.superiority(one, other, paired=True) == 1 / 4
    for paired in (True, False):
        assert np.isnan(significance.superiority(one, np.full(4, nan), paired=paired))
    assert significance.superiority(np.array([0.1 + 0.2]), np.array([0.3]), paired=True) == 0.5


def test_superiority_is_mann_whitneys_u():
    one, other = np.random.default_rng(0).integers(9, size=(2, 30)).astype(float)
    expected = scipy.stats.mannwhitneyu(one, other).statistic / 900
    assert significance.superiority(one, other, paired=False) == pytest.approx(expected)


def test_pairs_are_compared_on_their_own_images_and_adjusted_together():
    rng = np.random.default_rng(0)
    values = rng.normal([1, 0.5, 0, 0], size=(30, 4))
    values[:5, 1], values[:, 3] = np.nan, np.nan
    found = significance.pairwise(values)
    tests = [(0, 1), (0, 2), (1, 2)]
    p = [significance.wilcoxon(values[:, one], values[:, other]) for one, other in tests]
    for (one, other), plain, adjusted in zip(tests, p, multipletests(p, method="holm")[1], strict=True):
        assert found.p[one, other] == found.p[other, one] == plain
        assert found.adjusted[one, other] == found.adjusted[other, one] == pytest.approx(adjusted)
        larger = (values[:, one] > values[:, other])[~np.isnan(values[:, one] + values[:, other])].mean()
        assert found.superiority[one, other] == pytest.approx(larger)
        assert found.superiority[other, one] == pytest.approx(1 - larger)
    np.testing.assert_array_equal(np.diag(found.adjusted), [1, 1, 1, np.nan])
    np.testing.assert_array_equal(found.count, [[30, 25, 30, 0], [25, 25, 25, 0], [30, 25, 30, 0], [0, 0, 0, 0]])
    assert np.isnan([found.p[3], found.adjusted[3], found.superiority[3]]).all()


# Many tests


@pytest.mark.parametrize(
    ("function", "method"), [(significance.holm, "holm"), (significance.benjamini_hochberg, "fdr_bh")]
)
def test_adjustments_equal_statsmodels_and_leave_out_nan(function, method):
    rng = np.random.default_rng(0)
    p = np.round(rng.random(40) ** 3, 2)
    p[[3, 17]] = np.nan
    known = ~np.isnan(p)
    found = function(p)
    np.testing.assert_allclose(found[known], multipletests(p[known], method=method)[1])
    assert np.isnan(found[~known]).all()
    assert np.isnan(function(np.full(2, np.nan))).all()
    assert function(np.empty(0)).size == 0


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
