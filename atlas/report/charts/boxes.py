"""Box plots of mean scores: one row per family of methods, one box per classifier, and the methods as points."""

from typing import Any, NamedTuple

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure

from atlas.report.charts.dot_plot import scale
from atlas.report.charts.theme import FAINT, SMALL, SOFT, TEXT, fit, marker, series, style, svg
from atlas.report.sorting import digits

# With fewer values per group, the Mann-Whitney test cannot fall below 0.05, and quartiles lie between two values.
FEWEST = 4
EVERY = "all"  # the family of every method except controls
WIDTH, BOX, LINES = 4.5, 0.16, 0.36  # inches: a chart's width, a box's height, and a row's two lines of text
BESIDE = 0.14  # inches between the boxes of two rows


class Box(NamedTuple):
    """The mean scores of a family's ranked methods on a classifier, with quartiles and whiskers; NaN without any."""

    median: float
    first: float
    third: float
    low: float
    high: float
    values: list[float]
    left_out: list[str]  # methods of the family that are not ranked

    @property
    def whole(self) -> bool:
        """Whether there are enough methods for quartiles."""
        return len(self.values) >= FEWEST


class Row(NamedTuple):
    """A family's boxes, one per classifier, and the p-value of each comparison, NaN if a side has too few methods."""

    family: str
    boxes: list[Box]
    p: list[float]


def families(summary: xr.Dataset) -> list[str]:
    """Return the families of the methods that are no controls."""
    return list(dict.fromkeys(summary["method_family"].values[~summary["control"].values].tolist()))


def rows(summary: xr.Dataset, comparison: xr.Dataset, metric: str, classifiers: list[str]) -> list[Row]:
    """Return the boxes of one metric: for all methods except controls, then for each family with a ranked method.

    Args:
        summary: Mean scores and ranks; unranked means are left out.
        comparison: Their quartiles and the tests between classifiers.
        metric: The metric's name.
        classifiers: The classifiers, in order.
    """
    means = summary["mean"].where(summary["rank"].notnull()).sel(metric=metric)
    names, of, control = (summary[name].values for name in ("method", "method_family", "control"))
    columns = ("median", "quartile_low", "quartile_high", "whisker_low", "whisker_high")
    found = []
    for family in (EVERY, *families(summary)):
        chosen = ~control if family == EVERY else of == family
        known = comparison.sel({"metric": metric, "method_family": family})
        boxes = []
        for classifier in classifiers:
            values = means.sel(classifier=classifier).values
            there = chosen & ~np.isnan(values)
            ends = [float(known[name].sel(classifier=classifier)) for name in columns]
            median, first, third, low, high = ends
            left_out = names[chosen & ~there].tolist()
            boxes.append(Box(median, first, third, low, high, values[there].tolist(), left_out))
        if any(box.values for box in boxes):
            p = np.where(known["count"].values >= FEWEST, known["p"].values, np.nan).tolist()
            found.append(Row(family, boxes, p))
    return found


def chart(listed: list[Row], places: list[int], name: str, better: str, units: str) -> str:
    """Draw the boxes of a metric.

    Args:
        listed: The rows.
        places: The series number of each classifier.
        name: The metric's name.
        better: The direction of better scores.
        units: The metric's units.
    """
    high = max(LINES, BOX * len(places) + BESIDE)
    with style(f"boxes_{name}"):
        figure = Figure(figsize=(WIDTH, high * len(listed) + 0.6))
        axes = figure.add_subplot()
        axes.set_ylim(len(listed) - 0.5, -0.5)
        axes.set_yticks([])
        axes.spines["left"].set_visible(False)
        axes.axhspan(-0.5, 0.5, color=SOFT, alpha=0.08, lw=0)
        for at in range(1, len(listed)):
            axes.axhline(at - 0.5, color=FAINT, lw=0.6, zorder=1)
        for number, place in enumerate(places):
            middle = (number - (len(places) - 1) / 2) * BOX / high
            boxes = [row.boxes[number] for row in listed]
            _draw(axes, boxes, middle + np.arange(len(listed)), 0.76 * BOX / high, place)
        scale(axes, np.array([value for row in listed for box in row.boxes for value in box.values]))
        arrow = "better →" if better == "higher" else "← better"
        axes.set_xlabel(f"mean{'' if units == '1' else ', ' + units}   ({arrow})")
        _names(axes, listed, high)
        return svg(figure, _message(listed, name, better))


def formatted(p: list[float]) -> str:
    """Format the p-values of a row, if there are any."""
    known = ["n/a" if np.isnan(one) else digits(one, 2) for one in p]
    return f"p {', '.join(known)}" if set(known) != {"n/a"} else ""


def _draw(axes: Axes, boxes: list[Box], middles: np.ndarray, height: float, place: int) -> None:
    """Draw one classifier's boxes; with few methods only the median and the points."""
    color = series(place)
    for box, middle in zip(boxes, middles.tolist(), strict=True):
        if not box.values:
            continue
        if box.whole:
            look: dict[str, Any] = {
                "height": height,
                "facecolor": to_rgba(color, 0.2),
                "edgecolor": color,
                "lw": 0.9,
                "zorder": 2,
            }
            axes.barh(middle, box.third - box.first, left=box.first, **look)
            axes.hlines([middle] * 2, [box.low, box.third], [box.first, box.high], color=color, lw=0.9, zorder=2)
        half = height * (0.5 if box.whole else 0.4)
        axes.vlines(box.median, middle - half, middle + half, color=color, lw=2.2, zorder=3)
    points = [
        (value, middle + height * 0.62 * _aside(number))
        for box, middle in zip(boxes, middles.tolist(), strict=True)
        for number, value in enumerate(sorted(box.values))
    ]
    axes.plot(*np.array(points).reshape(-1, 2).T, marker(place), ls="none", ms=3.2, color=color, mew=0, zorder=4)


def _aside(number: int) -> float:
    """Return the offset of a box's n-th point, from -0.5 to 0.5, so that equal points do not hide one another."""
    return (number * 0.618 + 0.5) % 1 - 0.5


def _names(axes: Axes, listed: list[Row], high: float) -> None:
    """Name the rows, with the p-values below."""
    transform, _, horizontal = axes.get_yaxis_text1_transform(axes.yaxis.get_tick_padding())
    names = ["all methods" if row.family == EVERY else row.family for row in listed]
    tests = [formatted(row.p) for row in listed]
    line = TEXT / 72 / high
    for place, (name, test) in enumerate(zip(names, tests, strict=True)):
        look: dict[str, Any] = {"transform": transform, "ha": horizontal, "va": "center_baseline"}
        axes.text(0, place - (0.6 * line if test else 0), name, **look)
        axes.text(0, place + 0.6 * line, test, color=SOFT, fontsize=SMALL, **look)
    fit(axes, names=names + tests)


def _message(listed: list[Row], name: str, better: str) -> str:
    medians = "; ".join(
        f"{row.family} {'/'.join('n/a' if np.isnan(box.median) else digits(box.median, 3) for box in row.boxes)}"
        for row in listed
    )
    return f"{name}, {better} is better: boxes of the methods’ mean scores by classifier; medians: {medians}."
