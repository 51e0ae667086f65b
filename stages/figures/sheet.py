"""One image with its maps on a sheet, and what is certified of them: a PNG."""

import io

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from stages.figures import certified, pictures
from stages.figures.page import Shown
from stages.figures.theme import FAINT, INK, SOFT, plain, style

ACROSS = 8  # tiles in a line
TILE, GAP, TITLE, EDGE = 1.5, 0.12, 0.36, 0.15  # inches
LETTERS = 19  # of a title's line


def figure(
    shown: Shown, methods: list[str], signed: set[str], marks: dict[str, tuple[np.ndarray, np.ndarray]] | None
) -> Figure:
    """Lay out the image and its maps, a tile each; below each map, where asked, its overlay and its smoothed map.

    Args:
        shown: The image, and its maps by method.
        methods: In the order to show them; those without a map, or without votes, are n/a.
        signed: Methods whose maps are colored around 0.
        marks: Labels `level y x` of falling levels, and the smoothed sparsified map, by method.
    """
    across = min(ACROSS, 1 + len(methods))
    blocks = -(-(1 + len(methods)) // across)
    lines = 3 if marks is not None else 1
    step = lines * (TILE + GAP) + TITLE
    size = 2 * EDGE + across * (TILE + GAP) - GAP, 2 * EDGE + blocks * step - GAP
    with style("sheet"):
        sheet = Figure(figsize=size, dpi=130, facecolor="white")
        for place, method in enumerate([None, *methods]):
            block, column = divmod(place, across)
            for line in range(lines if method is not None else 1):
                left = EDGE + column * (TILE + GAP)
                top = EDGE + block * step + TITLE + line * (TILE + GAP)
                box = left / size[0], 1 - (top + TILE) / size[1], TILE / size[0], TILE / size[1]
                axes = sheet.add_axes(box)
                _frame(axes)
                if method is None:
                    _image(axes, shown)
                elif line == 0:
                    _map(axes, shown, method, signed=method in signed)
                else:
                    _marks(axes, (marks or {}).get(method), smoothed=line == 2)
    return sheet


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
    pixels = np.moveaxis(shown.pixels, 0, -1)
    axes.imshow(pixels if pixels.shape[-1] == 3 else pixels[..., 0], cmap="gray", vmin=0, vmax=255)
    axes.set_title(f"{shown.target}\n{shown.image}", color=plain(INK), fontsize=8, fontweight="bold")


def _map(axes: Axes, shown: Shown, method: str, *, signed: bool) -> None:
    axes.set_title(_broken(method), color=plain(INK), fontsize=8)
    if method not in shown.maps:
        _none(axes)
        return
    colors = pictures.DIVERGING if signed else pictures.SEQUENTIAL
    axes.imshow(pictures.quantize(shown.maps[method], signed=signed), cmap=colors, vmin=0, vmax=255)


def _marks(axes: Axes, marks: tuple[np.ndarray, np.ndarray] | None, *, smoothed: bool) -> None:
    if marks is None:
        _none(axes)
    elif smoothed:
        axes.imshow(marks[1], cmap="gray", vmin=0, vmax=1)
    else:
        axes.imshow(certified.palette(len(marks[0]))[certified.overlaid(marks[0])])


def _none(axes: Axes) -> None:
    axes.text(0.5, 0.5, "n/a", color=plain(SOFT), fontsize=9, ha="center", va="center", transform=axes.transAxes)


def _broken(name: str) -> str:
    """Break a long name into two lines at the underscore next to its middle."""
    places = [place for place, letter in enumerate(name) if letter == "_"]
    if len(name) <= LETTERS or not places:
        return name
    middle = min(places, key=lambda place: abs(place - len(name) / 2))
    return f"{name[: middle + 1]}\n{name[middle + 1 :]}"
