"""Costs of methods against their ranks: passes per map on a logarithmic scale, with 0 passes at its left end."""

from concurrent.futures import Executor
from itertools import repeat
from typing import Any, NamedTuple

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from atlas.report.charts.theme import (
    FAINT,
    INK,
    PAPER,
    SMALL,
    SOFT,
    breadth,
    keys,
    marker,
    series,
    shortened,
    style,
    svg,
)
from atlas.report.charts.tradeoff import DOT, LINE, box, free

WIDTH, HEIGHT = 4.6, 4.0
# Inches around the axes.
LEFT, BOTTOM, RIGHT, TOP = 0.5, 0.52, 0.12, 0.1
# Powers of ten: the position of 0 passes, the start of the scale, and the margin beyond the data.
ZERO, BEGINS, BEYOND = -0.7, -0.35, 0.2
RANKS = 0.6  # margin beyond the best and the worst
FIELDS = ("forward", "backward", "head")


class Costly(NamedTuple):
    """A method's passes per map, and its mean rank with its interval; NaN if there is none."""

    method: str
    family: str
    control: bool
    forward: float
    backward: float
    head: float
    rank: float
    low: float
    high: float
    front: bool

    @property
    def passes(self) -> float:
        """Forward and backward passes together."""
        return self.forward + self.backward

    @property
    def known(self) -> bool:
        """Whether the method has a place."""
        return not np.isnan(self.passes + self.rank)


def section(cost: xr.Dataset, summary: xr.Dataset, processes: Executor) -> dict[str, Any]:
    """Return a chart, a table of methods and one of metrics for each classifier on which a cost is known."""
    controls, of = (summary[column].values.tolist() for column in ("control", "method_family"))
    families = list(dict.fromkeys(family for family, control in zip(of, controls, strict=True) if not control))
    listed = {name: costly(cost, summary, name) for name in summary["classifier"].values.tolist()}
    listed = {name: rows for name, rows in listed.items() if any(not np.isnan(one.passes) for one in rows)}
    charts = processes.map(chart, listed.values(), repeat(families), listed)
    shown = [
        {
            "classifier": name,
            "chart": drawn,
            "rows": rows,
            "metrics": metric_costs(cost, name),
            **excluded(summary, rows, name),
        }
        for (name, rows), drawn in zip(listed.items(), charts, strict=True)
    ]
    return {"shown": shown, "families": keys(families), "controls": any(controls)}


def costly(cost: xr.Dataset, summary: xr.Dataset, classifier: str) -> list[Costly]:
    """Return the methods with the passes of a map on a classifier, the best mean rank first, those without one last."""
    passes, ranks = cost.sel(classifier=classifier), summary.sel(classifier=classifier)
    columns = [ranks[name].values.tolist() for name in ("method", "method_family", "control")]
    columns += [passes[f"method_{kind}"].values.tolist() for kind in FIELDS]
    columns += [ranks[f"mean_rank{end}"].values.tolist() for end in ("", "_low", "_high")]
    columns += [passes["front"].values.astype(bool).tolist()]
    return sorted(
        (Costly(*row) for row in zip(*columns, strict=True)), key=lambda one: np.nan_to_num(one.rank, nan=np.inf)
    )


def excluded(summary: xr.Dataset, rows: list[Costly], classifier: str) -> dict[str, list[str]]:
    """Return the methods without a place in a chart, and those in it that lack more rankings than they have."""
    whole = summary["mean_rank_mostly"].sel(classifier=classifier)
    partly = [one.method for one in rows if one.known and not one.control and not whole.sel({"method": one.method})]
    return {"absent": [one.method for one in rows if not one.known], "partly": partly}


def metric_costs(cost: xr.Dataset, classifier: str) -> list[tuple[str, list[float]]]:
    """Return the metrics that score a method on a classifier: passes per score, and the maps that it requests."""
    one = cost.sel(classifier=classifier)
    columns = zip(*(one[f"metric_{kind}"].values.tolist() for kind in (*FIELDS, "explained")), strict=True)
    found = zip(one["metric"].values.tolist(), map(list, columns), strict=True)
    return [(name, numbers) for name, numbers in found if not np.isnan(numbers).any()]


def chart(listed: list[Costly], families: list[str], classifier: str) -> str:
    """Draw methods by passes and mean rank with its interval; the front is a line, and its methods are named.

    Args:
        listed: Methods; those without a place are left out.
        families: The families, each a color and a marker; controls are hollow.
        classifier: Its name.
    """
    placed = [one for one in listed if one.known]
    best = sorted((one for one in placed if one.front), key=lambda one: one.passes)
    with style(f"cost_{classifier}"):
        figure = Figure(figsize=(WIDTH, HEIGHT))
        width, height = WIDTH - LEFT - RIGHT, HEIGHT - BOTTOM - TOP
        axes = figure.add_axes((LEFT / WIDTH, BOTTOM / HEIGHT, width / WIDTH, height / HEIGHT))
        _scales(axes, placed)
        for one in placed:
            _dot(axes, one, 0 if one.control else families.index(one.family))
        if best:
            x, y = [place(one.passes) for one in best], [one.rank for one in best]
            axes.step([*x, axes.get_xlim()[1]], [*y, y[-1]], where="post", color=SOFT, lw=1.2, zorder=1.5)
            _names(axes, best, placed, (72 * width, 72 * height))
        axes.set_xlabel("forward and backward passes of one map  (← fewer)")
        axes.set_ylabel("mean rank over metrics  (1 is best)")
        many = [f"{one.passes:.0f} pass{'es' * (one.passes != 1)}" for one in best]
        message = [f"{one.method} ({passes}, mean rank {one.rank:.1f})" for one, passes in zip(best, many, strict=True)]
        text = f"on the front, the fewest passes first: {', '.join(message) or 'none'}; numbers in the table beside it."
        return svg(figure, f"Mean rank against passes of one map on {classifier}; {text}")


def place(passes: float) -> float:
    """Return the position of a number of passes in the chart: its power of ten, with 0 apart from the scale."""
    return float(np.log10(passes)) if passes else ZERO


def _scales(axes: Axes, placed: list[Costly]) -> None:
    at = [place(one.passes) for one in placed] or [0.0]
    none, most = ZERO in at, int(np.ceil(max(*at, 1)))
    axes.set_xlim((ZERO if none else 0) - BEYOND, max(*at, 1) + BEYOND)
    powers = [power for power in range(most + 1) if power <= axes.get_xlim()[1]]
    axes.set_xticks([ZERO] * none + powers, ["0"] * none + [f"{10**power:,}" for power in powers])
    if none:
        axes.axvline(BEGINS, color=FAINT, lw=1, ls=(0, (1, 2)), zorder=1)
    ends = [end for one in placed for end in (one.low, one.rank, one.high) if not np.isnan(end)] or [1]
    axes.set_ylim(max(ends) + RANKS, min(ends) - RANKS)


def _dot(axes: Axes, one: Costly, family: int) -> None:
    color, at = SOFT if one.control else series(family), place(one.passes)
    axes.plot([at, at], [one.low, one.high], color=color, lw=0.8, alpha=0.75, solid_capstyle="butt", zorder=2)
    shape = "o" if one.control else marker(family)
    axes.plot(at, one.rank, shape, ms=6, mfc=PAPER if one.control else color, mec=color, mew=1.3, zorder=3)


def _names(axes: Axes, best: list[Costly], placed: list[Costly], size: tuple[float, float]) -> None:
    """Write the name of each method of the front beside its dot, where it hides no other dot or name."""
    (left, right), (bottom, top) = axes.get_xlim(), axes.get_ylim()

    def point(one: Costly) -> np.ndarray:
        share = (place(one.passes) - left) / (right - left), (one.rank - bottom) / (top - bottom)
        return np.array(share) * size

    taken = [box(point(one), DOT, DOT) for one in placed]
    for one in best:
        name = shortened(one.method, SMALL, WIDTH / 2)
        half = 36 * breadth(name, SMALL), LINE / 2
        across, up = half[0] + DOT + 3, LINE / 2 + DOT + 1
        # There is nothing above and to the left of a dot of the front; the line leaves it to the right.
        offsets = [
            (4 - across, up),
            (-across, 0),
            (across - 4, up),
            (0, up),
            (across - 4, -up),
            (0, -up),
            (4 - across, -up),
        ]
        offsets += [(across, step * up) for step in (2, -2, 3, -3)]
        centers = [point(one) + offset for offset in offsets]
        center = next((at for at in centers if free(box(at, *half), taken, size)), centers[0])
        taken.append(box(center, *half))
        offset, at = tuple(center - point(one)), (place(one.passes), one.rank)
        how: dict[str, Any] = {"ha": "center", "va": "center", "fontsize": SMALL, "color": INK, "zorder": 5}
        axes.annotate(name, at, offset, textcoords="offset points", **how)
