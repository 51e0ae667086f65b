"""The section that compares classifiers: what is in its boxes, who is on a front, and its charts."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import xarray as xr

from atlas.report.charts import boxes, fronts, heat
from atlas.report.sections import compared
from atlas.statistics import boxes as statistics
from atlas.statistics.comparisons.groups import compare
from tests.support.drawn import inside
from tests.support.paired import BETTER, MADE_UP, METHODS, PAIRS, made_up, printed
from tests.support.printed_tables import table

# Of the paper's classifiers and of the made-up ones.
ACCURACY = {**(table("robust_classifiers")["top1"] / 100).to_dict(), "plain": 0.4, "robust": 0.5}


def comparison(summary: xr.Dataset, groups: list[list[str]]) -> xr.Dataset:
    known = {"accuracy": ACCURACY, "adversarial_accuracy": dict.fromkeys(ACCURACY, np.nan)}
    accuracies = {name: {key: value[name] for key, value in known.items()} for name in summary["classifier"].values}
    found = compare(summary, groups, rule="permutation").merge(
        statistics.fronts(statistics.boxes(summary), summary, accuracies)
    )
    return found.assign_attrs(same_images=groups, reach=statistics.REACH)


def section(summary: xr.Dataset, groups: list[list[str]]) -> dict | None:
    with ThreadPoolExecutor(1) as processes:  # matplotlib's settings are those of one thread
        return compared.section(summary, comparison(summary, groups), processes)


def standings(summary: xr.Dataset, groups: list[list[str]], metric: str) -> list[fronts.Standing]:
    return fronts.standings(comparison(summary, groups), summary["dataset"].values.tolist(), metric)


def test_boxes_hold_the_percentiles_and_the_points_of_the_methods_that_have_a_mean():
    found = comparison(made_up(), [["plain", "robust"]])
    every, gradient, cam = boxes.rows(made_up(), found, "less", ["robust", "plain"])
    assert [row.family for row in (every, gradient, cam)] == ["all", "gradient", "cam"]
    robust, plain = every.boxes
    assert plain.values == [ends[0] for name, ends in MADE_UP.items() if name != "control"]
    assert robust.values == [1, 2, 3, 5]
    assert (robust.left_out, plain.left_out) == (["b"], [])
    for box in (robust, plain, gradient.boxes[0]):
        np.testing.assert_allclose([box.first, box.median, box.third], np.percentile(box.values, [25, 50, 75]))
    assert gradient.boxes[0].left_out == ["b"]
    assert (robust.whole, gradient.boxes[1].whole) == (True, False)
    assert not np.isnan(every.p[0])
    assert np.isnan(gradient.p[0])  # three methods, of which two are scored on both
    assert boxes.formatted(gradient.p) == ""
    assert boxes.formatted([0.04, np.nan]) == "p 0.040, n/a"


def test_a_family_without_a_mean_has_no_row_and_a_metric_without_one_no_board():
    gone = made_up()
    gone["mean"].loc[{"method": ["d", "e"]}] = np.nan
    listed = boxes.rows(gone, comparison(gone, [["plain", "robust"]]), "less", ["plain", "robust"])
    assert [row.family for row in listed] == ["all", "gradient"]
    assert section(made_up(), [["plain", "robust"]])["boards"]
    gone["mean"][:] = np.nan
    assert section(gone, [["plain", "robust"]])["boards"] == []


def test_classifiers_that_are_evaluated_on_the_same_images_stand_beside_one_another():
    summary = printed()
    mixed = [name for side in zip(*PAIRS, strict=True) for name in side]  # all plain ones first
    found = section(summary.sel(classifier=[*mixed]), [*PAIRS[:2], ["resnet"]])
    assert found["classifiers"] == ["alexnet", "alexnet_r", "googlenet", "googlenet_r"]
    assert found["pooled"]
    assert [len(row.boxes) for row in found["boards"][0]["rows"]] == [4] * 4
    left = dict(found["boards"][0]["left_out"])
    assert left == {"alexnet": ["cam"], "alexnet_r": ["cam"]}


def cells(summary: xr.Dataset) -> dict[str, heat.Cell]:
    (pair,) = compared.pairs(summary, comparison(summary, [["plain", "robust"]]), ["less"])
    ((_, row),) = pair["rows"]
    return dict(zip(pair["families"], row, strict=True))


def test_changes_are_shaded_by_how_many_more_are_better_than_worse_and_ties_are_told():
    shown = cells(made_up())
    assert list(shown) == ["gradient", "cam", "all"]
    hint = "better for 2 of 4, worse for 1, tied for 1; intervals apart for 3; Mann–Whitney p = 0.86"
    assert shown["all"] == heat.Cell("−1.25\n2 of 4\np 0.86", heat.DEEPEST / 4, False, hint)
    assert (shown["cam"].shade, shown["cam"].negative) == (0, False)
    same = made_up()
    same["mean"].loc[{"classifier": "robust"}] = same["mean"].sel(classifier="plain")
    tied = cells(same)["gradient"]
    assert (tied.text, tied.shade, tied.negative) == ("+0\n0 of 2", 0, False)
    assert tied.hint.startswith("better for 0 of 2, worse for 0, tied for 2;")


def test_families_of_controls_are_known_by_their_methods_not_by_a_name():
    other = made_up()
    families = np.where(other["control"], "nothing", other["method_family"].values)
    other = other.assign_coords(method_family=("method", families))
    assert list(cells(other)) == ["gradient", "cam", "all"]
    listed = boxes.rows(other, comparison(other, [["plain", "robust"]]), "less", ["plain", "robust"])
    assert [row.family for row in listed] == ["all", "gradient", "cam"]


def test_what_is_scored_on_few_images_is_not_ranked_and_that_is_the_reason():
    few = made_up().assign_attrs(min_count=8)
    few["rank"].loc[{"classifier": "robust"}] = np.nan
    why = "no method is ranked on both: that takes 8 or more images, or grids, with a score"
    assert set(cells(few).values()) == {heat.Cell("", 0, False, why)}
    every, *_ = boxes.rows(few, comparison(few, [["plain", "robust"]]), "less", ["plain", "robust"])
    assert [len(box.values) for box in every.boxes] == [5, 0]
    assert every.boxes[1].left_out == ["a", "b", "c", "d", "e"]


def test_without_two_classifiers_on_the_same_images_there_is_no_section():
    assert section(made_up().isel(classifier=[0]), [["plain"]]) is None
    assert section(made_up(), [["plain"], ["robust"]]) is None


@pytest.mark.parametrize("metric", BETTER)
def test_on_a_front_is_whom_no_other_classifier_beats(metric):
    summary = printed()
    listed = standings(summary, PAIRS, metric)
    sign = 1 if BETTER[metric] == "higher" else -1
    medians = {
        name: np.nanmedian(table(f"robust_{metric}").loc[name, METHODS].values) for pair in PAIRS for name in pair
    }
    for one in listed:
        np.testing.assert_allclose(one.median, medians[one.classifier])
        others = [other for other in listed if other is not one]
        beaten = any(
            sign * medians[other.classifier] >= sign * one.median
            and other.accuracies["accuracy"] >= one.accuracies["accuracy"]
            for other in others
        )
        assert one.fronts == {"accuracy": not beaten, "adversarial_accuracy": False}
        assert one.rank == 1 + sum(sign * medians[other.classifier] > sign * one.median for other in others)
    assert 0 < sum(one.fronts["accuracy"] for one in listed) < len(listed)
    # No chart where the accuracy is not known.
    assert fronts.drawn(listed) == [("photos", "accuracy")]


def test_classifiers_of_other_datasets_beat_none_and_two_are_no_chart():
    plain, robust = standings(made_up(), [["plain", "robust"]], "less")
    assert (plain.fronts["accuracy"], robust.fronts["accuracy"]) == (False, True)
    assert fronts.drawn([plain, robust]) == []
    apart = made_up().assign_coords(dataset=("classifier", ["drawings", "photos"]))
    assert all(one.fronts["accuracy"] for one in standings(apart, [["plain"], ["robust"]], "less"))


@pytest.mark.parametrize("number", [2, 10])
def test_all_text_of_the_charts_lies_inside(monkeypatch, number):
    summary = printed().isel(classifier=slice(number))
    groups = PAIRS[: number // 2]
    found = comparison(summary, groups)
    names = [name for pair in groups for name in pair]
    for module in (boxes, fronts):
        monkeypatch.setattr(module, "svg", lambda figure, alt: (figure, alt))
    for metric, better in BETTER.items():
        figure, alt = boxes.chart(boxes.rows(summary, found, metric, names), list(range(number)), metric, better, "1")
        assert inside(figure)
        assert alt.startswith(f"{metric}, {better} is better: boxes")
        listed = standings(summary, groups, metric)
        figure, alt = fronts.chart(listed, "photos", "accuracy", metric, better)
        assert inside(figure)
        assert f"the median by {metric} on photos; on the front: " in alt


def test_a_box_is_drawn_from_quartile_to_quartile(monkeypatch):
    found = comparison(made_up(), [["plain", "robust"]])
    monkeypatch.setattr(boxes, "svg", lambda figure, alt: figure)
    listed = boxes.rows(made_up(), found, "less", ["plain", "robust"])
    (axes,) = boxes.chart(listed, [0, 1], "less", "lower", "1").axes
    bars = [bar for container in axes.containers for bar in container]
    assert len(bars) == 2  # families are small
    for bar, box in zip(bars, listed[0].boxes, strict=True):
        assert (bar.get_x(), bar.get_x() + bar.get_width()) == pytest.approx((box.first, box.third))
    points = sorted(float(x) for line in axes.lines for x in line.get_xdata() if line.get_marker() in ("o", "s"))
    assert points == sorted(value for row in listed for box in row.boxes for value in box.values)


def test_charts_of_fronts_are_drawn_from_three_classifiers_on():
    summary = printed().sel(classifier=["resnet", "resnet_r", "densenet", "densenet_r"])
    found = section(summary, PAIRS[2:3] + PAIRS[4:])
    assert found["traded"]
    assert all(len(one["fronts"]) == 1 for one in found["boards"])
    found = section(summary.isel(classifier=slice(2)), PAIRS[2:3])
    assert not found["traded"]
    assert found["boards"][0]["chart"].startswith('<svg role="img" aria-label="pointing, higher is better: boxes')
