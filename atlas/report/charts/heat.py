"""Matrices as tables of shaded cells: the number as text, the shade as a color's opacity over the page."""

from typing import NamedTuple

import numpy as np

# A deeper shade would make the number illegible.
DEEPEST = 0.72


class Cell(NamedTuple):
    """A number as text, its shade's opacity (0 to 1), which of the two colors, and a tooltip."""

    text: str
    shade: float
    negative: bool
    hint: str


class Matrix(NamedTuple):
    """Labelled rows of cells."""

    columns: list[str]
    rows: list[tuple[str, list[Cell]]]


def agreement(values: np.ndarray, counts: np.ndarray, names: list[str], what: str, *, columns: list[str]) -> Matrix:
    """Shade agreements: −1 to 1, in two colors that meet at 0; undefined cells stay empty.

    Args:
        values: By row and column.
        counts: The number of things behind each value.
        names: Names of the rows.
        what: What is counted, for the tooltip.
        columns: Names of the columns.
    """
    rows = []
    for name, line, numbers in zip(names, values.tolist(), counts.tolist(), strict=True):
        cells = []
        for other, value, number in zip(columns, line, numbers, strict=True):
            hint = f"{name} and {other}: {value:.3f} over {number:.0f} {what}"
            if np.isnan(value):
                cells.append(Cell("", 0, False, f"{name} and {other}: undefined ({number:.0f} {what})"))
            else:
                cells.append(Cell(_short(value), DEEPEST * min(1.0, abs(value)), value < 0, hint))
        rows.append((name, cells))
    return Matrix(columns, rows)


def ranks(
    values: np.ndarray, low: np.ndarray, high: np.ndarray, methods: list[str], metrics: list[str], *, places: int = 0
) -> Matrix:
    """Shade ranks, the first deepest; a method without a rank shows n/a.

    Args:
        values: Method by metric.
        low: Best ends of the intervals.
        high: Worst ends.
        methods: Names of the rows.
        metrics: Names of the columns.
        places: Decimals, for mean ranks.
    """
    rows = []
    for i, method in enumerate(methods):
        cells = []
        for j, metric in enumerate(metrics):
            if np.isnan(values[i, j]):
                cells.append(Cell("n/a", 0, False, f"{method} has no rank by {metric}"))
                continue
            last = max(2.0, float(np.nanmax(values[:, j])))
            shade = DEEPEST * (last - values[i, j]) / (last - 1)
            formatted = [f"{one[i, j]:.{places}f}" for one in (values, low, high)]
            hint = f"{method} by {metric}: {formatted[0]} ({formatted[1]} to {formatted[2]})"
            cells.append(Cell(formatted[0], shade, False, hint))
        rows.append((method, cells))
    return Matrix(metrics, rows)


def _short(value: float) -> str:
    if abs(value) < 0.005:
        return "0"
    return f"{value:.2f}".replace("0.", ".", 1).replace("1.00", "1").replace("-", "−")
