"""The share of certified pixels at each level, σ or τ, one bar per method.

Pixels certified important are on the left, those certified unimportant on the right, abstentions in between.
"""

from typing import Any, NamedTuple

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from atlas.report.charts.theme import INK, PAPER, SOFT, series, style, svg
from atlas.report.charts.tradeoff import Point

ACROSS = 3  # charts per row
WIDTH, GAP, ROW, HEAD, FOOT, LETTER = 1.12, 0.16, 0.205, 0.12, 0.5, 0.079  # inches
LINE = 0.14  # inches of a line of a title
# The series numbers whose colors the two sides have.
IMPORTANT, UNIMPORTANT = 0, 4


class Bar(NamedTuple):
    """A method's certified shares in percent; None if not measured."""

    method: str
    control: bool
    important: Point | None
    unimportant: Point | None


class Facet(NamedTuple):
    """The bars at one level, σ and τ; and the level, which the share certified important can hardly exceed.

    `reached` tells whether any number of votes certifies a pixel there.
    """

    title: str
    level: float
    bars: list[Bar]
    reached: bool


def chart(facets: list[Facet], name: str, alt: str) -> str:
    """Draw charts side by side, with methods in the same order.

    Args:
        facets: With the same methods in the same order.
        name: A unique name of the chart.
        alt: Its alternative text.
    """
    methods = [one.method for one in facets[0].bars]
    across = min(ACROSS, len(facets))
    down = -(-len(facets) // across)
    left = LETTER * max(map(len, methods)) + 0.12
    head = HEAD + LINE * max(1 + facet.title.count("\n") for facet in facets)
    band = ROW * len(methods) + head + FOOT
    width, height = left + across * WIDTH + (across - 1) * GAP + 0.16, down * band
    with style(name):
        figure = Figure(figsize=(width, height))
        for place, facet in enumerate(facets):
            row, column = divmod(place, across)
            corner = left + column * (WIDTH + GAP), height - (row + 1) * band + FOOT
            box = corner[0] / width, corner[1] / height, WIDTH / width, ROW * len(methods) / height
            axes = figure.add_axes(box)
            _bars(axes, facet)
            if column:
                axes.set_yticks([])
            if row == down - 1 or place + across >= len(facets):
                axes.set_xlabel("% of pixels")
        return svg(figure, alt)


def _bars(axes: Axes, facet: Facet) -> None:
    bars = facet.bars
    axes.set_xlim(0, 100)
    axes.set_ylim(len(bars) - 0.5, -0.5)
    axes.set_xticks([0, 50, 100])
    first, _, last = axes.get_xticklabels()
    first.set_horizontalalignment("left")
    last.set_horizontalalignment("right")
    axes.grid(axis="y", visible=False)
    axes.spines["left"].set_visible(False)
    axes.set_title(facet.title, fontsize=9, color=INK)
    for place, bar in enumerate(bars):
        if bar.control:
            axes.axhspan(place - 0.5, place + 0.5, color=SOFT, alpha=0.08, lw=0)
        if not facet.reached:
            continue
        if not any(part and part.known for part in (bar.important, bar.unimportant)):
            axes.text(50, place, "n/a", color=SOFT, fontsize=8, ha="center", va="center")
        _part(axes, place, bar.important, bar.control, series(IMPORTANT), from_right=False)
        _part(axes, place, bar.unimportant, bar.control, series(UNIMPORTANT), from_right=True)
    if not facet.reached:
        middle = (len(bars) - 1) / 2
        axes.text(50, middle, "no count\nof votes\ncertifies", color=SOFT, fontsize=8, ha="center", va="center")
    axes.axvline(facet.level, color=INK, lw=0.9, ls=(0, (3, 2)), zorder=4)
    axes.set_yticks(range(len(bars)), [bar.method for bar in bars])
    for text, bar in zip(axes.get_yticklabels(), bars, strict=True):
        if bar.control:
            text.set_color(SOFT)
            text.set_fontstyle("italic")


def _part(axes: Axes, place: int, part: Point | None, control: bool, color: str, *, from_right: bool) -> None:
    """Draw a bar from its side, with the interval at its end."""
    if part is None or not part.known:
        return
    start, turn = (100, -1) if from_right else (0, 1)
    look: dict[str, Any] = {"facecolor": color, "lw": 0}
    if control:
        look = {"facecolor": PAPER, "edgecolor": color, "lw": 1}
    axes.barh(place, turn * part.mean, left=start, height=0.62, zorder=2, **look)
    ends = [start + turn * end for end in (part.low, part.high)]
    axes.plot(ends, [place, place], color=INK, lw=1, solid_capstyle="butt", zorder=3)
