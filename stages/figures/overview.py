"""One picture of the whole study, for a README: mean ranks with intervals, and one image's maps."""

import io

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure, SubFigure

from stages.figures import pictures
from stages.figures.order import overall
from stages.figures.page import Shown
from stages.figures.theme import FAINT, INK, SERIES, SOFT, marker, plain, style

COLUMNS = 4
CELL = 1.65  # inches that a row of maps takes with its titles


def png(summary: xr.Dataset, shown: Shown, title: str) -> bytes:
    """Draw the overview as a PNG without a time stamp or a program's name."""
    order = overall(summary)
    with style("atlas"):
        height = 0.24 * len(order) + 1.5
        figure = Figure(figsize=(11, height), dpi=130, layout="constrained", facecolor="white")
        left, right = figure.subfigures(1, 2, width_ratios=[1, 1.15])
        _ranks(left.add_subplot(), summary, order)
        _maps(right, shown, [name for name in order if name in shown.maps], max(1, round(height / CELL)))
        figure.suptitle(title, fontsize=13, fontweight="bold", color=plain(INK), x=0.01, ha="left")
        out = io.BytesIO()
        FigureCanvasAgg(figure).print_png(out, metadata={"Software": None})
    return out.getvalue()


def _ranks(axes: Axes, summary: xr.Dataset, order: list[str]) -> None:
    classifiers = summary["classifier"].values.tolist()
    step = min(0.24, 0.6 / len(classifiers))
    for place, method in enumerate(order):
        one = summary.sel({"method": method})
        for which, classifier in enumerate(classifiers):
            value, low, high = (
                float(one[f"mean_rank{end}"].sel(classifier=classifier)) for end in ("", "_low", "_high")
            )
            y = place + (which - (len(classifiers) - 1) / 2) * step
            color = plain(SERIES[which % len(SERIES)])
            axes.plot([low, high], [y, y], color=color, lw=1.6)
            face = "white" if bool(one["control"]) else color
            label = classifier if place == 0 else None
            axes.plot(value, y, marker(which), color=color, mfc=face, ms=4.5, label=label)
    axes.set_ylim(len(order) - 0.4, -0.6)
    axes.set_yticks(range(len(order)), order, color=plain(INK), fontsize=8)
    axes.tick_params(axis="x", colors=plain(SOFT))
    axes.grid(axis="x", color=plain(FAINT))
    axes.grid(axis="y", visible=False)
    for spine in axes.spines.values():
        spine.set_color(plain(FAINT))
    axes.spines["left"].set_visible(False)
    axes.set_xlabel("mean rank over metrics (1 is best; hollow: controls)", color=plain(SOFT))
    axes.legend(loc="upper right", labelcolor=plain(INK))


def _maps(figure: SubFigure, shown: Shown, methods: list[str], rows: int) -> None:
    """Show the image, the best methods' maps, and the last one's."""
    places = rows * COLUMNS - 1
    chosen = methods if len(methods) <= places else methods[: places - 1] + methods[-1:]
    grid = figure.subplots(rows, COLUMNS, squeeze=False)
    for axes in grid.flat:
        axes.set_axis_off()
    pixels = np.moveaxis(shown.pixels, 0, -1)
    grid.flat[0].imshow(pixels if pixels.shape[-1] == 3 else pixels[..., 0], cmap="gray", vmin=0, vmax=255)
    grid.flat[0].set_title(shown.target, color=plain(INK), fontsize=9)
    for axes, method in zip(grid.flat[1:], chosen, strict=False):
        values = shown.maps[method]
        signed = bool(values.min() < 0)
        colors = pictures.DIVERGING if signed else pictures.SEQUENTIAL
        axes.imshow(pictures.quantize(values, signed=signed), cmap=colors, vmin=0, vmax=255)
        axes.set_title(method, color=plain(INK), fontsize=9)
