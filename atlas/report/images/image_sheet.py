"""One image with its maps on a sheet, and their certified pixels, as a PNG."""

import io
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from atlas.report.certification import certified
from atlas.report.charts.theme import FAINT, INK, SOFT, breadth, plain, shortened, style
from atlas.report.images import pictures
from atlas.report.images.gallery import Shown

ACROSS = 8  # tiles per line
TILE, GAP, TITLE, EDGE = 1.5, 0.12, 0.36, 0.15  # inches
NAMES, LINE, KEY = 0.85, 0.22, 0.14  # inches: left of certified tiles, a line of text below them, and the side of a key
SMALL = 8  # points
LETTERS = 19  # letters per line of a title


class Marks(NamedTuple):
    """The certified pixels of an image's maps, and the test, in words.

    `shown` holds labels `level y x`, levels falling, and the smoothed sparsified map, by method.
    """

    said: str
    levels: list[int]
    shown: dict[str, tuple[np.ndarray, np.ndarray]]

    @property
    def lines(self) -> list[str]:
        """What each line of tiles shows."""
        return [*(f"top {level}%" for level in self.levels), "all levels", f"smoothed\ntop {self.levels[0]}%"]

    @property
    def keys(self) -> list[tuple[str, np.ndarray]]:
        """The meaning of the colors."""
        number = len(self.levels)
        white, _, gray = certified.three(number, 0)
        important = zip(self.levels, certified.colors(number), strict=True)
        found = [(f"important, top {level}%", color) for level, color in important]
        return [*found, ("unimportant", white), ("abstained", gray)]


def figure(shown: Shown, methods: list[str], signed: set[str], marks: Marks | None) -> Figure:
    """Lay out the image and its maps, one tile each; optionally, below each map, its certified pixels.

    These are each level by itself, all levels overlaid, with white for pixels that are important at none, and the
    smoothed sparsified map.

    Args:
        shown: The image, and its maps by method.
        methods: Methods in the order to show them; those without a map, or without votes, are n/a.
        signed: Methods whose maps are colored around 0.
        marks: The certified pixels of its maps.
    """
    across = min(ACROSS, 1 + len(methods))
    blocks = -(-(1 + len(methods)) // across)
    names = marks.lines if marks else []
    step = (1 + len(names)) * (TILE + GAP) + TITLE
    size, start = _size(across, blocks * step, marks)
    with style("sheet"):
        sheet = Figure(figsize=size, dpi=130, facecolor="white")
        for place, method in enumerate([None, *methods]):
            block, column = divmod(place, across)
            for line in range(1 + len(names) if method is not None else 1):
                left = start + column * (TILE + GAP)
                top = EDGE + block * step + TITLE + line * (TILE + GAP)
                box = left / size[0], 1 - (top + TILE) / size[1], TILE / size[0], TILE / size[1]
                axes = sheet.add_axes(box)
                _frame(axes)
                if method is None:
                    _image(axes, shown)
                elif line == 0 or marks is None:
                    _map(axes, shown, method, signed=method in signed)
                else:
                    _mark(axes, marks, method, line - 1)
        for line, name in enumerate(names * blocks):
            block, line = divmod(line, len(names))
            middle = EDGE + block * step + TITLE + (line + 1) * (TILE + GAP) + TILE / 2
            y = 1 - middle / size[1]
            sheet.text((start - GAP) / size[0], y, name, color=plain(SOFT), fontsize=SMALL, ha="right", va="center")
        if marks:
            _words(sheet, marks, EDGE + blocks * step)
    return sheet


def _size(across: int, height: float, marks: Marks | None) -> tuple[tuple[float, float], float]:
    """Return a sheet's width and height, and the position of its first tile."""
    tiles = across * (TILE + GAP) - GAP
    if marks is None:
        return (2 * EDGE + tiles, 2 * EDGE + height - GAP), EDGE
    words = max(breadth(marks.said, SMALL), sum(_keys(marks)))
    return (2 * EDGE + max(NAMES + tiles, words), 2 * EDGE + height + 2 * LINE), EDGE + NAMES


def _keys(marks: Marks) -> list[float]:
    """Return the widths in inches of the keys with their names."""
    return [KEY + breadth(name, SMALL) + 2 * GAP for name, _ in marks.keys]


def _words(sheet: Figure, marks: Marks, top: float) -> None:
    """Write below the tiles which test they are by, and what their colors mean."""
    width, height = sheet.get_size_inches()
    look: dict[str, Any] = {"color": plain(INK), "fontsize": SMALL, "va": "center"}
    sheet.text(EDGE / width, 1 - (top + LINE / 2) / height, marks.said, **look)
    left, middle = EDGE, 1 - (top + 1.5 * LINE) / height
    for (name, color), wide in zip(marks.keys, _keys(marks), strict=True):
        corner = left / width, middle - KEY / 2 / height
        key: dict[str, Any] = {"facecolor": color / 255, "edgecolor": plain(FAINT), "transform": sheet.transFigure}
        sheet.add_artist(Rectangle(corner, KEY / width, KEY / height, **key))
        sheet.text((left + KEY + GAP / 2) / width, middle, name, **look)
        left += wide


def png(sheet: Figure) -> bytes:
    """Draw a sheet without a time stamp or a program's name."""
    out = io.BytesIO()
    FigureCanvasAgg(sheet).print_png(out, metadata={"Software": None})
    return out.getvalue()


def _frame(axes: Axes) -> None:
    axes.set_xticks([])
    axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set_visible(True)
        spine.set_color(plain(FAINT))


def _image(axes: Axes, shown: Shown) -> None:
    pixels = np.moveaxis(pictures.visible(shown.pixels).round().astype(np.uint8), 0, -1)
    axes.imshow(pixels if pixels.shape[-1] == 3 else pixels[..., 0], cmap="gray", vmin=0, vmax=255)
    message = "\n".join(shortened(text, SMALL, TILE) for text in (shown.target, shown.image))
    axes.set_title(message, color=plain(INK), fontsize=8, fontweight="bold")


def _map(axes: Axes, shown: Shown, method: str, *, signed: bool) -> None:
    axes.set_title(_broken(method), color=plain(INK), fontsize=8)
    if method not in shown.maps:
        _none(axes)
        return
    colors = pictures.DIVERGING if signed else pictures.SEQUENTIAL
    axes.imshow(pictures.quantize(shown.maps[method], signed=signed), cmap=colors, vmin=0, vmax=255)


def _mark(axes: Axes, marks: Marks, method: str, line: int) -> None:
    if method not in marks.shown:
        _none(axes)
        return
    labels, smoothed = marks.shown[method]
    number = len(labels)
    if line < number:
        colors = certified.three(number, line)[certified.labelled(labels[line])]
        axes.imshow(colors, interpolation="nearest")  # no mixture of colors of two labels
    elif line == number:
        axes.imshow(certified.palette(number)[certified.overlaid(labels)], interpolation="nearest")
    else:
        axes.imshow(smoothed, cmap="gray", vmin=0, vmax=1)


def _none(axes: Axes) -> None:
    axes.text(0.5, 0.5, "n/a", color=plain(SOFT), fontsize=9, ha="center", va="center", transform=axes.transAxes)


def _broken(name: str) -> str:
    """Break a long name into two lines at the underscore nearest to its middle; lines still too long are cut."""
    places = [place for place, letter in enumerate(name) if letter == "_"]
    if len(name) <= LETTERS or not places:
        return shortened(name, SMALL, TILE + GAP)
    middle = min(places, key=lambda place: abs(place - len(name) / 2))
    return "\n".join(shortened(part, SMALL, TILE + GAP) for part in (name[: middle + 1], name[middle + 1 :]))
