"""Curves with bands, one small chart per method family: along the fraction of changed pixels, or step by step."""

from typing import Any, NamedTuple

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from atlas.report.charts.theme import (
    EDGE,
    INK,
    LONGEST,
    SMALL,
    SOFT,
    breadth,
    fit,
    marker,
    series,
    shortened,
    style,
    svg,
)

WIDTH, HEIGHT = 3.7, 2.25  # inches, without the legend
COLUMNS, LINE, KEY, GAP = 2, 0.19, 0.28, 0.1  # legend: columns; inches of a line, of a key and beside it
SPILL = 1  # inches by which a legend of two columns may widen a chart
BESIDE = 0.08  # of a step, left and right, for half a marker
# The meaning of the fraction, if it is not the share of changed pixels.
ALONG = {"randomization": "fraction of the classifier drawn anew"}


class Line(NamedTuple):
    """One method's mean curve with its band."""

    name: str
    mean: np.ndarray
    low: np.ndarray
    high: np.ndarray


class Frame(NamedTuple):
    """The axes of a chart: positions along x, their labels if they are steps, limits of y, y by chance."""

    x: np.ndarray
    steps: list[str]
    across: str
    up: str
    bottom: float
    top: float
    chance: float | None = None


def curves(table: xr.Dataset, metric: str, classifier: str) -> list[tuple[str, str]]:
    """Draw the mean curves of each family's methods, the controls dashed behind them.

    Args:
        table: Mean, low and high over classifier, method, metric and fraction.
        metric: The metric's name.
        classifier: The classifier's name.

    Returns:
        Family and chart; families without a defined curve are left out.
    """
    one = table.sel(metric=metric, classifier=classifier).dropna("fraction", how="all", subset=["mean"])
    values = {name: one[name].transpose("method", "fraction").values for name in ("mean", "low", "high")}
    names, families = one["method"].values.tolist(), one["method_family"].values
    defined = ~np.isnan(values["mean"]).all(axis=1)
    units, metric_family = str(one["metric_units"].values), str(one["metric_family"].values)
    bottom, top = (
        float(end(np.where(np.isnan(values[name]), values["mean"], values[name]), initial=0))
        for name, end in (("low", np.nanmin), ("high", np.nanmax))
    )

    def lines(chosen: np.ndarray) -> list[Line]:
        columns = [values[name] for name in ("mean", "low", "high")]
        return [Line(names[at], *(column[at] for column in columns)) for at in np.flatnonzero(chosen & defined)]

    controls = lines(one["control"].values)
    across, up = ALONG.get(metric_family, "fraction of pixels changed"), "" if units == "1" else units
    frame = Frame(one["fraction"].values, [], across, up, bottom, top)
    found = []
    for family in dict.fromkeys(families.tolist()):
        members = lines(families == family)
        if family != "control" and members:
            last = ", ".join(line.name for line in members)
            alt = f"Mean curves with bands of {last}, and of the controls, dashed."
            found.append((family, chart(frame, members, controls, f"{metric}_{classifier}_{family}", alt)))
    return found


def chart(frame: Frame, members: list[Line], controls: list[Line], name: str, alt: str) -> str:
    """Draw lines with bands, the controls dashed behind them, with a legend below.

    Args:
        frame: The axes.
        members, controls: The lines, over the positions of the frame.
        name: A unique name of the chart.
        alt: Its alternative text.
    """
    with style(name):
        columns = _columns([line.name for line in (*controls, *members)])
        beneath = LINE * max(map(len, columns), default=0)
        figure = Figure(figsize=(max(WIDTH, sum(map(_across, columns)) + 2 * EDGE), HEIGHT + beneath))
        axes = figure.add_subplot()
        _legend(figure, _draw(axes, frame.x, members, controls), columns)
        if frame.chance is not None:
            axes.axhline(frame.chance, color=INK, lw=0.9, ls=(0, (3, 2)), zorder=1)
        if frame.steps:
            _intervals(axes, frame.x, members)
            axes.set_xlim(frame.x[0] - BESIDE, frame.x[-1] + BESIDE)
            axes.set_xticks(frame.x, frame.steps)
        else:
            axes.set_xlim(0, 1)
        axes.set_ylim(frame.bottom, frame.top * 1.03)
        axes.set_xlabel(frame.across)
        axes.set_ylabel(frame.up)
        fit(axes, beneath=beneath)
        return svg(figure, alt)


def _draw(axes: Axes, x: np.ndarray, members: list[Line], controls: list[Line]) -> dict[str, dict[str, Any]]:
    """Draw all lines; return the style of each."""
    looks: dict[str, dict[str, Any]] = {}
    for number, line in enumerate(controls):
        looks[line.name] = {"color": SOFT, "lw": 1, "ls": (0, (1 + 3 * number, 2))}
        axes.plot(x, line.mean, zorder=1, **looks[line.name])
    for number, line in enumerate(members):
        axes.fill_between(x, line.low, line.high, color=series(number), alpha=0.18, lw=0)
        every = max(1, len(x) // 6)
        looks[line.name] = {"color": series(number), "lw": 1.5, "marker": marker(number), "ms": 4}
        axes.plot(x, line.mean, zorder=3, markevery=(number * every // 4 % every, every), **looks[line.name])
    return looks


def _intervals(axes: Axes, x: np.ndarray, members: list[Line]) -> None:
    """Draw the interval of a step as a bar if neighboring steps have none, so that there is no band."""
    for number, line in enumerate(members):
        known = ~np.isnan(line.low)
        if known.any():
            axes.vlines(x[known], line.low[known], line.high[known], color=series(number), lw=0.8, zorder=2)


def _columns(names: list[str]) -> list[list[str]]:
    """Divide the names of the lines into the columns of the legend; names too long for two columns get a single one."""
    rows = max(1, -(-len(names) // COLUMNS))
    columns = [names[start : start + rows] for start in range(0, len(names), rows)]
    return columns if sum(map(_across, columns)) <= WIDTH + SPILL else [names]


def _across(column: list[str]) -> float:
    """Return the width in inches of a column of the legend."""
    return KEY + 2 * GAP + max(breadth(shortened(name, SMALL, LONGEST), SMALL) for name in column)


def _legend(figure: Figure, looks: dict[str, dict[str, Any]], columns: list[list[str]]) -> None:
    """Draw a legend at the bottom, column by column; matplotlib's own legend takes as long as the rest of a chart."""
    width, height = figure.get_size_inches()
    rows, widths = max(map(len, columns), default=0), list(map(_across, columns))
    left = max(EDGE, (width - sum(widths)) / 2)
    for column, step in zip(columns, widths, strict=True):
        for row, name in enumerate(column):
            y = (EDGE + LINE * (rows - row - 0.5)) / height
            x = np.array([left, left + KEY / 2, left + KEY]) / width
            figure.add_artist(Line2D(x, [y, y, y], markevery=[1], **looks[name]))
            message = shortened(name, SMALL, LONGEST)
            figure.text((left + KEY + GAP) / width, y, message, va="center_baseline", fontsize=SMALL)
        left += step
