"""Certify pixels from votes: the published table, SciPy and statsmodels as oracles, loops, and what must hold."""

from unittest import mock

import numpy as np
import pytest
import scipy.stats
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from statsmodels.stats.multitest import multipletests

from atlas.inputs.certification import ABSTAINED, IMPORTANT, UNIMPORTANT, Votes, cutoff, labels, needed, tails
from atlas.metrics import certified
from atlas.study.schema.smoothing import radius

random = settings(deadline=None, max_examples=50, derandomize=True)
CORRECTIONS = ("bonferroni", "holm", "none")
SINGLE, GRID = 224**2, 448**2


def cast(counts0, counts, *, n0=10, n=90):
    """Return votes of a level each, of whatever shape ends in (y, x)."""
    counts0, counts = (np.asarray(one, np.uint8) for one in (counts0, counts))
    shape = (1,) * (4 - counts0.ndim) + counts0.shape
    tied = np.zeros(shape[:2], np.uint16)
    return Votes(counts0.reshape(shape), counts.reshape(shape), tied, n0, n, 0.15, [50] * shape[1], "strict")


def counts_of(votes):
    """Return each pixel's tested label and how many of the rest voted for it."""
    important = votes.counts0 / votes.n0 > 0.5
    return important, np.where(important, votes.counts.astype(int), votes.n - votes.counts.astype(int))


@st.composite
def cases(draw):
    """Draw votes whose counts crowd around the count at which certification begins, and a test."""
    draws, n0 = draw(st.integers(5, 90)), draw(st.integers(1, 11))
    tau, alpha = draw(st.sampled_from([0.5, 0.55, 0.6, 0.75, 0.8])), draw(st.sampled_from([0.001, 0.05, 0.2, 0.6]))
    shape = (draw(st.integers(1, 3)), draw(st.integers(1, 2)), draw(st.integers(1, 9)), draw(st.integers(1, 9)))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    edge = min(cutoff(draws, tau, alpha / (shape[2] * shape[3])), draws)
    count = np.clip(edge - 2 + rng.integers(draw(st.integers(1, 6)), size=shape), 0, draws)
    surer = rng.random(shape) < draw(st.sampled_from([0, 0.3, 0.8, 0.97]))
    count = np.where(surer, draws, count)
    first = rng.integers(n0 + 1, size=shape)
    rest = np.where(first / n0 > 0.5, count, draws - count)
    return cast(first, rest, n0=n0, n=draws), tau, alpha


def naive(votes, tau, alpha, correction):
    """Restate the test pixel by pixel, from the surest on, with p-values by SciPy."""
    important, count = counts_of(votes)
    found = np.full(votes.counts0.shape, ABSTAINED)
    values_of = scipy.stats.binom.sf(count - 1, votes.n, tau)
    for image, level in np.ndindex(votes.counts0.shape[:2]):
        values = [(values_of[image, level][place], place) for place in np.ndindex(votes.counts0.shape[2:])]
        open_ = len(values)
        for value, place in sorted(values):
            bound = {"bonferroni": alpha / len(values), "holm": alpha / open_, "none": alpha}[correction]
            if value > bound:
                break
            found[image, level][place] = IMPORTANT if important[image, level][place] else UNIMPORTANT
            open_ -= 1
    return found


class TestThePublishedTable:
    @pytest.mark.parametrize(
        ("pixels", "draws", "least"), [(SINGLE, 90, 88), (GRID, 90, 88), (SINGLE, 100, 96), (1, 90, 80), (1, 100, 89)]
    )
    def test_the_smallest_certifying_count(self, pixels, draws, least):
        assert cutoff(draws, 0.75, 0.001 / pixels) == least

    @pytest.mark.parametrize(
        ("tau", "least"), [(0.55, 75), (0.6, 79), (0.65, 82), (0.7, 85), (0.75, 88), (0.8, 90), (0.85, 91)]
    )
    def test_by_share(self, tau, least):
        assert cutoff(90, tau, 0.001 / SINGLE) == least

    @pytest.mark.parametrize(
        ("correction", "draws", "tau", "expected"),
        [
            ("bonferroni", 90, 0.75, (88, 88)),
            ("holm", 90, 0.75, (88, 80)),
            ("none", 90, 0.75, (80, 80)),
            ("bonferroni", 90, 0.85, (91, 91)),
            ("holm", 61, 0.75, (62, 56)),
        ],
    )
    def test_the_fewest_votes_that_certify_the_first_pixel_and_the_last(self, correction, draws, tau, expected):
        assert needed(draws, tau, alpha=0.001, correction=correction, pixels=SINGLE) == expected

    def test_p_values(self):
        values = tails(90, 0.75)
        assert values[88] == pytest.approx(2.711e-9, rel=2e-4)
        assert values[87] == pytest.approx(2.749e-8, rel=2e-4)
        assert values[88] < 0.001 / GRID < 0.001 / SINGLE < values[87]

    @pytest.mark.parametrize(("probability", "certified"), [(0.95, 0.17), (0.97, 0.49), (0.98, 0.73), (0.99, 0.94)])
    def test_power(self, probability, certified):
        assert tails(90, probability)[88] == pytest.approx(certified, abs=0.005)

    def test_labels_of_a_whole_image(self):
        rest = np.full((224, 224), 45)
        rest[0, :6] = [90, 88, 87, 0, 2, 3]
        found = labels(cast(rest // 9, rest), tau=0.75, alpha=0.001, correction="bonferroni")[0, 0]
        assert found[0, :6].tolist() == [1, 1, -1, 0, 0, -1]
        assert (found.ravel()[6:] == ABSTAINED).all()

    @pytest.mark.parametrize("correction", ["bonferroni", "holm"])
    def test_a_share_may_be_out_of_reach(self, correction):
        unanimous = cast(np.full((224, 224), 10), np.full((224, 224), 90))
        assert (labels(unanimous, tau=0.8, alpha=0.001, correction=correction) == IMPORTANT).all()
        assert (labels(unanimous, tau=0.85, alpha=0.001, correction=correction) == ABSTAINED).all()

    @pytest.mark.parametrize(
        ("count", "unanimous", "holds"), [(87, 13802, True), (87, 13801, False), (86, 45349, True), (86, 45348, False)]
    )
    def test_holm_gains_where_much_is_certified(self, count, unanimous, holds):
        # 87 of 90 hold once no more than 36374 of 50176 pixels are open, 86 once no more than 4827 are.
        rest = np.full(SINGLE, 45)
        rest[:unanimous], rest[unanimous] = 90, count
        votes = cast((rest // 9).reshape(224, 224), rest.reshape(224, 224))
        for correction, expected in (("holm", holds), ("bonferroni", False)):
            found = labels(votes, tau=0.75, alpha=0.001, correction=correction).ravel()
            assert (found == IMPORTANT).sum() == unanimous + expected

    @pytest.mark.parametrize(("sigma", "expected"), [(0.15, 0.1012), (0.25, 0.1686), (0.33, 0.2226)])
    def test_radii(self, sigma, expected):
        assert radius(sigma, 0.75) == pytest.approx(expected, abs=5e-5)
        assert radius(sigma, 0.5) == 0


@random
@given(st.integers(1, 255), st.floats(0.5, 0.99))
def test_p_values_equal_scipy(draws, tau):
    counts = sorted({0, 1, draws // 2, draws - 1, draws})
    expected = [scipy.stats.binomtest(k, draws, tau, alternative="greater").pvalue for k in counts]
    np.testing.assert_allclose(tails(draws, tau)[counts], expected, rtol=1e-9)


@random
@given(st.integers(1, 100), st.floats(0.5, 0.99), st.floats(1e-9, 0.5))
def test_the_cutoff_is_the_first_count_that_is_rejected(draws, tau, threshold):
    values = scipy.stats.binom.sf(np.arange(draws + 1) - 1, draws, tau)
    # Some p-values are round, as 1/2 is at an odd number of draws: there rounding decides.
    within = [min(np.flatnonzero(values <= threshold * (1 + e)), default=draws + 1) for e in (1e-12, -1e-12)]
    assert within[0] <= cutoff(draws, tau, threshold) <= within[1]


@pytest.mark.parametrize("correction", ["bonferroni", "holm"])
@random
@given(cases())
def test_what_is_rejected_equals_statsmodels(correction, case):
    votes, tau, alpha = case
    _, count = counts_of(votes)
    found = labels(votes, tau=tau, alpha=alpha, correction=correction)
    for place in np.ndindex(found.shape[:2]):
        values = scipy.stats.binom.sf(count[place].ravel() - 1, votes.n, tau)
        with mock.patch("gc.collect"):  # statsmodels calls it each time, and it takes a tenth of a second
            rejected = multipletests(values, alpha, method=correction)[0]
        np.testing.assert_array_equal(found[place].ravel() != ABSTAINED, rejected)


@pytest.mark.parametrize("correction", CORRECTIONS)
@random
@given(cases())
def test_labels_equal_a_loop(correction, case):
    votes, tau, alpha = case
    found = labels(votes, tau=tau, alpha=alpha, correction=correction)
    assert found.dtype == np.int8
    np.testing.assert_array_equal(found, naive(votes, tau, alpha, correction))


@random
@given(cases(), st.floats(0.5, 0.99), st.floats(0.001, 1))
@example((cast(np.full((2, 2), 10), np.full((2, 2), 90)), 0.5, 0.6), 0.99, 0.001)
def test_a_stricter_test_only_abstains_more(case, tau, share):
    votes, loose, alpha = case
    for correction in CORRECTIONS:
        held = labels(votes, tau=loose, alpha=alpha, correction=correction)
        for stricter in ({"tau": max(tau, loose), "alpha": alpha}, {"tau": loose, "alpha": alpha * share}):
            found = labels(votes, correction=correction, **stricter)
            assert ((found == held) | (found == ABSTAINED)).all()


@random
@given(cases())
def test_a_weaker_correction_certifies_no_less(case):
    votes, tau, alpha = case
    bonferroni, holm, none = (labels(votes, tau=tau, alpha=alpha, correction=name) for name in CORRECTIONS)
    for strict, weak in ((bonferroni, holm), (holm, none)):
        assert ((strict == weak) | (strict == ABSTAINED)).all()
    assert set(np.unique(none)) <= {IMPORTANT, UNIMPORTANT, ABSTAINED}


@pytest.mark.parametrize("correction", CORRECTIONS)
@random
@given(cases())
def test_a_map_knows_nothing_of_the_others(correction, case):
    votes, tau, alpha = case
    together = labels(votes, tau=tau, alpha=alpha, correction=correction)
    for image, level in np.ndindex(together.shape[:2]):
        alone = votes._replace(
            **{
                name: getattr(votes, name)[image : image + 1, level : level + 1]
                for name in ("counts0", "counts", "tied")
            }
        )
        np.testing.assert_array_equal(
            labels(alone, tau=tau, alpha=alpha, correction=correction)[0, 0], together[image, level]
        )


def test_the_first_votes_say_which_label_is_tested():
    rest = np.array([[90, 90, 90, 0, 0, 0]])
    found = labels(cast([[4, 5, 6, 4, 5, 6]], rest), tau=0.75, alpha=0.05, correction="none")
    # A tie of the first votes tests unimportant; what the rest are unanimous against is not certified.
    assert found[0, 0].tolist() == [[-1, -1, 1, 0, 0, -1]]
    found = labels(cast([[1, 2]], [[0, 90]], n0=3), tau=0.75, alpha=0.05, correction="none")
    assert found[0, 0].tolist() == [[0, 1]]


def test_counts_of_a_byte_do_not_run_over():
    votes = cast([[255, 0, 200]], [[255, 0, 254]], n0=255, n=255)
    assert labels(votes, tau=0.9, alpha=0.01, correction="holm")[0, 0].tolist() == [[1, 0, 1]]


def voted(seed, levels, *, side=12, samples=70, spread=0.4):
    """Let maps that are alike mark their top pixels exactly, and count."""
    rng = np.random.default_rng(seed)
    maps = rng.normal(size=side**2) + spread * rng.normal(size=(samples, side**2))
    order = maps.argsort(axis=1).argsort(axis=1)
    tops = np.stack([order >= side**2 - level * side**2 // 100 for level in levels], axis=1)
    tops = tops.reshape(samples, 1, len(levels), side, side)
    return cast(tops[:10].sum(axis=0), tops[10:].sum(axis=0), n=samples - 10)


@pytest.mark.parametrize("correction", ["bonferroni", "none"])
@random
@given(st.integers(0, 2**32), st.sampled_from([0.1, 0.4, 1.0]))
def test_levels_are_nested(correction, seed, spread):
    found = labels(voted(seed, [50, 30, 10], spread=spread), tau=0.75, alpha=0.05, correction=correction)[0]
    for higher, lower in ((0, 1), (1, 2)):
        assert not ((found[lower] == IMPORTANT) & (found[higher] != IMPORTANT)).any()
        assert not ((found[higher] == UNIMPORTANT) & (found[lower] != UNIMPORTANT)).any()


def test_levels_need_not_be_nested_by_holm():
    # The pixel has the same votes at both levels; only at the second are the others certified and its bar lowered.
    rest = np.full((2, 10, 10), 30)
    rest[:, 0, 0], rest[1].flat[1:] = 55, 0
    first = np.where(rest > 30, 10, 0)
    found = labels(cast(first[None], rest[None], n=60), tau=0.75, alpha=0.05, correction="holm")[0]
    assert found[:, 0, 0].tolist() == [ABSTAINED, IMPORTANT]


@random
@given(st.integers(0, 2**32), st.sampled_from([0.05, 0.2, 0.5]))
def test_no_more_is_certified_than_marks_allow(seed, spread):
    votes, levels = voted(seed, [50, 30, 10], spread=spread), np.array([50, 30, 10])
    marked = levels * 144 // 100
    least = cutoff(60, 0.75, 0.05 / 144)
    found = labels(votes, tau=0.75, alpha=0.05, correction="bonferroni")[0]
    assert ((found == IMPORTANT).sum(axis=(1, 2)) <= marked * 60 / least).all()
    assert ((found == UNIMPORTANT).sum(axis=(1, 2)) <= (144 - marked) * 60 / least).all()


@pytest.mark.parametrize("tau", [0.49, 1.0, -0.1, float("nan")])
def test_a_share_out_of_range(tau):
    with pytest.raises(ValueError, match=r"tau = .*: expected at least 0\.5 and less than 1"):
        radius(0.15, tau)
    with pytest.raises(ValueError, match=r"tau = .*: expected at least 0\.5 and less than 1"):
        labels(cast([[1]], [[1]]), tau=tau, alpha=0.05, correction="none")


@pytest.mark.parametrize("alpha", [0.0, 1.0, -0.5, 2.0, float("nan")])
def test_an_error_rate_out_of_range(alpha):
    with pytest.raises(ValueError, match=r"alpha = .*: expected more than 0 and less than 1"):
        labels(cast([[1]], [[1]]), tau=0.75, alpha=alpha, correction="none")


def test_where_all_is_certified_consistency_is_high_though_no_important_pixel_is_right():
    """At least 1 − 2 K / 100: 0.8 at the top 10%."""
    marked = (np.arange(100).reshape(1, 1, 10, 10) >= 90).astype(np.uint8)
    votes = Votes(10 * marked, 90 * marked, np.zeros((1, 1), np.uint16), 10, 90, 0.15, [10], "strict")
    maps = torch.arange(100, 0, -1).float().view(1, 10, 10)  # its top are the first pixels
    test = {"tau": [0.75], "alpha": 0.05, "correction": "bonferroni"}
    assert certified.certified_consistency([votes], maps, **test).item() == pytest.approx(0.8)
    assert certified.certified_consistency([votes], -maps, **test).item() == 1
    nothing = votes._replace(counts0=0 * votes.counts0, counts=45 + 0 * votes.counts)
    assert np.isnan(certified.certified_consistency([nothing], maps, **test).item())
    masks = torch.ones(1, 10, 10, dtype=torch.bool)
    assert np.isnan(certified.certified_localization([nothing], masks, **test).item())
