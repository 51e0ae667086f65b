"""How charts look: inks that follow the page's light and dark, colors that a color-blind reader can tell apart."""

import html
import io
import re
from collections.abc import Iterator
from contextlib import contextmanager

import matplotlib as mpl
from matplotlib.figure import Figure

# Charts are drawn in stand-in colors, which the page's style sheet gives their values in light and dark.
INK, SOFT, FAINT, PAPER = "#010101", "#020202", "#030303", "#040404"
INKS = {INK: "--ink", SOFT: "--soft", FAINT: "--line", PAPER: "--paper"}
# Okabe and Ito's, in an order in which neighbors differ in lightness as well.
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
# The same as paths in a box of 16, for keys outside of charts.
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


def series(number: int) -> str:
    """Give the color of the n-th series; after seven they come round again, with another marker."""
    return SERIES[number % len(SERIES)]


def marker(number: int) -> str:
    """Give the marker of the n-th series."""
    return MARKERS[(number + number // len(SERIES)) % len(MARKERS)]


@contextmanager
def style(name: str) -> Iterator[None]:
    """Draw in the page's style; the name makes the ids inside an SVG its own, and the same in every run."""
    settings = {
        "svg.fonttype": "none",
        "svg.hashsalt": name,
        "font.family": FONT,
        "font.size": 10,
        "text.color": INK,
        "axes.labelcolor": SOFT,
        "axes.labelsize": 9,
        "axes.edgecolor": FAINT,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.facecolor": "none",
        "figure.facecolor": "none",
        "axes.axisbelow": True,
        "axes.grid": True,
        "grid.color": FAINT,
        "grid.linewidth": 0.6,
        "xtick.color": SOFT,
        "ytick.color": INK,
        "xtick.labelsize": 9,
        "xtick.major.size": 0,
        "ytick.major.size": 0,
        "legend.frameon": False,
        "legend.fontsize": 9,
    }
    with mpl.rc_context(settings):
        yield


def svg(figure: Figure, alt: str) -> str:
    """Give a figure as an SVG element for the page, with an alternative text; equal figures give equal text."""
    out = io.StringIO()
    figure.savefig(out, format="svg", metadata=dict.fromkeys(("Date", "Creator", "Format", "Type")))
    text = out.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>\s*", "", text, flags=re.DOTALL)
    text = re.sub(r"#0[0-9]0[0-9]0[0-9]", lambda found: f"var({VARIABLES.get(found[0], INKS[INK])})", text)
    # A font of the page's own; matplotlib measures with one that is wider than most.
    text = text.replace(f"'{FONT}'", "var(--sans)")
    width = float(re.search(r'width="([\d.]+)pt"', text)[1]) * 96 / 72
    box = re.search(r'viewBox="[^"]*"', text)[0]
    label = html.escape(alt)
    head = f'<svg role="img" aria-label="{label}" {box} style="width:{width:.0f}px">'
    return head + text[text.index(">") + 1 :].strip()


def keys(names: list[str]) -> list[tuple[str, str, str]]:
    """Give name, color and shape of each series, for a key outside of charts."""
    return [(name, f"var({VARIABLES[series(place)]})", SHAPES[marker(place)]) for place, name in enumerate(names)]


def plain(color: str) -> str:
    """Give the color that stands for a stand-in where there is no style sheet."""
    return PLAIN[color]
