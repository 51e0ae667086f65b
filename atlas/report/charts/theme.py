"""The look of charts: inks for the page's light or dark mode, colors that color-blind readers can distinguish."""

import html
import io
import re
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.textpath import text_to_path

# Charts are drawn in placeholder colors, which the page's style sheet replaces for light and dark mode.
INK, SOFT, FAINT, PAPER = "#010101", "#020202", "#030303", "#040404"
INKS = {INK: "--ink", SOFT: "--soft", FAINT: "--line", PAPER: "--paper"}
# Okabe and Ito's colors, ordered so that neighbors also differ in lightness.
SERIES = [f"#05050{number}" for number in range(7)]
PLAIN = {
    **dict(zip(SERIES, ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#6b6b6b"], strict=True)),
    INK: "#1c1c1c",
    SOFT: "#5c5c5c",
    FAINT: "#d8d8d8",
    PAPER: "#ffffff",
}
VARIABLES = {**INKS, **{color: f"--series-{number}" for number, color in enumerate(SERIES)}}
MARKERS = "osD^vPX"
# The markers as paths in a box of 16, for keys outside of charts.
SHAPES = {
    "o": "M8 3a5 5 0 1 0 .01 0z",
    "s": "M3.5 3.5h9v9h-9z",
    "D": "M8 2l6 6-6 6-6-6z",
    "^": "M8 2.5l6 11H2z",
    "v": "M8 13.5l6-11H2z",
    "P": "M6 2h4v4h4v4h-4v4H6v-4H2V6h4z",
    "X": "M4 2l4 4 4-4 2 2-4 4 4 4-2 2-4-4-4 4-2-2 4-4-4-4z",
}
FONT = "DejaVu Sans"
SMALL, TEXT = 9, 10  # points of tick labels and of names
EDGE = 0.06  # inches of free space around a chart
LONGEST = 2.6  # inches of a name in a chart; tables show it in full
NARROWEST = 1.9  # least inches beside the names of a chart
BENEATH, LABEL = 0.39, 0.23  # inches below axes for ticks and a label, and for ticks only


def series(number: int) -> str:
    """Return the color of the n-th series; they repeat after seven, with another marker."""
    return SERIES[number % len(SERIES)]


def marker(number: int) -> str:
    """Return the marker of the n-th series."""
    return MARKERS[(number + number // len(SERIES)) % len(MARKERS)]


@contextmanager
def style(name: str) -> Iterator[None]:
    """Draw in the page's style; the name makes the ids inside an SVG unique, and equal in every run."""
    settings: dict[Any, object] = {
        "svg.fonttype": "none",
        "svg.hashsalt": name,
        "font.family": FONT,
        "font.size": TEXT,
        "text.color": INK,
        "text.parse_math": False,  # a title, a class or a name may hold a dollar sign
        "axes.labelcolor": SOFT,
        "axes.labelsize": SMALL,
        "axes.edgecolor": FAINT,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.facecolor": "none",
        "figure.facecolor": "none",
        "axes.axisbelow": True,
        "axes.titley": 1,  # otherwise matplotlib searches all ticks
        "axes.grid": True,
        "grid.color": FAINT,
        "grid.linewidth": 0.6,
        "xtick.color": SOFT,
        "ytick.color": INK,
        "xtick.labelsize": SMALL,
        "xtick.major.size": 0,
        "ytick.major.size": 0,
        "legend.frameon": False,
        "legend.fontsize": SMALL,
    }
    with mpl.rc_context(settings):
        yield


def fit(axes: Axes, *, names: list[str] | None = None, beneath: float = 0) -> None:
    """Lay out the only axes of a figure by the widths of its texts, in a fraction of the time that a solver takes.

    Args:
        axes: The axes, complete with their texts.
        names: The texts on the left, if they are not tick labels.
        beneath: Inches to leave below the axes and their label.
    """
    figure = axes.figure
    assert isinstance(figure, Figure)
    width, height = figure.get_size_inches()
    bottom, top = EDGE + BENEATH + beneath, height - EDGE
    if names:  # the axes keep their room however long a name or label is
        width = max(width, max(breadth(text, TEXT) for text in names) + NARROWEST)
    width = max(width, breadth(axes.get_xlabel(), SMALL) + 2 * EDGE)
    figure.set_size_inches(width, height)
    axes.set_position((0.25, bottom / height, 0.7, (top - bottom) / height))  # the number of ticks depends on it
    left = max((breadth(text, TEXT) for text in (names or ticks(axes.yaxis))), default=0)
    left += axes.yaxis.get_tick_padding() / 72
    label = (axes.yaxis.labelpad + 1.2 * SMALL) / 72 if axes.get_ylabel() else 0
    # Half of the label of a tick at the very end extends beyond it.
    beyond = max((breadth(text, SMALL) for text in ticks(axes.xaxis)), default=0) / 2
    start, end = EDGE + label + left, width - EDGE - beyond
    axes.set_position((start / width, bottom / height, (end - start) / width, (top - bottom) / height))
    # The default position of labels, after measuring every tick; further left if they would be cut off.
    middle = min((start + end) / 2, width - EDGE - breadth(axes.get_xlabel(), SMALL) / 2)
    axes.xaxis.set_label_coords((middle - start) / (end - start), -LABEL / (top - bottom))
    axes.yaxis.set_label_coords(-(left + axes.yaxis.labelpad / 72) / (end - start), 0.5)


@cache
def breadth(text: str, size: int) -> float:
    """Return the width of a text in inches."""
    font = FontProperties(family=FONT, size=size)
    return text_to_path.get_text_width_height_descent(text, font, False)[0] / 72


def shortened(text: str, size: int, inches: float) -> str:
    """Cut the middle out of a text that is wider than a number of inches."""
    length = len(text)
    while breadth(text, size) > inches and length > 3:
        length -= 1
        text = f"{text[: length - length // 2]}…{text[len(text) - length // 2 :]}"
    return text


def ticks(axis: Axis) -> list[str]:
    """Return the labels of an axis's ticks."""
    places: Any = axis.get_majorticklocs()
    return axis.get_major_formatter().format_ticks(places)


def locate(axis: Axis, **settings: Any) -> None:
    """Change settings of matplotlib's search for the positions of an axis's ticks."""
    locator: Any = axis.get_major_locator()
    locator.set_params(**settings)


def svg(figure: Figure, alt: str) -> str:
    """Return a figure as an SVG element for the page, with an alternative text; equal figures give equal text."""
    out = io.StringIO()
    figure.savefig(out, format="svg", metadata=dict.fromkeys(("Date", "Creator", "Format", "Type")))
    text = out.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>\s*", "", text, flags=re.DOTALL)
    text = re.sub(r"#0[0-9]0[0-9]0[0-9]", lambda found: f"var({VARIABLES.get(found[0], INKS[INK])})", text)
    # The page's own font; matplotlib measures with one that is wider than most.
    text = text.replace(f"'{FONT}'", "var(--sans)")
    width = float(_found(r'width="([\d.]+)pt"', text)[1]) * 96 / 72
    box = _found(r'viewBox="[^"]*"', text)[0]
    label = html.escape(alt)
    head = f'<svg role="img" aria-label="{label}" {box} style="width:{width:.0f}px">'
    return head + text[text.index(">") + 1 :].strip()


def _found(pattern: str, text: str) -> re.Match[str]:
    found = re.search(pattern, text)
    assert found is not None
    return found


def keys(names: list[str]) -> list[tuple[str, str, str]]:
    """Return name, color and shape of each series, for a key outside of charts."""
    return [(name, f"var({VARIABLES[series(place)]})", SHAPES[marker(place)]) for place, name in enumerate(names)]


def plain(color: str) -> str:
    """Return the plain color behind a placeholder, for output without a style sheet."""
    return PLAIN[color]
