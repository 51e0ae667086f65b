"""One picture of the whole study, for a README: mean ranks with intervals, and one image's maps."""

import io
from typing import Any

import matplotlib as mpl
import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from atlas.report.charts import dot_plot
from atlas.report.charts.theme import (
    BENEATH,
    EDGE,
    FAINT,
    INK,
    PAPER,
    SERIES,
    SOFT,
    TEXT,
    breadth,
    marker,
    plain,
    shortened,
    style,
)
from atlas.report.images import pictures
from atlas.report.images.gallery import Shown
from atlas.report.sorting import overall

WIDTH, MIDDLE, TITLE = 11, 4.95, 0.36  # inches: width of the picture, right end of the ranks, height of the title
NAMES = 8  # points
LONGEST = 2.2  # longest name beside the ranks, in inches
COLUMNS = 4
CELL = 1.65  # inches per row of maps with titles


def png(summary: xr.Dataset, shown: Shown, title: str) -> bytes:
    """Draw the overview as a PNG without a time stamp or a program's name."""
    order = overall(summary)
    with style("atlas"):
        height = 0.24 * len(order) + 1.5
        figure = Figure(figsize=(WIDTH, height), dpi=130, facecolor="white")
        names = max(breadth(shortened(name, NAMES, LONGEST), NAMES) for name in order)
        start = EDGE + names + mpl.rcParams["ytick.major.pad"] / 72
        rows = (EDGE + BENEATH) / height, 1 - TITLE / height
        _ranks(figure.add_axes((start / WIDTH, rows[0], (MIDDLE - start) / WIDTH, rows[1] - rows[0])), summary, order)
        _maps(figure, shown, [name for name in order if name in shown.maps], max(1, round(height / CELL)))
        figure.suptitle(
            shortened(title, 13, 0.85 * WIDTH),
            fontsize=13,
            fontweight="bold",
            color=plain(INK),
            x=0.01,
            y=1 - EDGE / height,
            ha="left",
            va="top",
        )
        out = io.BytesIO()
        FigureCanvasAgg(figure).print_png(out, metadata={"Software": None})
    return out.getvalue()


def _ranks(axes: Axes, summary: xr.Dataset, order: list[str]) -> None:
    classifiers = summary["classifier"].values.tolist()
    step = min(0.24, 0.6 / len(classifiers))
    listed = dot_plot.rows(summary, "mean_rank", "mean_rank_low", "mean_rank_high", order)
    for which, classifier in enumerate(classifiers):
        at = np.arange(len(order)) + (which - (len(classifiers) - 1) / 2) * step
        color = plain(SERIES[which % len(SERIES)])
        look: dict[str, Any] = {"marker": marker(which), "ms": 4.5}
        dot_plot.lines(axes, listed, which, at, color=color, lw=1.6)
        dot_plot.marks(axes, listed, which, at, color, plain(PAPER), zorder=3, **look)
        axes.plot([], [], ls="none", color=color, label=shortened(classifier, TEXT, LONGEST), **look)
    dot_plot.blanks(axes, listed, plain(SOFT))
    axes.set_ylim(len(order) - 0.4, -0.6)
    axes.set_yticks(
        range(len(order)), [shortened(name, NAMES, LONGEST) for name in order], color=plain(INK), fontsize=NAMES
    )
    axes.tick_params(axis="x", colors=plain(SOFT))
    axes.grid(axis="x", color=plain(FAINT))
    axes.grid(axis="y", visible=False)
    for spine in axes.spines.values():
        spine.set_color(plain(FAINT))
    axes.spines["left"].set_visible(False)
    axes.set_xlabel("mean rank over metrics (1 is best; hollow: controls)", color=plain(SOFT))
    axes.legend(loc="upper right", labelcolor=plain(INK))


def _maps(figure: Figure, shown: Shown, methods: list[str], rows: int) -> None:
    """Show the image, the best methods' maps, and the last one's."""
    places, height = rows * COLUMNS - 1, figure.get_figheight()
    chosen = methods if len(methods) <= places else methods[: places - 1] + methods[-1:]
    edge = {
        "left": (MIDDLE + 0.2) / WIDTH,
        "right": 1 - EDGE / WIDTH,
        "bottom": EDGE / height,
        "top": 1 - (TITLE + 0.2) / height,
    }
    grid = figure.subplots(rows, COLUMNS, squeeze=False, gridspec_kw={**edge, "wspace": 0.06, "hspace": 0.2})
    for axes in grid.flat:
        axes.set_axis_off()
    pixels = np.moveaxis(pictures.visible(shown.pixels).round().astype(np.uint8), 0, -1)
    grid.flat[0].imshow(pixels if pixels.shape[-1] == 3 else pixels[..., 0], cmap="gray", vmin=0, vmax=255)
    grid.flat[0].set_title(shortened(shown.target, 9, CELL - 0.2), color=plain(INK), fontsize=9)
    for axes, method in zip(grid.flat[1:], chosen, strict=False):
        values = shown.maps[method]
        signed = bool(values.min() < 0)
        colors = pictures.DIVERGING if signed else pictures.SEQUENTIAL
        axes.imshow(pictures.quantize(values, signed=signed), cmap=colors, vmin=0, vmax=255)
        axes.set_title(shortened(method, 9, CELL - 0.2), color=plain(INK), fontsize=9)
