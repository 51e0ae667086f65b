"""The answer in words says no more than the numbers do."""

import numpy as np
import pytest
import xarray as xr

from atlas.report.sections import summary_text
from atlas.results.plots import write
from atlas.statistics.costs import cost_table
from atlas.statistics.rankings.overall import missing_rankings, orders

METHODS = ["first", "second", "third", "part", "null"]


@pytest.fixture
def summary() -> xr.Dataset:
    """Two metrics on two classifiers; `part` is first by one of the four rankings and has no other."""
    ranks = np.array([[[2, 1], [3, 2], [4, 3], [1, np.nan], [5, 4]], [[1, 1], [2, 2], [3, 3], [np.nan] * 2, [4, 4]]])
    means = np.nanmean(ranks.transpose(1, 0, 2).reshape(5, 4), axis=1)
    dims = ("classifier", "method", "metric")
    coords = {"classifier": ["one", "two"], "method": METHODS, "metric": ["x", "y"]}
    table = xr.Dataset({"rank": (dims, ranks)}, coords).assign_coords(
        control=("method", [False] * 4 + [True]),
        method_family=("method", ["f"] * 4 + ["control"]),
        role=("metric", ["metric"] * 2),
        metric_family=("metric", ["g", "h"]),
    )
    for end, by in (("", 0), ("_low", -0.2), ("_high", 0.2)):
        table[f"overall_rank{end}"] = ("method", means + by)
        table[f"mean_rank{end}"] = table["rank"].mean("metric") + by
    table["overall_rank_metrics"] = table["rank"].notnull().sum(["classifier", "metric"])
    table["mean_rank_metrics"] = table["rank"].notnull().sum("metric")
    table["overall_rank_methods"] = 5
    for name in ("overall_rank", "mean_rank"):
        table[f"{name}_otherwise"] = table[name]
    table = table.assign(missing_rankings(table["rank"]))
    return table.assign(orders(table)).assign_attrs(bootstrap={"level": 0.95}, weights="families")


def test_a_ranking_that_others_have_is_lacked_and_a_controls_is_not(summary):
    assert summary["overall_rank_lacking"].values.tolist() == [0, 0, 0, 3, 0]
    assert summary["mean_rank_lacking"].sel({"method": "part"}).values.tolist() == [1, 2]
    assert summary["family_rank_lacking"].sel({"method": "part"}).values.tolist() == [[0, 1], [1, 1]]
    alone = summary["rank"].copy()
    alone.loc[{"metric": "y", "method": METHODS[:4]}] = np.nan
    assert missing_rankings(alone)["overall_rank_lacking"].values.tolist() == [0, 0, 0, 1, 0]


def test_who_lacks_most_rankings_is_not_on_the_front_and_beats_no_other(summary):
    passes = xr.Dataset({kind: ("method", [1.0] * 5) for kind in ("forward", "backward", "head")}, {"method": METHODS})
    assert cost_table({"one": passes}, {}, summary, [])["front"].values.tolist() == [[0, 0, 0, 1, 0], [0] * 5]
    summary["mean_rank_mostly"].loc[{"method": "part"}] = 0
    assert cost_table({"one": passes}, {}, summary, [])["front"].values.tolist() == [[1, 0, 0, 0, 0], [0] * 5]


def test_only_a_method_that_has_most_rankings_leads(summary):
    first, other = summary_text._leader(summary)
    assert first == (
        "first has the best mean rank: 1.2 of 5 methods over 4 rankings by 2 metrics on 2 classifiers "
        "(95% interval 1.1 to 1.4)."
    )
    assert other == "No other method’s interval overlaps with its own."
    assert summary_text.partly(summary) == ["part (1 of 4 rankings)"]


def test_a_method_that_lacks_a_ranking_or_two_leads_all_the_same(summary):
    assert summary["overall_rank_mostly"].values.tolist() == [1, 1, 1, 0, 1]
    summary["overall_rank_lacking"].loc[{"method": "first"}] = 4
    assert summary_text._leader(summary)[0].startswith("first has the best mean rank: 1.2 of 5 methods over 4 rankings")
    summary["overall_rank_mostly"].loc[{"method": "first"}] = 0
    assert summary_text._leader(summary)[0].startswith("second has the best mean rank")


def test_it_is_told_how_much_the_order_depends_on_what_counts_the_same(summary):
    assert summary_text._weights(summary) == [
        "In a mean rank all families of metrics count the same; if single metrics did, its order would agree with this "
        "one with a Kendall τ of 1.0 and first would come first."
    ]
    ranks = summary["overall_rank"].values
    turned = summary.assign(overall_rank_otherwise=("method", 6 - ranks))
    said = summary_text._weights(turned.assign(orders(turned)).assign_attrs(weights="metrics"))
    assert said[0].startswith("In a mean rank all single metrics count the same; if families of metrics did,")
    assert said[0].endswith("a Kendall τ of −1.0 and null would come first.")


def test_where_all_methods_lack_most_rankings_none_leads(summary):
    summary["overall_rank_lacking"] = summary["overall_rank_metrics"] + 4
    summary["overall_rank_mostly"] = 0 * summary["overall_rank_mostly"]
    assert summary_text._leader(summary) == [
        "No method has half of the 6 rankings, so that none can be said to lead. part has the best mean rank: 1.0 over "
        "1 of them (95% interval 0.8 to 1.2)."
    ]


def test_intervals_overlap_and_nothing_follows_from_it(summary):
    summary["overall_rank_high"].loc[{"method": "first"}] = 2.1
    assert summary_text._leader(summary)[1] == "The interval of second overlaps with its own."
    summary["overall_rank_high"].loc[{"method": "first"}] = 3.3
    assert summary_text._leader(summary)[1] == "The intervals of second and third overlap with its own."


def test_places_are_shared_and_who_lacks_rankings_has_none(summary):
    lines = [line.split(" | ") for line in summary_text.leaderboard(summary).splitlines()[2:]]
    assert [(line[0], line[1], line[4]) for line in lines] == [
        ("| ", "`part`", "1 of 4"),
        ("| 1", "`first`", "4"),
        ("| 2", "`second`", "4"),
        ("| 3", "`third`", "4"),
        ("| 4", "`null`", "4"),
    ]
    summary["overall_rank"].loc[{"method": "second"}] = summary["overall_rank"].sel({"method": "first"}) * (1 + 1e-15)
    lines = [line.split(" | ") for line in summary_text.leaderboard(summary).splitlines()[2:]]
    assert [line[0] for line in lines] == ["| ", "| 1", "| 1", "| 3", "| 4"]


def test_a_difference_of_mean_ranks_is_told_where_there_is_one_at_all(summary):
    numbers = {"friedman_p": [0.003, 0.2], "friedman_metrics": [30, 1], "friedman_methods": [12, 13]}
    numbers["critical_difference"] = [3.14, 2.0]
    table = summary.assign({name: ("classifier", values) for name, values in numbers.items()})
    assert summary_text.omnibus(table) == [
        "On one the ranks of the 12 methods, controls left out, that each of 30 metrics ranks differ by more than "
        "chance (Friedman’s test, "
        "p = 0.0030); two of their mean ranks over these metrics, ties at the average of their ranks, differ where "
        "they are more than 3.1 apart (Nemenyi).",
        "On two the ranks of the 13 methods, controls left out, that each of 1 metric ranks do not differ by more "
        "than chance (Friedman’s "
        "test, p = 0.20).",
    ]


def test_agreement_below_zero_has_a_minus(summary):
    tau = np.array([[[1.0, -0.25], [-0.25, 1.0]]])
    dims = ("classifier", "metric", "metric_other")
    agreement = xr.Dataset({"kendall": (dims, tau), "kendall_classifiers_mean_off_diagonal": ("metric", [-0.5, -0.5])})
    assert summary_text._agreement(agreement) == [
        "Two metrics order the methods alike with a Kendall τ of −0.25 on average (−0.25 to −0.25).",
        "Two classifiers order them alike with a τ of −0.50 on average over metrics.",
    ]


def test_a_point_of_a_curve_without_an_interval_is_kept(summary, tmp_path):
    points = {"mean": [0.5, 0.4, np.nan], "low": [0.4, np.nan, np.nan], "high": [0.6, np.nan, np.nan]}
    dims = ("classifier", "method", "metric", "fraction")
    shaped = {name: (dims, np.array(values).reshape(1, 1, 1, 3)) for name, values in points.items()}
    coords = {"classifier": ["one"], "method": ["first"], "metric": ["x"], "fraction": [0.0, 0.5, 1.0]}
    cells = {name: summary["rank"] for name in ("mean", "low", "high", "count")}
    columns = {"letters": "", "better": "higher", "unit": "image"}
    table = summary[["rank", "mean_rank", "mean_rank_low", "mean_rank_high"]].assign(cells)
    table = table.assign_coords({name: (("metric"), [value] * 2) for name, value in columns.items()})
    write(table, xr.Dataset(shaped, coords).assign_coords(metric_family=("metric", ["g"])), tmp_path)
    lines = (tmp_path / "curves" / "g.csv").read_text().splitlines()
    assert lines[1:] == ["x,one,first,0,0.5,0.4,0.6", "x,one,first,0.5,0.4,nan,nan"]
