"""Statistics against values computed by hand, slow restatements and scipy."""

import numpy as np
import pytest
import scipy.stats

from atlas.statistics import curves
from atlas.statistics.intervals import bootstrap
from atlas.statistics.rankings import agreement, controls, pareto, ranks
from atlas.statistics.summary import summarize

# Curves


def test_area_is_the_trapezoid_over_the_fraction():
    fraction = np.array([0, 0.5, 1])
    lines = np.array([[1, 0.5, 0], [1, 1, 1], [0.2, 0.6, 0.4]], dtype=np.float32)
    # (0.2 + 0.6) / 4 + (0.6 + 0.4) / 4 = 0.45
    np.testing.assert_allclose(curves.area(lines, fraction), [0.5, 1, 0.45], rtol=1e-6)


def test_area_weighs_uneven_steps_by_their_width():
    fraction = np.array([0, 0.1, 1])
    # 0.1 · (0 + 1) / 2 + 0.9 · (1 + 1) / 2 = 0.95
    np.testing.assert_allclose(curves.area(np.array([[0.0, 1, 1]]), fraction), [0.95])


def test_area_equals_the_formula_of_rise_for_equal_steps():
    line = np.random.default_rng(0).random((4, 113))
    expected = (line.sum(axis=1) - line[:, 0] / 2 - line[:, -1] / 2) / 112
    np.testing.assert_allclose(curves.area(line, np.linspace(0, 1, 113)), expected)


def test_monotonicity_counts_steps_in_the_direction_that_is_better():
    line = np.array([[0.1, 0.2, 0.2, 0.1, 0.5]])
    # Steps: up, flat, down, up: three do not fall, two do not rise.
    assert curves.monotonicity(line, better="higher") == 3 / 4
    assert curves.monotonicity(line, better="lower") == 2 / 4


def test_monotonicity_sees_the_smallest_step_of_float32():
    line = np.array([[0.1, np.nextafter(np.float32(0.1), np.float32(0))]], dtype=np.float32)
    assert curves.monotonicity(line, better="higher") == 0


def test_smoothness_divides_outside_the_root():
    line = np.array([[0.0, 1, 1, 0], [0, 1, 2, 3]])
    # Differences 1, 0, −1 with mean 0: √2 / 3; a straight line has none.
    np.testing.assert_allclose(curves.smoothness(line), [np.sqrt(2) / 3, 0])


def test_one_undefined_point_makes_a_curve_undefined():
    line = np.array([[0.0, np.nan, 1]])
    fraction = np.linspace(0, 1, 3)
    for value in (
        curves.area(line, fraction),
        curves.monotonicity(line, better="higher"),
        curves.smoothness(line),
    ):
        assert np.isnan(value).all()


def test_best_threshold_has_most_hits_among_defined_images():
    nan = np.nan
    hits = np.array([[1, 1, 0], [0, 1, 0], [0, 0, 1], [nan, nan, nan]])
    chosen, position = curves.best_threshold(hits)
    assert position == 1
    np.testing.assert_array_equal(chosen, [1, 1, 0, nan])


def test_best_threshold_prefers_the_lowest_of_equals_and_bears_nothing_defined():
    assert curves.best_threshold(np.array([[0.0, 1, 1]]))[1] == 1
    chosen, position = curves.best_threshold(np.full((2, 3), np.nan))
    assert position == 0
    assert np.isnan(chosen).all()


# Bootstrap


def single(scores: np.ndarray) -> np.ndarray:
    """Return image scores (image method) the part axis of a grid's tiles."""
    return scores[:, None, :]


def test_draws_are_paired_seeded_and_complete():
    weights = bootstrap.draw(7, resamples=50, seed=3)
    assert (weights.sum(axis=1) == 7).all()
    np.testing.assert_array_equal(weights, bootstrap.draw(7, resamples=50, seed=3))
    assert not np.array_equal(weights, bootstrap.draw(7, resamples=50, seed=4))
    # Each of 7 units is missing from a resample with probability (6/7)⁷ = 0.34.
    assert 0.25 < (weights == 0).mean() < 0.43


def test_resampled_means_equal_a_loop_that_repeats_images():
    rng = np.random.default_rng(0)
    scores = rng.random((6, 3, 4))
    scores[rng.random(scores.shape) < 0.3] = np.nan
    weights = bootstrap.draw(6, resamples=20, seed=1)
    fast = bootstrap.resampled_means(weights, *bootstrap.pool(scores))
    for row, weight in zip(fast, weights, strict=True):
        chosen = np.repeat(scores, weight.astype(int), axis=0)
        np.testing.assert_allclose(row, np.nanmean(chosen, axis=(0, 1)))


def test_means_are_over_defined_scores_and_say_over_how_many():
    nan = np.nan
    scores = single(np.array([[1.0, nan, nan], [3, 4, nan], [nan, 6, nan]]))
    sums, counts = bootstrap.pool(scores)
    np.testing.assert_array_equal(bootstrap.mean(sums, counts), [2, 5, nan])
    np.testing.assert_array_equal(counts.sum(axis=0), [2, 2, 0])


def test_tiles_of_a_grid_are_resampled_together():
    # Tiles of one grid are alike, so 200 tiles in 20 grids know no more than 20 grids.
    rng = np.random.default_rng(0)
    scores = np.repeat(rng.normal(size=(20, 1, 1)), 10, axis=1)
    together = bootstrap.resampled_means(bootstrap.draw(20, resamples=800, seed=1), *bootstrap.pool(scores))
    apart = bootstrap.resampled_means(
        bootstrap.draw(200, resamples=800, seed=1), *bootstrap.pool(scores.reshape(200, 1, 1))
    )
    assert together.std() / apart.std() == pytest.approx(np.sqrt(10), rel=0.15)


def test_a_constant_lead_is_certain_though_the_means_are_not():
    # Paired: a method that is better on every image by a little is ahead in every resample.
    hard = np.random.default_rng(0).normal(size=(30, 1))
    scores = np.concatenate([hard + 0.01, hard], axis=1)
    table, _ = summarize(
        single(scores),
        bootstrap.draw(30, resamples=300, seed=0),
        better="higher",
        level=0.95,
        min_count=1,
    )
    assert table.low[0] < table.high[1]
    np.testing.assert_array_equal([table.rank_low, table.rank_high], [[1, 2], [1, 2]])


def test_rank_intervals_cover_ties():
    rng = np.random.default_rng(0)
    same = rng.random((40, 1))
    noise = rng.random((40, 2))
    scores = np.concatenate([same, same, noise, same - 1], axis=1)
    table, resampled = summarize(
        single(scores),
        bootstrap.draw(40, resamples=400, seed=0),
        better="higher",
        level=0.95,
        min_count=1,
    )
    np.testing.assert_array_equal(resampled[:, 0], resampled[:, 1])
    assert table.rank[0] == table.rank[1]
    assert table.rank_low[0] == table.rank_low[1] == 1
    # Both behind the two others, and either of them behind its like.
    assert table.rank_high[0] == table.rank_high[1] == 4
    assert (table.rank_low[4], table.rank[4], table.rank_high[4]) == (5, 5, 5)


def test_rank_intervals_of_methods_that_are_always_tied_hold_both_of_their_ranks():
    lead = np.random.default_rng(0).normal(size=(30, 1))
    scores = single(np.concatenate([lead, lead, lead - 1], axis=1))
    weights = bootstrap.draw(30, resamples=100, seed=0)
    table, resampled = summarize(scores, weights, better="higher", level=0.95, min_count=1)
    np.testing.assert_array_equal(np.unique(resampled, axis=0), [[1.5, 1.5, 3]])
    np.testing.assert_array_equal([table.rank, table.rank_low, table.rank_high], [[1, 1, 3], [1, 1, 3], [2, 2, 3]])


def test_a_method_without_scores_is_unranked_and_takes_no_rank():
    nan = np.nan
    scores = single(np.array([[nan, 1.0, 2], [nan, 2, 3]]))
    table, _ = summarize(scores, bootstrap.draw(2, resamples=50, seed=0), better="lower", level=0.95, min_count=1)
    np.testing.assert_array_equal(table.count, [0, 2, 2])
    np.testing.assert_array_equal(table.rank, [nan, 1, 2])
    assert np.isnan([table.mean[0], table.low[0], table.rank_low[0], table.rank_high[0]]).all()


# Ranks


def test_ranks_give_ties_the_best_and_nan_none():
    values = np.array([[0.3, 0.5, np.nan, 0.5, 0.1]])
    np.testing.assert_array_equal(ranks.rank(values, better="higher"), [[3, 1, np.nan, 1, 4]])
    np.testing.assert_array_equal(ranks.rank(values, better="lower"), [[2, 3, np.nan, 3, 1]])


def test_ranks_do_not_hang_on_the_last_bit_nor_drown_in_one_large_value():
    value = 0.1 + 0.2
    assert value != 0.3
    np.testing.assert_array_equal(ranks.rank(np.array([value, 0.3, 0.2]), better="higher"), [1, 1, 3])
    np.testing.assert_array_equal(ranks.rank(np.array([1e15, 2e-4, 1e-4]), better="lower"), [3, 2, 1])


def test_ranks_equal_scipy():
    values = np.random.default_rng(0).integers(5, size=(20, 9)).astype(float)
    expected = scipy.stats.rankdata(values, method="min", axis=1)
    np.testing.assert_array_equal(ranks.rank(values, better="lower"), expected)


def test_mean_rank_is_over_the_metrics_that_ranked_a_method():
    nan = np.nan
    mean, number = ranks.mean_rank(np.array([[1, 2, nan], [2, 1, nan], [3, nan, nan]]))
    np.testing.assert_array_equal(mean, [2, 1.5, nan])
    np.testing.assert_array_equal(number, [3, 2, 0])


def test_average_and_worst_ranks_equal_scipy_and_bear_nan():
    values = np.random.default_rng(0).integers(5, size=(20, 9)).astype(float)
    for function, method in ((ranks.average_rank, "average"), (ranks.worst_rank, "max")):
        expected = scipy.stats.rankdata(-values, method=method, axis=1)
        np.testing.assert_array_equal(function(values, better="higher"), expected)
    found = ranks.average_rank(np.array([0.1, np.nan, 0.1, 0.5]), better="lower")
    np.testing.assert_array_equal(found, [1.5, np.nan, 1.5, 3])


def test_averages_are_over_the_cells_there_are():
    nan = np.nan
    found = ranks.average(np.array([[1.0, 4, nan], [3, nan, nan], [8, nan, nan]]))
    # (9 + 1 + 16) / 2 = 13
    np.testing.assert_allclose(found.mean, [4, 4, nan])
    np.testing.assert_allclose(found.sd, [np.sqrt(13), nan, nan])
    np.testing.assert_array_equal(found.count, [3, 1, 0])


def test_groups_are_ranked_by_medians_with_linear_quartiles():
    nan = np.nan
    found = ranks.rank_medians(np.array([[4.0, 1, 2, 3], [9, nan, 0, nan], [nan] * 4]), better="lower")
    # Of 1 2 3 4, a quarter of the way is 1.75.
    np.testing.assert_array_equal(found.median, [2.5, 4.5, nan])
    np.testing.assert_array_equal(found.low, [1.75, 2.25, nan])
    np.testing.assert_array_equal(found.high, [3.25, 6.75, nan])
    np.testing.assert_array_equal(found.count, [4, 2, 0])
    np.testing.assert_array_equal(found.rank, [1, 2, nan])


# Fronts, controls


def test_a_front_is_what_a_loop_leaves():
    values = np.random.default_rng(0).integers(4, size=(3, 40)).astype(float)
    values[1, 5] = np.nan
    found = pareto.front(values, better=["higher", "lower", "higher"])
    turned = values * np.array([[1], [-1], [1]])
    for item in range(40):
        ahead = turned - turned[:, [item]]
        beaten = ((ahead >= 0).all(axis=0) & (ahead > 0).any(axis=0)).any()
        assert found[item] == (not beaten and item != 5)


def test_a_front_holds_what_is_alike_and_nothing_undefined():
    nan = np.nan
    columns = np.array([[1.0, 1, 2, 9, 1], [5, 5, 1, nan, 4]])
    np.testing.assert_array_equal(pareto.front(columns, better=["higher"] * 2), [True, True, True, False, False])
    np.testing.assert_array_equal(pareto.front(columns, better=["lower"] * 2), [False, False, True, False, True])


def test_controls_are_counted_in_their_places():
    nan = np.nan
    # By lower is better: the columns are two methods, edges and random maps.
    values = np.array(
        [
            [0.1, 0.2, 0.3, 0.4],  # both in their places
            [0.1, 0.2, 0.4, 0.3],  # the other way round
            [0.1, 0.2, 0.4, 0.4],  # they share the last two places
            [0.1, 0.3, 0.3, 0.4],  # edges share theirs with a method
            [0.3, nan, 0.1, 0.4],  # one method less; edges are best
            [0.1, 0.2, nan, 0.4],  # no edges
        ]
    )
    found = controls.count_places(values, last=3, second_last=2, better="lower")
    assert found == (5, 3, 1, 1, 2, 1)
    turned = controls.count_places(-values, last=3, second_last=2, better="higher")
    assert turned == found


# Agreement


def test_kendall_equals_scipy_with_ties():
    values = np.random.default_rng(0).integers(6, size=(5, 16)).astype(float)
    tau, number = agreement.kendall(values)
    for one in range(5):
        for other in range(5):
            expected = scipy.stats.kendalltau(values[one], values[other], variant="b").statistic
            assert tau[one, other] == pytest.approx(expected)
    assert (number == 16).all()


def test_kendall_ties_what_ranks_tie():
    values = np.array([[0.1 + 0.2, 0.3, 0.5], [2.0, 2, 3], [1, 2, 3]])
    assert values[0, 0] != values[0, 1]
    tau, _ = agreement.kendall(values)
    assert tau[0, 1] == pytest.approx(1)
    assert tau[0, 2] == tau[1, 2] == pytest.approx(2 / 6**0.5)


def test_agreement_uses_the_items_that_both_have():
    nan = np.nan
    values = np.array([[1.0, 2, 3, nan, 9], [3, 2, 1, 4, nan], [nan, nan, nan, 1, nan]])
    for function in (agreement.kendall, agreement.spearman):
        matrix, number = function(values)
        np.testing.assert_array_equal(number, [[4, 3, 0], [3, 4, 1], [0, 1, 1]])
        assert matrix[0, 1] == pytest.approx(-1)
        assert np.isnan(matrix[2]).all()


def test_spearman_equals_scipy_with_ties():
    values = np.random.default_rng(0).integers(6, size=(4, 30)).astype(float)
    expected = scipy.stats.spearmanr(values, axis=1).statistic
    np.testing.assert_allclose(agreement.spearman(values)[0], expected)


def test_spearman_of_rows_with_shared_gaps_equals_scipy_pair_by_pair():
    values = np.random.default_rng(0).integers(6, size=(7, 30)).astype(float)
    values[1:4, :5], values[3:6, 20:], values[6, ::2] = np.nan, np.nan, np.nan
    rho, number = agreement.spearman(values)
    for one in range(7):
        for other in range(7):
            both = ~np.isnan(values[[one, other]]).any(axis=0)
            expected = scipy.stats.spearmanr(values[one, both], values[other, both]).statistic
            assert rho[one, other] == pytest.approx(expected)
            assert number[one, other] == both.sum()


def test_a_constant_ranking_agrees_with_none():
    values = np.array([[1.0, 1, 1], [1, 2, 3]])
    assert np.isnan(agreement.kendall(values)[0][0, 1])
    assert np.isnan(agreement.spearman(values)[0][0, 1])


def test_metrics_are_correlated_over_the_images_of_each_method():
    rng = np.random.default_rng(0)
    scores = rng.random((3, 2, 20))
    scores[1, 1, :4] = np.nan
    scores[2, 1] = 7
    found, number = agreement.spearman_between_metrics(scores)
    expected = [scipy.stats.spearmanr(one[:, ~np.isnan(one).any(axis=0)], axis=1).statistic for one in scores[:2]]
    assert found[0, 1] == found[1, 0] == pytest.approx(np.mean(expected))
    # On the third method one metric is constant: that correlation is undefined, not zero.
    np.testing.assert_array_equal(number, [[3, 2], [2, 2]])


# Four raters, twelve units: the example that Krippendorff prints.
JUDGED = np.array(
    [
        [1, 2, 3, 3, 2, 1, 4, 1, 2, 0, 0, 0],
        [1, 2, 3, 3, 2, 2, 4, 1, 2, 5, 0, 3],
        [0, 3, 3, 3, 2, 3, 4, 2, 2, 5, 1, 0],
        [1, 2, 3, 3, 2, 4, 4, 1, 2, 5, 1, 0],
    ],
    float,
)
JUDGED[JUDGED == 0] = np.nan


@pytest.mark.parametrize(("scale", "printed"), [("ordinal", 0.815), ("interval", 0.849)])
def test_alpha_of_the_example_of_krippendorff(scale, printed):
    alpha, number = agreement.krippendorff(JUDGED, scale=scale)
    assert round(alpha, 3) == printed
    assert number == 40


def test_alpha_equals_its_definition_by_coincidences():
    for scale in ("ordinal", "interval"):
        pairs = [
            (one, other, 1 / (len(unit) - 1))
            for unit in (column[~np.isnan(column)] for column in JUDGED.T)
            for first, one in enumerate(unit)
            for second, other in enumerate(unit)
            if first != second
        ]
        found = np.unique(JUDGED[~np.isnan(JUDGED)])
        number = {value: sum(weight for one, _, weight in pairs if one == value) for value in found}
        total = sum(number.values())

        def distance(one, other, scale=scale, number=number, found=found):
            if scale == "interval":
                return (one - other) ** 2
            between = sum(number[value] for value in found if min(one, other) <= value <= max(one, other))
            return (between - (number[one] + number[other]) / 2) ** 2

        observed = sum(weight * distance(one, other) for one, other, weight in pairs) / total
        chance = sum(number[one] * number[other] * distance(one, other) for one in found for other in found)
        expected = 1 - observed / (chance / (total * (total - 1)))
        assert agreement.krippendorff(JUDGED, scale=scale)[0] == pytest.approx(expected)


def test_alpha_is_one_for_agreement_and_undefined_without_comparison():
    nan = np.nan
    same = np.array([[1.0, 2, 3, nan], [1, 2, 3, 9]])
    for scale in ("ordinal", "interval"):
        assert agreement.krippendorff(same, scale=scale) == (1, 6)
        alpha, number = agreement.krippendorff(np.array([[1.0, nan], [nan, 2]]), scale=scale)
        assert np.isnan(alpha)
        assert number == 0
        assert np.isnan(agreement.krippendorff(np.ones((2, 3)), scale=scale)[0])


def test_a_mean_over_a_few_images_ranks_no_method():
    scores = np.array([[0.9, 0.1, 0.0], [np.nan, 0.2, 0.1], [np.nan, 0.3, 0.2]])
    weights = bootstrap.draw(3, resamples=50, seed=0)
    table, resampled = summarize(single(scores), weights, better="higher", level=0.95, min_count=2)
    np.testing.assert_array_equal(table.rank, [np.nan, 1, 2])
    np.testing.assert_allclose(table.mean, [0.9, 0.2, 0.1])
    assert np.isnan(resampled[:, 0]).all()


def test_ranks_are_over_the_images_that_all_ranked_methods_have_scores_of():
    """A method that is undefined on hard images is not ahead for that."""
    easy, hard = np.full(6, 0.8), np.full(6, 0.2)
    one = np.concatenate([easy, hard])
    scores = np.stack([one, np.concatenate([easy - 0.1, np.full(6, np.nan)]), one - 0.3, np.full(12, np.nan)], axis=1)
    weights = bootstrap.draw(12, resamples=50, seed=0)
    table, resampled = summarize(single(scores), weights, better="higher", level=0.95, min_count=5)
    assert table.mean[1] > table.mean[0]
    np.testing.assert_array_equal(table.count, [12, 6, 12, 0])
    np.testing.assert_array_equal(table.rank, [1, 2, 3, np.nan])
    np.testing.assert_array_equal(table.rank_count, [6, 6, 6, 0])
    np.testing.assert_array_equal([table.rank_low[:3], table.rank_high[:3]], [[1, 2, 3]] * 2)
    np.testing.assert_array_equal(np.unique(resampled[~np.isnan(resampled[:, 0])][:, :3], axis=0), [[1, 2, 3]])
    # Where too few are shared, the method with the fewest scores is not ranked, and the others are by all of theirs.
    scores[0, 0] = np.nan
    table, _ = summarize(single(scores), weights, better="higher", level=0.95, min_count=6)
    np.testing.assert_array_equal(table.rank, [1, np.nan, 2, np.nan])
    np.testing.assert_array_equal(table.rank_count, [11, 0, 11, 0])


def test_tiles_that_a_method_lacks_are_left_out_of_ranks_alone():
    scores = np.ones((8, 2, 2))
    scores[..., 1] = 0.9
    scores[:4, 1, 0] = -9
    scores[:4, 1, 1] = np.nan
    weights = bootstrap.draw(8, resamples=50, seed=0)
    table, _ = summarize(scores, weights, better="higher", level=0.95, min_count=8)
    assert table.mean[0] < table.mean[1]
    np.testing.assert_array_equal([table.rank, table.rank_count, table.count], [[1, 2], [12, 12], [16, 12]])


def test_methods_that_share_no_image_rank_no_method():
    scores = np.full((12, 2), np.nan)
    scores[:6, 0], scores[6:, 1] = 1, 2
    weights = bootstrap.draw(12, resamples=50, seed=0)
    table, _ = summarize(single(scores), weights, better="higher", level=0.95, min_count=5)
    np.testing.assert_array_equal([table.rank, table.rank_count], [[np.nan] * 2, [0, 0]])


def test_a_ranking_that_agrees_with_itself_alone_has_no_mean_agreement():
    nan = np.nan
    alone = np.array([[1.0, nan, nan], [nan, nan, nan], [nan, nan, nan]])
    for diagonal in (True, False):
        assert np.isnan(agreement.mean_and_sd(alone, diagonal=diagonal)).all()
    part = np.array([[1.0, 0.5, nan], [0.5, 1, nan], [nan, nan, nan]])
    assert agreement.mean_and_sd(part, diagonal=True) == (0.75, 0.25)
    assert agreement.mean_and_sd(part, diagonal=False) == (0.5, 0)
