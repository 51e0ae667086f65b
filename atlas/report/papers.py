"""Leaderboards as tables for papers: LaTeX with booktabs, and Markdown."""

import math
import re
from typing import NamedTuple

import numpy as np
import xarray as xr

from atlas.report.sorting import RAISED, TIED, ranking_metrics, shared, tied

ARROWS = {"higher": "↑", "lower": "↓"}
SUNK = str.maketrans("⁻⁰¹²³⁴⁵⁶⁷⁸⁹", "-0123456789")
CONTROL = "a control: it knows nothing of the classifier"
UNRANKED = "no metric ranks it"
PARTLY = "it lacks more rankings than it has, and is not called best"
ALIKE = (
    "alike: methods that share a letter do not differ significantly (a test of the mean difference, adjusted by Holm "
    "for all pairs of methods, not across metrics and classifiers)"
)
# How the intervals of means are made, and the weights of a mean rank.
MEANS = "Hall’s for skewed scores, Agresti and Coull’s for hits"
SCALED = {
    "families": "; families of metrics count the same",
    "metrics": "; metrics count the same",
}
# The most letters per method that a column shows.
LETTERS = 12
# Scores are float32: a width below this share of the numbers is rounding, not an interval.
ROUNDING = 1e-6
LATEX = {
    **{one: f"\\{one}" for one in "#$%&_{}"},
    "\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": "$<$", ">": "$>$",
    "−": "$-$", "×": r"$\times$", "±": r"$\pm$", "√": r"$\surd$", "≤": r"$\leq$", "≥": r"$\geq$", "…": r"\ldots{}",
    "’": "'", '"': "''", "|": r"\textbar{}", "\n": " ",
    "↑": r"$\uparrow$", "↓": r"$\downarrow$", "·": r"$\cdot$", "Φ": r"$\Phi$", "α": r"$\alpha$", "β": r"$\beta$",
    "ε": r"$\varepsilon$", "λ": r"$\lambda$", "ρ": r"$\rho$", "σ": r"$\sigma$", "τ": r"$\tau$",
}  # fmt: skip
MARKDOWN = {one: f"\\{one}" for one in "\\`*_|$~"} | {"<": "&lt;", "&": "&amp;", "\n": " "}


class Cell(NamedTuple):
    """A number, bold for the best, with its suffix, and why it is not ranked; or n/a, with the reason."""

    text: str
    suffix: str = ""
    best: bool = False
    reason: str = ""


class Row(NamedTuple):
    """A method's cells in each column."""

    method: str
    control: bool
    cells: list[Cell]


class Board(NamedTuple):
    """A table with a row for each method."""

    name: str
    title: str
    columns: list[str]
    rows: list[Row]
    wide: bool = False
    note: str = ""


def tables(summary: xr.Dataset) -> dict[str, str]:
    """Return every leaderboard as text, by file.

    Args:
        summary: Means and ranks with their intervals, counts, and why methods have no scores.

    Returns:
        A text for each of .tex and .md: `<classifier>/<metric>`; `<classifier>/mean_rank`, and for each family of
        metrics `<classifier>/family_<family>`; `<classifier>`, of all metrics; and `overall_rank`. Methods are sorted
        best first, with the best in bold; in mean ranks, that is the best with most rankings. The letters of a compact
        letter display are left out if a method has many. A mean has the decimals that show two digits of its interval's
        width, or three digits of its own if the interval has no width. Undefined cells are n/a, with a note that says
        why.
    """
    boards = [_mean_ranks(summary, "overall_rank", "overall_rank", "all metrics on all classifiers")]
    for classifier in summary["classifier"].values.tolist():
        here = summary.sel(classifier=classifier)
        boards += [_leaderboard(here, metric) for metric in ranking_metrics(summary)]
        for family in summary["family"].values.tolist():
            where = f"the {family} metrics on {classifier}"
            one = here.sel(family=family)
            boards.append(_mean_ranks(one, f"{classifier}/family_{family}", "family_rank", where))
        where = f"all metrics on {classifier}"
        boards += [_mean_ranks(here, f"{classifier}/mean_rank", "mean_rank", where), _every(here)]
    return {f"{one.name}.{end}": spell(one) for one in boards for end, spell in (("tex", latex), ("md", markdown))}


def formatted(value: float, low: float, high: float) -> tuple[str, str]:
    """Format a number and its interval, rounded to two digits of the interval's width.

    Returns:
        The number, and the interval in brackets; empty if an end is undefined. Very large and very small numbers have a
        power of ten, after the interval if there is one.
    """
    numbers = [value] if math.isnan(low + high) else [value, low, high]
    largest = max(map(abs, numbers))
    power = math.floor(math.log10(largest)) if largest else 0
    exponent = 0 if -4 <= power < 6 else power
    width = max(numbers) - min(numbers)
    last = math.floor(math.log10(width)) - 1 if width > ROUNDING * largest else power - 2
    places = max(0, exponent - last)
    texts = [f"{number / 10.0**exponent:.{places}f}" for number in numbers]
    # A number that was rounded to zero has no sign.
    texts = [(text if float(text) else text.lstrip("-")).replace("-", "−") for text in texts]
    scale = f" × 10{str(exponent).translate(RAISED)}" if exponent else ""
    return (texts[0], f"[{texts[1]}, {texts[2]}]{scale}") if len(texts) > 1 else (texts[0] + scale, "")


def latex(board: Board) -> str:
    """Return a table in LaTeX, with its caption and notes."""
    place = "table*" if board.wide else "table"
    reasons = _marked(board)
    heads = [_tex(column) for column in board.columns]
    if board.wide:
        heads = [rf"\rotatebox{{90}}{{{head}}}" for head in heads]
    lines = [
        "% \\usepackage{booktabs" + (",graphicx}" if board.wide else "}"),
        rf"\begin{{{place}}}",
        r"\centering",
        rf"\caption{{{_tex(board.title)}.}}",
        # A label is used verbatim.
        rf"\label{{tab:{board.name.replace('/', ':')}}}",
        rf"\begin{{tabular}}{{l{'r' * len(board.columns)}}}",
        r"\toprule",
        " & ".join(["method", *heads]) + r" \\",
        r"\midrule",
    ]
    for method, control, cells in board.rows:
        row = [rf"\texttt{{{_tex(method)}}}" + (r"$^\dagger$" if control else "")]
        for cell in cells:
            text = rf"\textbf{{{_tex(cell.text)}}}" if cell.best else _tex(cell.text)
            row.append(text + (f" {_tex(cell.suffix)}" if cell.suffix else "") + _raised(reasons.get(cell.reason, "")))
        lines.append(" & ".join(row) + r" \\")
    lines += [r"\bottomrule", r"\end{tabular}"]
    notes = [rf"$^\dagger$ {CONTROL}"] if any(row.control for row in board.rows) else []
    notes += [f"{_raised(mark)} {_tex(reason)}" for reason, mark in reasons.items()]
    notes += [_tex(board.note)] * bool(board.note)
    if notes:
        lines += ["", r"\smallskip", r"\raggedright\footnotesize", "; ".join(notes) + "."]
    return "\n".join([*lines, rf"\end{{{place}}}"]) + "\n"


def markdown(board: Board) -> str:
    """Return a table in Markdown, with its caption and notes."""
    reasons = _marked(board)
    lines = [["method", *map(_plain, board.columns)], ["---", *["---:"] * len(board.columns)]]
    for method, control, cells in board.rows:
        row = [f"`{method}`" + (" †" if control else "")]
        for cell in cells:
            text = f"**{cell.text}**" if cell.best else cell.text
            mark = f"<sup>{reasons[cell.reason]}</sup>" if cell.reason else ""
            row.append(text + (f" {_plain(cell.suffix)}" if cell.suffix else "") + mark)
        lines.append(row)
    notes = [f"† {CONTROL}"] if any(row.control for row in board.rows) else []
    notes += [f"<sup>{mark}</sup> {_plain(reason)}" for reason, mark in reasons.items()]
    notes += [_plain(board.note)] * bool(board.note)
    body = "\n".join("| " + " | ".join(line) + " |" for line in lines)
    return f"{_plain(board.title)}.\n\n{body}\n" + (f"\n{'; '.join(notes)}.\n" if notes else "")


def _leaderboard(here: xr.Dataset, metric: str) -> Board:
    """Return the table of one metric on one classifier: mean, count and rank of each method."""
    one, rows = here.sel(metric=metric), []
    letters = dict(zip(*(one[name].values.tolist() for name in ("method", "letters")), strict=True))
    lettered = 0 < max(map(len, letters.values())) <= LETTERS
    for method, control, cell in _methods(one, one["rank"].values):
        reason = _reason(one, method, cell)
        rank, low, high = (cell[name] for name in ("rank", "rank_low", "rank_high"))
        place = Cell("n/a", reason=reason)
        if not math.isnan(rank):
            place = Cell(f"{rank:.0f}", "" if math.isnan(low + high) else f"[{low:.0f}, {high:.0f}]", rank == 1)
        of = Cell(f"{cell['count']:.0f}" + (f" of {cell['asked']:.0f}" if cell["count"] != cell["asked"] else ""))
        alike = [Cell(letters[method])] if lettered else []
        rows.append(Row(method, control, [_number(cell, "mean", reason, rank == 1), of, place, *alike]))
    better, unit = str(one["better"].values), "tiles of grids" if str(one["unit"].values) == "tile" else "images"
    classifier = str(one["classifier"].values)
    title = (
        f"{one['metric_long_name'].values} on {classifier}, {better} is better: mean over {unit}, {_intervals(here)} "
        f"(means: {MEANS})"
    )
    columns = [f"mean {ARROWS[better]}", "defined", "rank ↓", *["alike"] * lettered]
    over = shared(one)
    notes = [f"ranks are over the {over} {unit} on which all ranked methods have a score"] if over else []
    return Board(f"{classifier}/{metric}", title, columns, rows, note="; ".join([*notes, *[ALIKE] * lettered]))


def _mean_ranks(here: xr.Dataset, name: str, variable: str, where: str) -> Board:
    """Return the table of mean ranks: on one classifier, by one family of metrics there, or over all."""
    best, rows = _least(here, variable), []
    among, same = int(here[f"{variable}_methods"]), "" if variable == "family_rank" else SCALED[here.attrs["weights"]]
    for method, control, cell in _methods(here, here[variable].values):
        number = Cell(f"{cell[f'{variable}_metrics']:.0f}")
        rows.append(Row(method, control, [_mean_rank(cell, variable, best), number]))
    title = f"Mean of the ranks by {where}, 1 is best of {among}{same}, {_intervals(here)}"
    return Board(name, title, ["mean rank ↓", "rankings"], rows)


def _every(here: xr.Dataset) -> Board:
    """Return the table of all metrics on one classifier side by side: means only, and the mean rank."""
    ranks, metrics, columns = here["mean_rank"].values, ranking_metrics(here), []
    best = _least(here, "mean_rank")
    rows = _methods(here, ranks)
    columns.append([_mean_rank(cell, "mean_rank", best) for _, _, cell in rows])
    for metric in metrics:
        one = here.sel(metric=metric)
        cells = [(cell, _reason(one, method, cell)) for method, _, cell in _methods(one, ranks)]
        columns.append([_number(cell, "mean", reason, cell["rank"] == 1) for cell, reason in cells])
    # A power of ten follows the interval, and must stay.
    columns = [[cell._replace(suffix=cell.suffix.partition("]")[2].strip()) for cell in column] for column in columns]
    arrows = [ARROWS[better] for better in here["better"].sel(metric=metrics).values.tolist()]
    heads = ["mean rank ↓", *(f"{metric} {arrow}" for metric, arrow in zip(metrics, arrows, strict=True))]
    classifier = str(here["classifier"].values)
    title = f"Means by every metric on {classifier}; the arrow says which way is better"
    whole = [Row(*row[:2], list(cells)) for row, cells in zip(rows, zip(*columns, strict=True), strict=True)]
    return Board(classifier, title, heads, whole, wide=True)


def _methods(table: xr.Dataset, ranks: np.ndarray) -> list[tuple[str, bool, dict[str, float]]]:
    """Return the methods, best first, each with its numbers."""
    names = [str(name) for name in table.data_vars if table[name].dims == ("method",)]
    columns = {name: table[name].values.tolist() for name in names}
    about = list(zip(table["method"].values.tolist(), table["control"].values.tolist(), strict=True))
    order = np.argsort(ranks, kind="stable").tolist()
    return [(*about[at], {name: float(column[at]) for name, column in columns.items()}) for at in order]


def _least(here: xr.Dataset, variable: str) -> float:
    """Return the best mean rank among methods that have most rankings."""
    ranks = here[variable].values[here[f"{variable}_mostly"].values > 0].tolist()
    return min((rank for rank in ranks if not math.isnan(rank)), default=math.nan)


def _mean_rank(cell: dict[str, float], variable: str, least: float) -> Cell:
    if math.isnan(cell[variable]):
        return _number(cell, variable, UNRANKED, best=False)
    lacking = not cell[f"{variable}_mostly"]
    return _number(cell, variable, PARTLY if lacking else "", cell[variable] == least and not lacking)


def _number(cell: dict[str, float], name: str, reason: str, best: bool) -> Cell:
    ends = ("low", "high") if name == "mean" else (f"{name}_low", f"{name}_high")
    if math.isnan(cell[name]):
        return Cell("n/a", reason=reason)
    return Cell(*formatted(cell[name], *(cell[end] for end in ends)), best, reason)


def _reason(one: xr.Dataset, method: str, cell: dict[str, float]) -> str:
    """Return why a method has no mean, or no rank, by a metric on a classifier; empty if it has both."""
    if not math.isnan(cell["rank"]):
        return ""
    classifier, metric = (str(one[name].values) for name in ("classifier", "metric"))
    message = one.attrs["unsupported"].get(classifier, {}).get(method, {}).get(metric)
    if message:
        return message
    if not cell["asked"]:
        return "not scored by this metric"
    if cell["rank_count"] and tied(one):
        return TIED
    few = f"fewer than {one.attrs['min_count']} images or grids have a score, or share one with all that are ranked"
    return few if cell["count"] else "no score is defined"


def _intervals(table: xr.Dataset) -> str:
    return f"with {100 * table.attrs['bootstrap']['level']:.3g} % intervals"


def _marked(board: Board) -> dict[str, str]:
    """Assign each reason a letter, or a number if there are many, in order of appearance."""
    reasons = list(dict.fromkeys(cell.reason for row in board.rows for cell in row.cells if cell.reason))
    return {reason: chr(ord("a") + at) if len(reasons) <= 26 else str(at + 1) for at, reason in enumerate(reasons)}


def _raised(mark: str) -> str:
    return rf"\textsuperscript{{{mark}}}" if mark else ""


def _tex(text: str) -> str:
    raised = re.split("([⁻⁰¹²³⁴⁵⁶⁷⁸⁹]+)", text)
    plain = ["".join(LATEX.get(one, one) for one in part) for part in raised[::2]]
    powers = [f"$^{{{part.translate(SUNK)}}}$" for part in raised[1::2]]
    return "".join(one for pair in zip(plain, [*powers, ""], strict=True) for one in pair)


def _plain(text: str) -> str:
    return "".join(MARKDOWN.get(one, one) for one in text)
