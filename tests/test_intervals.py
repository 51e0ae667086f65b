"""Intervals of means, of their differences and of ranks: against scipy, slow restatements, and how often they hold."""

import numpy as np
import pytest
import scipy.stats
import xarray as xr

from stages.statistics import bootstrap, precision
from stages.statistics.overall import mean_ranks
from stages.statistics.ranks import mean_rank, rank
from stages.statistics.summary import summarize
from stages.statistics.tables import Judged, summary_table


def intervals(scores: np.ndarray, *, resamples: int = 500, level: float = 0.9, kind: str):
    """Give the interval of scores by unit, part and cell."""
    sums, counts = bootstrap.pool(scores)
    samples = bootstrap.resampled_means(bootstrap.draw(len(scores), resamples=resamples, seed=1), sums, counts)
    return bootstrap.mean_interval(samples, sums, counts, level=level, kind=kind)


def bca(scores: list[np.ndarray], samples: np.ndarray, level: float) -> np.ndarray:
    """Restate the interval of the mean over units, each an array of its defined scores, by a loop."""
    mean = np.concatenate(scores).mean()
    shift = scipy.stats.norm.ppf((np.sum(samples < mean) + np.sum(samples == mean) / 2) / len(samples))
    without = [np.concatenate(scores[:unit] + scores[unit + 1 :]).mean() for unit in range(len(scores))]
    away = np.mean(without) - np.array(without)
    bend = np.sum(away**3) / (6 * np.sum(away**2) ** 1.5)
    ends = []
    for tail in ((1 - level) / 2, (1 + level) / 2):
        moved = shift + scipy.stats.norm.ppf(tail)
        ends.append(np.quantile(samples, scipy.stats.norm.cdf(shift + moved / (1 - bend * moved))))
    return np.array(ends)


def test_percentile_is_the_interval_of_the_samples():
    scores = np.random.default_rng(0).exponential(size=(30, 1, 4))
    sums, counts = bootstrap.pool(scores)
    samples = bootstrap.resampled_means(bootstrap.draw(30, resamples=200, seed=1), sums, counts)
    found = bootstrap.mean_interval(samples, sums, counts, level=0.9, kind="percentile")
    np.testing.assert_array_equal(found, bootstrap.interval(samples, counts, level=0.9))
    np.testing.assert_allclose(found, np.quantile(samples, [0.05, 0.95], axis=0))


def test_bca_equals_a_loop_that_leaves_units_out_with_their_parts():
    rng = np.random.default_rng(0)
    scores = rng.exponential(size=(12, 3, 5))
    scores[rng.random(scores.shape) < 0.4] = np.nan
    sums, counts = bootstrap.pool(scores)
    samples = bootstrap.resampled_means(bootstrap.draw(12, resamples=400, seed=2), sums, counts)
    found = bootstrap.mean_interval(samples, sums, counts, level=0.9, kind="bca")
    for cell in range(5):
        units = [unit[~np.isnan(unit)] for unit in scores[:, :, cell]]
        expected = bca([unit for unit in units if unit.size], samples[:, cell], 0.9)
        np.testing.assert_allclose([found[0][cell], found[1][cell]], expected)


def test_bca_equals_scipy():
    # Scipy draws resamples of its own: many, and the ends agree to what is left of chance.
    scores = np.random.default_rng(3).exponential(size=25)
    options = {"n_resamples": 20_000, "confidence_level": 0.9, "method": "BCa", "rng": np.random.default_rng(0)}
    expected = scipy.stats.bootstrap((scores,), np.mean, **options).confidence_interval
    found = intervals(scores[:, None, None], resamples=20_000, kind="bca")
    plain = intervals(scores[:, None, None], resamples=20_000, kind="percentile")
    np.testing.assert_allclose(np.ravel(found), expected, rtol=0.01)
    # Both ends lie above the percentile interval's, since the scores have a long tail upwards.
    assert (np.ravel(found) > np.ravel(plain) * 1.01).all()


def test_bca_turns_with_the_scores():
    scores = np.random.default_rng(0).exponential(size=(20, 1, 3))
    low, high = intervals(scores, kind="bca")
    turned = intervals(-scores, kind="bca")
    np.testing.assert_allclose(turned, (-high, -low))


def test_images_without_a_score_do_not_bend_the_interval():
    scores = np.random.default_rng(0).exponential(size=(20, 3, 1))
    scores[::2, 1:] = np.nan
    sums, counts = bootstrap.pool(scores)
    samples = bootstrap.resampled_means(bootstrap.draw(20, resamples=300, seed=0), sums, counts)
    padded = bootstrap.pool(np.concatenate([scores, np.full((30, 3, 1), np.nan)]))
    for kind in ("percentile", "bca"):
        found = bootstrap.mean_interval(samples, sums, counts, level=0.9, kind=kind)
        np.testing.assert_allclose(bootstrap.mean_interval(samples, *padded, level=0.9, kind=kind), found)


@pytest.mark.parametrize("kind", ["percentile", "bca"])
def test_intervals_bear_what_is_constant_or_hardly_defined(kind):
    nan = np.nan
    constant, four, never, one_grid = np.full((9, 2), 0.1), np.full((9, 2), nan), np.full((9, 2), nan), np.zeros((9, 2))
    four[:4, 0], one_grid[1:] = [1, 2, 1, 2], nan
    five = four.copy()
    five[4] = 3
    low, high = intervals(np.stack([constant, four, never, one_grid, five], axis=-1), kind=kind)
    np.testing.assert_allclose([low[0], high[0]], 0.1)
    assert np.isnan([low[1:4], high[1:4]]).all()
    # Five units of nine, one of two scores: some resamples hold none of them and have no mean.
    assert 1 <= low[4] < 2 < high[4] <= 3


def test_bca_bears_that_one_unit_carries_everything():
    scores = np.zeros((40, 1, 1))
    scores[0] = 1
    low, high = intervals(scores, level=0.999, kind="bca")
    assert 0 <= low[0] <= 1 / 40 < high[0]


@pytest.mark.parametrize(("kind", "least"), [("percentile", 0.86), ("bca", 0.87)])
def test_intervals_of_skewed_scores_hold_the_truth_as_often_as_they_say(kind, least):
    # Exponential scores, mean 1: both are a little short of their level at 50 images.
    scores = np.random.default_rng(0).exponential(size=(50, 1, 1500))
    low, high = intervals(scores, resamples=600, kind=kind)
    assert least < ((low < 1) & (high > 1)).mean() < 0.92


def test_bca_misses_on_both_sides_alike_where_percentiles_do_not():
    scores = np.random.default_rng(0).exponential(size=(50, 1, 1500))
    missed = {}
    for kind in ("percentile", "bca"):
        low, high = intervals(scores, resamples=600, kind=kind)
        missed[kind] = abs((high < 1).mean() - (low > 1).mean())
    assert missed["bca"] < missed["percentile"]


@pytest.mark.parametrize("kind", ["percentile", "bca"])
def test_intervals_of_alike_tiles_hold_the_truth(kind):
    # Nine tiles of a grid with a common part: as many tiles taken for images would hold far less often.
    rng = np.random.default_rng(0)
    scores = rng.exponential(size=(40, 1, 600)) + rng.normal(size=(40, 9, 600)) / 4
    low, high = intervals(scores, kind=kind)
    assert 0.84 < ((low < 1) & (high > 1)).mean() < 0.93
    low, high = intervals(scores.reshape(360, 1, 600)[:, :, :100], kind=kind)
    assert ((low < 1) & (high > 1)).mean() < 0.6


# Differences


def test_differences_are_of_paired_scores():
    rng = np.random.default_rng(0)
    scores = rng.random((15, 2, 5))
    scores[rng.random(scores.shape) < 0.3] = np.nan
    # The first two share their gaps, the last has none.
    scores[..., 1] += 0 * scores[..., 0]
    scores[..., 0] += 0 * scores[..., 1]
    scores[..., 4] = rng.random((15, 2))
    assert len({one.tobytes() for one in np.isnan(scores).transpose(2, 0, 1)}) == 4
    weights = bootstrap.draw(15, resamples=100, seed=0)
    for kind in ("percentile", "bca"):
        found = bootstrap.differences(scores, weights, level=0.9, kind=kind)
        for one in range(5):
            for other in range(5):
                change = scores[..., [one]] - scores[..., [other]]
                sums, counts = bootstrap.pool(change)
                samples = bootstrap.resampled_means(weights, sums, counts)
                low, high = bootstrap.mean_interval(samples, sums, counts, level=0.9, kind=kind)
                assert found.difference[one, other] == pytest.approx(np.nanmean(change))
                assert found.count[one, other] == (~np.isnan(change)).sum()
                np.testing.assert_allclose([found.low[one, other], found.high[one, other]], [low[0], high[0]])
        np.testing.assert_array_equal(np.diag(found.difference), 0)


def test_a_constant_lead_has_no_width_though_the_means_do():
    hard = np.random.default_rng(0).normal(size=(30, 1))
    scores = np.concatenate([hard + 0.25, hard, np.full((30, 1), np.nan)], axis=1)[:, None]
    found = bootstrap.differences(scores, bootstrap.draw(30, resamples=200, seed=0), level=0.95, kind="bca")
    np.testing.assert_allclose([found.low[0, 1], found.difference[0, 1], found.high[0, 1]], 0.25)
    np.testing.assert_allclose([found.low[1, 0], found.high[1, 0]], -0.25)
    assert np.isnan(found.difference[:, 2]).all()
    np.testing.assert_array_equal(found.count, [[30, 30, 0], [30, 30, 0], [0, 0, 0]])


# Ranks


def test_rank_intervals_hold_the_true_rank():
    # Three methods apart, a close pair, and noise of its own on each image; the truth is 1 2 3 4 5.
    rng = np.random.default_rng(0)
    truth = np.array([1.0, 0.6, 0.55, 0.2, 0])
    held = np.zeros(5)
    for _ in range(200):
        scores = truth + rng.exponential(size=(60, 5))
        table, _ = summarize(
            scores[:, None],
            bootstrap.draw(60, resamples=200, seed=1),
            better="higher",
            level=0.9,
            fewest=1,
            kind="percentile",
        )
        held += (table.rank_low <= [1, 2, 3, 4, 5]) & (table.rank_high >= [1, 2, 3, 4, 5])
    assert (held / 200 >= 0.88).all()


def test_rank_intervals_of_equal_methods_hold_every_rank():
    # Four methods alike in truth: each interval has nearly all four ranks, though one table ranks them 1 to 4.
    rng = np.random.default_rng(1)
    width = []
    for _ in range(100):
        weights = bootstrap.draw(50, resamples=200, seed=1)
        table, _ = summarize(
            rng.exponential(size=(50, 1, 4)), weights, better="lower", level=0.95, fewest=1, kind="percentile"
        )
        width.append(table.rank_high - table.rank_low)
        assert (table.rank_low <= table.rank).all()
        assert (table.rank <= table.rank_high).all()
    assert np.mean(width) > 2.3


@pytest.mark.parametrize(
    ("methods", "metrics", "apart", "shared", "times"),
    [(20, 20, 0.15, 0, 40), (10, 8, 0, 0, 100), (10, 8, 0, 1, 100), (10, 8, 0.6, 0.3, 100), (10, 1, 0.15, 0, 200)],
)
def test_mean_rank_intervals_hold_the_mean_rank_that_other_images_give(methods, metrics, apart, shared, times):
    # Methods in order, by metrics that share some of the noise or none; the truth is the mean over fresh images.
    rng = np.random.default_rng(0)
    truth = apart * np.linspace(-1.5, 1.5, methods) + apart / 3 * rng.normal(size=(metrics, methods))
    images, weights = 60, bootstrap.draw(60, resamples=150, seed=1)

    def scored() -> np.ndarray:
        noise = rng.exponential(size=(images, metrics, methods))
        return truth + noise + shared * rng.normal(size=(images, 1, methods))

    fresh = np.array([mean_rank(rank(scored().mean(axis=0), better="higher"))[0] for _ in range(600)])
    held, percentiles = np.zeros((2, methods))
    for _ in range(times):
        scores = scored()
        ranks = rank(scores.mean(axis=0), better="higher")
        means = (weights @ scores.reshape(images, -1)).reshape(-1, metrics, methods)
        resampled = rank(means, better="higher")
        drawn = {(0, metric): resampled[:, metric] for metric in range(metrics)}
        found = mean_ranks(ranks.T[None], drawn, dict.fromkeys(range(metrics), "one"), level=0.95)
        low, high = found["overall_rank_low"][1], found["overall_rank_high"][1]
        held += (low <= fresh.mean(axis=0)) & (fresh.mean(axis=0) <= high)
        low, high = np.quantile(resampled.mean(axis=1), [0.025, 0.975], axis=0)
        percentiles += (low <= fresh.mean(axis=0)) & (fresh.mean(axis=0) <= high)
    assert 0.93 <= held.mean() / times < 0.99
    assert held.min() / times >= 0.87
    if metrics == 20:
        assert percentiles.mean() / times < 0.9


def test_mean_rank_intervals_lie_around_the_mean_rank_and_within_the_places_there_are():
    nan = np.nan
    # Two metrics; the third method is ranked by the second alone, of three.
    ranks = np.array([[[1, 1], [2, 2], [nan, 3]]])
    drawn = {(0, 0): np.array([[1.0, 2, nan], [2, 1, nan]]), (0, 1): np.array([[1.0, 2, 3], [3, 2, 1]])}
    found = mean_ranks(ranks, drawn, {0: "one", 1: "one"}, level=0.5)
    low, mean, high = (found[f"overall_rank{end}"][1] for end in ("_low", "", "_high"))
    np.testing.assert_array_equal(mean, [1, 2, 3])
    # Resampled: 1 and 2.5, 2 and 1.5, 3 and 1; quartiles ±0.375, ±0.125, ±0.5 around their means.
    np.testing.assert_allclose(low, [1, 2 - 0.125 * 2**0.5, 3 - 0.5 * 2**0.5])
    np.testing.assert_allclose(high, [1 + 0.375 * 2**0.5, 2 + 0.125 * 2**0.5, 3])


# How many images are enough


def test_widths_fall_with_the_root_of_the_number():
    scores = np.random.default_rng(0).normal(size=(400, 1, 2)) * [1, 3]
    sizes = np.array([25, 100, 400, 1600])
    found = precision.widths(scores, sizes, resamples=2000, level=0.95, seed=0)
    expected = 2 * 1.96 * scores.std(axis=(0, 1)) / np.sqrt(sizes)[:, None]
    np.testing.assert_allclose(found, expected, rtol=0.08)


def test_widths_at_the_number_there_is_are_those_of_the_interval():
    scores = np.random.default_rng(0).exponential(size=(60, 3, 1))
    scores[::4, 1:] = np.nan
    found = precision.widths(scores, np.array([60]), resamples=5000, level=0.9, seed=0)
    low, high = intervals(scores, resamples=5000, kind="percentile")
    np.testing.assert_allclose(found[0], high - low, rtol=0.05)


def test_widths_need_five_images_with_a_score():
    scores = np.full((9, 1, 2), np.nan)
    scores[:4], scores[4, 0, 1] = 1, 2
    found = precision.widths(scores, np.array([2, 50]), resamples=200, level=0.9, seed=0)
    np.testing.assert_array_equal(np.isnan(found), [[True, False], [True, False]])
    assert np.isnan(precision.widths(scores[:0], np.array([4]), resamples=5, level=0.9, seed=0)).all()


def test_enough_is_where_the_width_stays_below_the_wish():
    nan = np.nan
    sizes = np.array([10, 20, 40, 80])
    widths = np.array([[0.9, 0.1, 0.9, nan], [0.4, 0.6, 0.9, nan], [0.3, 0.4, 0.9, nan], [0.2, 0.3, 0.5, nan]])
    np.testing.assert_array_equal(precision.enough(widths, sizes, wish=0.5), [20, 40, nan, nan])


@pytest.mark.parametrize(("constant", "enough"), [(0, 50), (2, np.nan)])
def test_where_most_methods_have_one_score_no_number_of_images_is_enough(constant, enough):
    """An interval of equal scores has no width, whatever images were not drawn."""
    values = np.random.default_rng(0).choice([0.0, 1.0], size=(3, 40), p=[0.05, 0.95])
    values[0] = 1 - values[0]
    values[1 : 1 + constant] = 1
    coords = {"method": ["a", "b", "c"], "image": [f"image_{number}" for number in range(40)]}
    scores = xr.DataArray(values, coords, ("method", "image"))
    judged = Judged("one", "hit", {"better": "higher", "family": "localization"}, scores, scores.notnull())
    options = {"level": 0.95, "seed": 0}
    summary = summary_table([judged], resamples=50, intervals="percentile", fewest=5, **options)
    summary = summary.assign_coords(control=("method", [False] * 3))
    found = precision.precision_table([judged], summary, **options).sel(classifier="one", metric="hit")
    assert (float(found["width_now"]) == 0) is (constant == 2)
    np.testing.assert_array_equal(found["enough"], enough)
