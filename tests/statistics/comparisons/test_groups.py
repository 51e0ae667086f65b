"""Classifiers as groups of mean scores: the tests between them, and the boxes they lie in."""

import numpy as np
import pytest

from atlas.statistics.boxes import boxes, whiskers
from atlas.statistics.comparisons.contrasts import control_table
from atlas.statistics.comparisons.groups import compare
from atlas.statistics.rankings.ranks import rank
from atlas.statistics.tables import agreement_table
from tests.support.paired import BETTER, MADE_UP, METHODS, PAIRS, made_up, printed
from tests.support.printed_tables import table


@pytest.mark.parametrize(
    ("metric", "family", "p", "number"),
    [
        ("pointing", "gradient", "8.8e-06", 15),
        ("wsl", "gradient", "3.0e-03", 15),
        ("insertion", "cam", "9.1e-04", 8),  # the paper prints .00092
        ("insertion", "perturbation", "1.1e-07", 20),
        ("deletion", "cam", "9e-04", 8),
        ("deletion", "gradient", "2.6e-04", 15),
        ("deletion", "perturbation", "6.0e-07", 20),
    ],
)
def test_plain_and_robust_classifiers_of_the_paper_differ_as_it_says(metric, family, p, number):
    found = compare(printed(), PAIRS, rule="wilcox_test")
    assert found.sizes["comparison"] == 1
    found = found.isel(comparison=0).sel({"metric": metric, "method_family": family})
    assert f"{float(found['p']):.{int('.' in p)}e}" == p
    assert int(found["count"]) == number


def test_with_ties_p_is_that_of_all_ways_to_deal_the_means():
    found = compare(printed(), PAIRS, rule="permutation").isel(comparison=0)["p"]
    told = [("deletion", "perturbation", 9.1e-09), ("pointing", "gradient", 8.8e-06)]
    for metric, family, p in told:
        assert float(found.sel({"metric": metric, "method_family": family})) == pytest.approx(p, rel=0.01)


def test_all_methods_are_a_family_without_the_controls_and_a_method_without_a_mean_is_on_neither_side():
    found = compare(made_up(width=1.5), [["plain", "robust"]], rule="wilcox_test").isel(comparison=0, metric=0)
    assert found["count"].sel(method_family=["gradient", "cam", "control", "all"]).values.tolist() == [2, 2, 1, 4]
    assert float(found["change"].sel(method_family="all")) == pytest.approx((-3 + 0 - 6 + 4) / 4)
    assert int(found["better_count"].sel(method_family="all")) == 2
    assert int(found["worse_count"].sel(method_family="all")) == 1  # one is tied
    assert found["worse_count"].sel(method_family=["gradient", "cam", "control"]).values.tolist() == [0, 1, 1]
    assert int(found["apart"].sel(method_family="all")) == 3
    # Of 4 and 4 values, 2 tied.
    assert float(found["p"].sel(method_family="gradient")) > 0.3


def test_a_classifier_alone_is_compared_with_none_and_has_boxes():
    alone = made_up().isel(classifier=[0])
    assert compare(alone, [["plain"]], rule="wilcox_test").sizes["comparison"] == 0
    assert boxes(alone)["median"].sel(method_family="all").item() == 3


def test_boxes_are_the_percentiles_of_the_means_that_there_are():
    found = boxes(made_up()).isel(metric=0)
    for number, classifier in enumerate(("plain", "robust")):
        values = np.array([ends[number] for name, ends in MADE_UP.items() if name != "control"])
        values = values[~np.isnan(values)]
        one = found.sel({"classifier": classifier, "method_family": "all"})
        at = np.percentile(values, [25, 50, 75])
        np.testing.assert_allclose([one[name] for name in ("quartile_low", "median", "quartile_high")], at)
        assert int(one["median_count"]) == len(values) == 5 - number
        inside = values[(values >= 2.5 * at[0] - 1.5 * at[2]) & (values <= 2.5 * at[2] - 1.5 * at[0])]
        assert [float(one["whisker_low"]), float(one["whisker_high"])] == [inside.min(), inside.max()]
    # 9 lies further than 1.5 · (4 − 2) above 4.
    assert float(found["whisker_high"].sel({"classifier": "plain", "method_family": "all"})) == 4
    assert found["median_rank"].sel(method_family="all").values.tolist() == [2, 1]  # less is better


def test_boxes_of_the_paper_are_the_percentiles_of_its_cells():
    found = boxes(printed())
    for metric in BETTER:
        cells = table(f"robust_{metric}").loc[found["classifier"].values, METHODS].values
        at = np.nanpercentile(cells, [25, 50, 75], axis=1)
        one = found.sel({"metric": metric, "method_family": "all"})
        np.testing.assert_allclose([one[name] for name in ("quartile_low", "median", "quartile_high")], at)
        assert one["median_count"].sel(classifier="alexnet") == 8
        assert one["median_count"].sel(classifier="resnet_r") == 9


def test_a_box_of_nothing_is_undefined_and_takes_no_rank():
    gone = made_up()
    gone["mean"][0] = np.nan
    one = boxes(gone).isel(metric=0).sel({"classifier": "plain", "method_family": "all"})
    assert int(one["median_count"]) == 0
    assert all(np.isnan(one[name]) for name in one.data_vars if name != "median_count")
    assert float(boxes(gone)["median_rank"].isel(metric=0).sel({"classifier": "robust", "method_family": "all"})) == 1


def test_medians_are_ranked_among_the_classifiers_of_a_dataset():
    apart = made_up().assign_coords(dataset=("classifier", ["photos", "drawings"]))
    assert (boxes(apart)["median_rank"] == 1).all()


def test_whiskers_end_at_values_and_one_value_is_its_own_box():
    values = np.array([[1.0, 2, 3, 4, 100], [7, np.nan, np.nan, np.nan, np.nan], [np.nan] * 5])
    low, high = whiskers(values, np.array([2.0, 7, np.nan]), np.array([4.0, 7, np.nan]))
    np.testing.assert_array_equal(low, [1, 7, np.nan])
    np.testing.assert_array_equal(high, [4, 7, np.nan])


def test_means_that_rank_nobody_are_left_out():
    few = made_up(width=1.5)
    few["rank"].loc[{"classifier": "plain", "method": "e"}] = np.nan
    assert few["mean"].sel({"classifier": "plain", "method": "e"}) == 1
    cell = {"metric": "less", "method_family": "all"}
    found = compare(few, [["plain", "robust"]], rule="wilcox_test").isel(comparison=0).sel(cell)
    assert int(found["count"]) == 3
    assert float(found["change"]) == pytest.approx((-3 + 0 - 6) / 3)
    one = boxes(few).sel({**cell, "classifier": "plain"})
    assert (float(one["median"]), int(one["median_count"])) == (3.5, 4)
    agreement = agreement_table(few, {"less": -1})
    across = {"metric": "less", "classifier": "plain", "classifier_other": "robust"}
    assert int(agreement["kendall_classifiers_count"].sel(across)) == 4
    assert int(agreement["kendall_count"].sel(classifier="plain", metric="less", metric_other="less")) == 5
    assert int(agreement["spearman_count"].sel(metric="less", metric_other="less")) == 10
    # The control is last on the second classifier alone, e before it.
    means = few["mean"].where(few["rank"].notnull()).transpose("classifier", "metric", "method")
    few["rank"] = means.copy(data=rank(means.values, better="lower"))
    placed = control_table(few, [("control", "e")]).squeeze()
    assert [int(placed[name]) for name in ("cases", "last", "second_last")] == [1, 1, 1]
