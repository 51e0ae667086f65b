"""The certified share of a method's maps against localization: one numbered dot per method."""

from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from atlas.report.charts.theme import INK, PAPER, SOFT, marker, series, style, svg

WIDTH, HEIGHT = 4.6, 4.3
# Inches around the axes, and the range of the axes beyond 0 and 1.
LEFT, BOTTOM, RIGHT, TOP, BEYOND = 0.55, 0.52, 0.12, 0.12, 0.04
# Points: free space around a dot, width of a digit, height of a line.
DOT, DIGIT, LINE = 4.0, 5.8, 8.5
TIED = 0.5  # share of the noisy samples above which a method's certificates may come from ties


class Point(NamedTuple):
    """A mean with its interval, and its number of pictures; NaN if there is none."""

    mean: float
    low: float
    high: float
    count: int  # type: ignore[assignment]  # hides the count of tuples

    @property
    def known(self) -> bool:
        """Whether there is a mean."""
        return not np.isnan(self.mean)


class Traded(NamedTuple):
    """A method's place: its certified grid pointing game, and the share of certified pixels, both 0 to 1."""

    method: str
    family: str
    control: bool
    game: Point
    share: Point
    ties: Point  # share of the noisy samples of grids in which equal scores straddled the edge of the top
    filled: tuple[int, int] | None  # pictures with a pixel certified important, and all of them
    published: tuple[float, float] | None  # the authors' values

    @property
    def known(self) -> bool:
        """Whether the method has a place."""
        return self.game.known and self.share.known

    @property
    def tied(self) -> bool:
        """Whether equal scores were left out of the top in most samples, so that certificates may come from ties."""
        return self.ties.known and self.ties.mean > TIED


def chart(listed: list[Traded], families: list[str], chance: float, classifier: str, entry: str) -> str:
    """Draw methods by number, 1 for the first of the list, with their intervals; controls are hollow.

    Methods whose certificates may come from ties are hollow, with a dagger at the number.

    Published values are hollow, too, with the method's number, primed, and a dotted line from the method.

    Args:
        listed: Methods in the order of their numbers; those without a place last.
        families: The families, each a color and a marker.
        chance: Certified grid pointing game by chance.
        classifier, entry: Their names; the entry is of the certified grid pointing game.
    """
    placed = [one for one in listed if one.known]
    with style(f"tradeoff_{entry}_{classifier}"):
        figure = Figure(figsize=(WIDTH, HEIGHT))
        width, height = WIDTH - LEFT - RIGHT, HEIGHT - BOTTOM - TOP
        axes = figure.add_axes((LEFT / WIDTH, BOTTOM / HEIGHT, width / WIDTH, height / HEIGHT))
        axes.set_xlim(-BEYOND, 1 + BEYOND)
        axes.set_ylim(-BEYOND, 1 + BEYOND)
        axes.axvline(chance, color=SOFT, lw=1, ls=(0, (3, 2)), zorder=1)
        axes.annotate("chance", (chance, 1), (3, 0), textcoords="offset points", color=SOFT, fontsize=8, va="center")
        axes.plot(1, 1, "*", ms=11, mfc=PAPER, mec=SOFT, mew=1.2, zorder=2, clip_on=False)
        axes.annotate(
            "ideal", (1, 1), (-9, 0), textcoords="offset points", color=SOFT, fontsize=8, ha="right", va="center"
        )
        for one in placed:
            _dot(axes, one, families.index(one.family))
        _numbers(axes, _marks(placed), (72 * width, 72 * height), chance)
        axes.set_xlabel("certified grid pointing game  (better →)")
        axes.set_ylabel("share of pixels certified  (better →)")
        nearest = ", ".join(f"{one.method} ({one.game.mean:.2f}, {one.share.mean:.2f})" for one in placed[:3])
        text = f"nearest to the ideal: {nearest or 'none'}"
        return svg(figure, f"Certified share against {entry} on {classifier}, {text}; numbers beside it.")


def _dot(axes: Axes, one: Traded, family: int) -> None:
    color = SOFT if one.control else series(family)
    (x, x_low, x_high, _), (y, y_low, y_high, _) = one.game, one.share
    axes.plot([x_low, x_high], [y, y], color=color, lw=0.8, alpha=0.75, solid_capstyle="butt", zorder=2)
    axes.plot([x, x], [y_low, y_high], color=color, lw=0.8, alpha=0.75, solid_capstyle="butt", zorder=2)
    shape = "o" if one.control else marker(family)
    axes.plot(x, y, shape, ms=6, mfc=PAPER if one.control or one.tied else color, mec=color, mew=1.3, zorder=3)
    if one.published:
        axes.plot(*zip((x, y), one.published, strict=True), color=color, lw=0.8, ls=(0, (1, 2)), zorder=2)
        axes.plot(*one.published, shape, ms=6, mfc=PAPER, mec=color, mew=1.3, zorder=3)


def _marks(placed: list[Traded]) -> list[tuple[str, tuple[float, float], bool]]:
    """Return what is labelled by a number: its text, its place, whether it is a control's."""
    found = []
    for number, one in enumerate(placed, 1):
        found.append((f"{number}†" if one.tied else str(number), (one.game.mean, one.share.mean), one.control))
    found += [(f"{number}′", one.published, False) for number, one in enumerate(placed, 1) if one.published]
    return found


def _numbers(
    axes: Axes, marks: list[tuple[str, tuple[float, float], bool]], size: tuple[float, float], chance: float
) -> None:
    """Place each number where it hides no dot and no other number; a line leads to it if it is far from its dot."""
    scale = np.array(size) / (1 + 2 * BEYOND)
    dots = [(np.array(place) + BEYOND) * scale for _, place, _ in marks]
    ideal, top = (np.array([1, 1]) + BEYOND) * scale, (np.array([chance, 1]) + BEYOND) * scale
    taken = [
        box(ideal - np.array([12, 0]), 22, 7),
        box(top + np.array([18, 0]), 18, 6),
        box(np.array([top[0], size[1] / 2]), 1, size[1]),
    ]
    halves = [(DIGIT * len(number) / 2, LINE / 2) for number, _, _ in marks]
    found = centers(dots, halves, taken, size)
    for (number, place, control), dot, center in zip(marks, dots, found, strict=True):
        away = np.hypot(*(center - dot)) > 14
        lead: dict[str, Any] = {"arrowstyle": "-", "color": SOFT, "lw": 0.6, "shrinkA": 0, "shrinkB": 3}
        axes.annotate(
            number,
            place,
            tuple(center - dot),
            textcoords="offset points",
            ha="center",
            va="center",
            fontsize=9,
            color=SOFT if control else INK,
            style="italic" if control else "normal",
            zorder=5,
            arrowprops=lead if away else None,
        )


def centers(
    dots: list[np.ndarray], halves: list[tuple[float, float]], taken: list[np.ndarray], size: tuple[float, float]
) -> list[np.ndarray]:
    """Choose the position of each number: the free one nearest to its dot.

    Args:
        dots: Positions of the dots, in points.
        halves: Half the width and height of each number.
        taken: Boxes where no number may be, besides the dots.
        size: Size of the axes, in points.
    """
    taken, found = [*taken, *(box(dot, DOT, DOT) for dot in dots)], []
    for dot, half in zip(dots, halves, strict=True):
        places = (at for at in _around(dot) if free(box(at, *half), taken, size))
        found.append(next(places, dot + np.array([10, 8])))
        taken.append(box(found[-1], *half))
    return found


def box(center: np.ndarray, half_width: float, half_height: float) -> np.ndarray:
    """Return left, bottom, right and top of a box."""
    x, y = center
    return np.array([x - half_width, y - half_height, x + half_width, y + half_height])


def _around(dot: np.ndarray) -> list[np.ndarray]:
    """Return positions around a dot, the nearest first, those above and to the right before others."""
    angles = np.radians([45, 135, -45, -135, 0, 90, 180, -90, 20, 70, 110, 160, -20, -70, -110, -160])
    turns = np.stack([np.cos(angles), np.sin(angles)], axis=-1)
    return [dot + distance * turn for distance in (10.5, 13, 17, 22, 28, 36, 46) for turn in turns]


def free(own: np.ndarray, taken: list[np.ndarray], size: tuple[float, float]) -> bool:
    """Return whether a box lies inside axes of a size and overlaps no taken box."""
    inside = own[0] >= 0 and own[1] >= 0 and own[2] <= size[0] and own[3] <= size[1]
    apart = (own[2] <= one[0] or one[2] <= own[0] or own[3] <= one[1] or one[3] <= own[1] for one in taken)
    return bool(inside) and all(apart)
