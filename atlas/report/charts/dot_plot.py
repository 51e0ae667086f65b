"""Dots with intervals, one row per method, one color per classifier: ranks and scores."""

from typing import Any, NamedTuple

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter

from atlas.report.charts.theme import (
    INK,
    LONGEST,
    PAPER,
    SOFT,
    TEXT,
    fit,
    locate,
    marker,
    series,
    shortened,
    style,
    svg,
)
from atlas.report.sorting import RAISED, leading

WIDTH, ROW = 4.5, 0.225
BLANK = 7  # points


class Row(NamedTuple):
    """One method's dots: value and interval by classifier, NaN if there is none."""

    name: str
    control: bool
    value: list[float]
    low: list[float]
    high: list[float]


def rows(table: xr.Dataset, value: str, low: str, high: str, order: list[str]) -> list[Row]:
    """Return rows for methods in an order, from a table over classifier and method."""
    chosen = table[[value, low, high, "control"]].sel({"method": order}).transpose("method", ...)
    columns = [chosen[column].values.reshape(len(order), -1).tolist() for column in (value, low, high)]
    return [Row(*row) for row in zip(order, chosen["control"].values.tolist(), *columns, strict=True)]


def mean_ranks(summary: xr.Dataset, order: list[str]) -> str:
    """Draw the mean rank of each method over all metrics: on each classifier in color, and over all in black."""
    classifiers = summary["classifier"].values.tolist()
    by_classifier = rows(summary, "mean_rank", "mean_rank_low", "mean_rank_high", order)
    overall = rows(summary, "overall_rank", "overall_rank_low", "overall_rank_high", order)
    with style("mean_rank"):
        figure, axes = _axes(len(order), ROW * 1.5)
        draw(axes, by_classifier, spread=0.3 if len(classifiers) > 1 else 0.26)
        blanks(axes, by_classifier, SOFT)
        if len(classifiers) > 1:
            places = np.arange(len(order))
            lines(axes, overall, 0, places, color=INK, lw=1.8, zorder=4)
            marks(axes, overall, 0, places, INK, PAPER, marker="o", ms=6, mew=1.4, zorder=5)
        axes.set_xlabel("mean rank over metrics  (1 is best)")
        locate(axes.xaxis, integer=True)
        _names(axes, by_classifier)
        ranked = [row for row in overall if row.name in leading(summary)]
        best = ", ".join(f"{row.name} {row.value[0]:.1f}" for row in ranked[:3])
        return svg(figure, f"Mean rank of {len(order)} methods, best first: {best} and so on, with intervals.")


def metric(summary: xr.Dataset, name: str, order: list[str]) -> str:
    """Draw the mean scores of every method by one metric, classifiers side by side."""
    table = summary.sel(metric=name)
    listed = rows(table, "mean", "low", "high", order)
    with style(f"metric_{name}"):
        figure, axes = _axes(len(order), ROW)
        draw(axes, listed, spread=0.26)
        blanks(axes, listed, SOFT)
        values = np.array([row.value for row in listed])
        scale(axes, values[~np.isnan(values)])
        better, units = str(table["better"].values), str(table["metric_units"].values)
        arrow = "better →" if better == "higher" else "← better"
        axes.set_xlabel(f"mean{'' if units == '1' else ', ' + units}   ({arrow})")
        _names(axes, listed)
        means = ", ".join(f"{row.name} {_spelled(row.value)}" for row in listed[:3])
        return svg(figure, f"{name}: mean scores of {len(order)} methods with intervals, best first: {means}.")


def draw(axes: Axes, listed: list[Row], *, spread: float) -> None:
    """Draw one row per method; classifiers side by side within a row; controls hollow."""
    number = len(listed[0].value) if listed else 0
    step = min(spread, 0.66 / max(1, number))
    places = np.arange(len(listed))
    for place, row in enumerate(listed):
        if row.control:
            axes.axhspan(place - 0.5, place + 0.5, color=SOFT, alpha=0.08, lw=0)
    for which in range(number):
        at = places + (which - (number - 1) / 2) * step
        lines(axes, listed, which, at, color=series(which), lw=1.3, zorder=2)
        size = 3.4 if number > 3 else 4.4
        marks(axes, listed, which, at, series(which), PAPER, marker=marker(which), ms=size, mew=1.2, zorder=3)


def lines(axes: Axes, listed: list[Row], which: int, at: np.ndarray, **look: Any) -> None:
    """Draw one classifier's intervals, where they exist."""
    ends = np.array([(row.low[which], row.high[which]) for row in listed])
    known = ~np.isnan(ends).any(axis=1)
    axes.hlines(at[known], *ends[known].T, capstyle="butt", **look)


def marks(axes: Axes, listed: list[Row], which: int, at: np.ndarray, color: str, paper: str, **look: Any) -> None:
    """Draw one classifier's dots, controls hollow."""
    values = np.array([row.value[which] for row in listed])
    control = np.array([row.control for row in listed])
    for chosen, face in ((~control, color), (control, paper)):
        axes.plot(values[chosen], at[chosen], ls="none", mfc=face, mec=color, **look)


def blanks(axes: Axes, listed: list[Row], color: str) -> None:
    """Write n/a at the left edge of each row that has no dot."""
    transform = axes.get_yaxis_transform()
    for place, row in enumerate(listed):
        if np.isnan(row.value).all():
            axes.text(0.01, place, "n/a", transform=transform, color=color, fontsize=BLANK, ha="left", va="center")


def _axes(number: int, row: float) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(WIDTH, number * row + 0.62))
    axes = figure.add_subplot()
    axes.set_ylim(number - 0.4, -0.6)
    axes.set_yticks([])
    axes.spines["left"].set_visible(False)
    return figure, axes


def _names(axes: Axes, listed: list[Row]) -> None:
    transform, vertical, horizontal = axes.get_yaxis_text1_transform(axes.yaxis.get_tick_padding())
    names = [shortened(row.name, TEXT, LONGEST) for row in listed]
    for place, (name, row) in enumerate(zip(names, listed, strict=True)):
        look: dict[str, Any] = {"color": SOFT, "style": "italic"} if row.control else {}
        axes.text(0, place, name, transform=transform, va=vertical, ha=horizontal, **look)
    fit(axes, names=names)


def scale(axes: Axes, values: np.ndarray) -> None:
    """Use a logarithmic axis if means span powers of ten."""
    if values.size and values.min() > 0 and values.max() > 300 * values.min():
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter(_power)
        axes.xaxis.set_minor_formatter(NullFormatter())
    else:
        locate(axes.xaxis, nbins=6)


def _power(value: float, _: object) -> str:
    """Format a power of ten, without matplotlib's math text."""
    return f"10{str(round(np.log10(value))).translate(RAISED)}"


def _spelled(values: list[float]) -> str:
    return "/".join("n/a" if np.isnan(value) else f"{value:.3g}" for value in values)
