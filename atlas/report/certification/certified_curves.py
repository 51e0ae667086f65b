"""Sweeps: the certified share by level, σ and τ, and the target's probability as certified pixels are removed."""

from concurrent.futures import Executor
from typing import Any, NamedTuple

import numpy as np

from atlas.report.certification.certified_results import Found, Test
from atlas.report.charts import curve_plot, sweeps
from atlas.report.charts.curve_plot import Frame, Line
from atlas.report.charts.sweeps import Bar, Facet
from atlas.report.charts.tradeoff import Point
from atlas.study.schema.settings import Entry

IMPORTANT, UNIMPORTANT, DELETION = "certified_important", "certified_unimportant", "certified_deletion"
SPELLED = {"level": "level", "sigma": "σ", "tau": "τ"}
BENEATH = -0.06  # start of the probability axis, so that its lowest tick keeps clear of the x axis
LISTED = 3  # methods whose numbers are in an alternative text
Pair = dict[str, Entry]


class Step(NamedTuple):
    """A step of a sweep: a test, a level, and the label's lines."""

    title: str
    test: Test
    level: int


class Numbers(NamedTuple):
    """A table: the metric and title of each column; then method, whether it is a control, and its means."""

    heads: list[tuple[str, str]]
    rows: list[tuple[str, bool, list[Point]]]


def sweep_charts(known: Found, processes: Executor) -> list[tuple[str, list[dict[str, Any]]]]:
    """Return charts of the certified shares by level, by σ at one τ, and by τ at one σ.

    Args:
        known: The results; of every entry, levels are swept, and σ and τ if it has more than one.
        processes: Processes that draw the charts.

    Returns:
        The swept quantity, and for each entry the caption's words, and a chart and a table per classifier.
    """
    found = {what: [one for pair in pairs(known) if (one := _swept(known, pair, what))] for what in SPELLED}
    calls = [call for listed in found.values() for one in listed for call in one["calls"]]
    drawn = processes.map(sweeps.chart, *zip(*calls, strict=True))
    for listed in found.values():
        for one in listed:
            one["charts"] = [(name, next(drawn), numbers) for name, numbers in one["charts"]]
    return [(what, listed) for what, listed in found.items() if listed]


def pairs(known: Found) -> list[Pair]:
    """Return the entries of certified important and of certified unimportant pixels, by part, pairing those that agree.

    Of entries of one part with the same settings, the first is used.
    """
    found: list[tuple[tuple[Any, ...], Pair]] = []
    for part, function in (("important", IMPORTANT), ("unimportant", UNIMPORTANT)):
        for one in known.of(function):
            how = tuple(one.settings[name] for name in ("tau", "alpha", "correction"))
            how += tuple(one.options[name] for name in ("smoothings", "level"))
            pair = next((pair for other, pair in found if other == how), None)
            if pair is None:
                found.append((how, {part: one}))
            else:
                pair.setdefault(part, one)
    return [pair for _, pair in found]


def steps(known: Found, metric: Entry, what: str) -> list[Step]:
    """Return the steps of a sweep, rising: levels at the test that ranks, or σ or τ at the level that ranks.

    Returns:
        Empty if there is only one σ or τ.
    """
    ranks, level = known.test(metric), metric.options["level"]
    if what == "level":
        return [Step(f"top {one}%", ranks, one) for one in sorted(ranks.smoothing.settings["levels"])]
    fixed = (lambda one: one.tau) if what == "sigma" else (lambda one: one.smoothing.name)
    tests = sorted((one for one in known.tests(metric) if fixed(one) == fixed(ranks)), key=lambda one: one.radius)
    lines = [Step(one.place.replace(" →", "\n→").replace(" = ", " "), one, level) for one in tests]
    return lines if len(lines) > 1 else []


def _swept(known: Found, pair: Pair, what: str) -> dict[str, Any] | None:
    first = next(iter(pair.values()))
    ranks, level, methods = known.test(first), first.options["level"], known.scored(first)
    there = steps(known, first, what)
    if not there or not methods:
        return None
    at = {"level": ranks.place, "sigma": f"τ = {ranks.tau:g}", "tau": f"σ = {ranks.smoothing.settings['sigma']:g}"}
    heads = [(one.name, f"{part}, {' '.join(step.title.split())}") for step in there for part, one in pair.items()]
    calls, charts = [], []
    for classifier in known.table["classifier"].values.tolist():
        totals = {
            name: sum(one.mean for one in _means(known, pair, classifier, name, ranks, level)) for name in methods
        }
        order = sorted(methods, key=lambda name: np.nan_to_num(-totals[name], nan=np.inf))
        rows = []
        for name in order:
            cells = [_means(known, pair, classifier, name, step.test, step.level) for step in there]
            rows.append((name, known.control(name), [one for own in cells for one in own]))
        most = [f"{name} {totals[name]:.3g}%" for name in order if not np.isnan(totals[name])][:LISTED]
        alt = f"Share of the pixels certified {' or '.join(pair)} on {classifier} by {SPELLED[what]} at {at[what]}; "
        alt += f"most of the top {level}% at {ranks.place}: {', '.join(most) or 'none'}; numbers in the table below."
        reached = [known.reaches(first, step.test, classifier) for step in there]
        calls.append((_facets(there, pair, rows, reached), f"certified_{what}_{first.name}_{classifier}", alt))
        charts.append((classifier, Numbers(heads, rows)))
    about = {"entry": first.name, "parts": list(pair), "level": level, "at": at[what], "how": ranks.how}
    return {**about, "beyond": beyond(known, first, there), "calls": calls, "charts": charts}


def beyond(known: Found, metric: Entry, there: list[Step]) -> list[tuple[str, list[str]]]:
    """Return the steps at which no number of votes certifies a pixel: σ and τ, and on which classifiers."""
    tests = {step.test.place: step.test for step in there}.items()
    found = [(place, [name for name in known.pixels if not known.reaches(metric, test, name)]) for place, test in tests]
    return [(place, names) for place, names in found if names]


def _means(known: Found, pair: Pair, classifier: str, method: str, test: Test, level: int) -> list[Point]:
    return [known.point(one, classifier, method, known.where(test), level) for one in pair.values()]


def _facets(
    there: list[Step], pair: Pair, rows: list[tuple[str, bool, list[Point]]], reached: list[bool]
) -> list[Facet]:
    """Convert the rows of a table into the bars of each step."""
    found = []
    for place, step in enumerate(there):
        bars = []
        for name, control, points in rows:
            own = dict(zip(pair, points[place * len(pair) : (place + 1) * len(pair)], strict=True))
            bars.append(Bar(name, control, own.get("important"), own.get("unimportant")))
        found.append(Facet(step.title, step.level, bars, reached[place]))
    return found


def removed(known: Found, processes: Executor) -> list[dict[str, Any]]:
    """Return charts of the target's probability as the pixels certified important are removed, at the test that ranks.

    Args:
        known: The results.
        processes: Processes that draw the charts.

    Returns:
        For each entry the caption's words; by classifier, a chart per family of methods, and a table.
    """
    found: list[dict[str, Any]] = []
    calls: list[Any] = []
    for metric in known.of(DELETION):
        test = known.test(metric)
        levels = [0, *reversed(test.smoothing.settings["levels"])]
        shown = []
        for classifier in known.table["classifier"].values.tolist():
            rows = [
                (
                    name,
                    known.control(name),
                    [known.point(metric, classifier, name, known.where(test), level) for level in levels],
                )
                for name in known.scored(metric)
            ]
            places = ["nothing", *(f"{level}%" for level in levels[1:])]
            across = "removed: certified important up to the top …"
            frame = Frame(np.arange(len(levels)), places, across, "probability", BENEATH, 1)
            alt = f"Mean probability of the target on {classifier} as pixels certified important are removed, from "
            alt += f"nothing to all up to the top {places[-1]}"
            charts = lines(known, rows, frame, f"removed_{metric.name}_{classifier}", alt)
            calls += charts.values()
            heads = [(metric.name, f"without the top {level}%" if level else "nothing removed") for level in levels]
            shown.append((classifier, list(charts), Numbers(heads, rows)))
        about = {"entry": metric.name, "at": test.place, "how": test.how, "baseline": metric.settings["baseline"]}
        found.append({**about, "shown": shown})
    drawn = processes.map(curve_plot.chart, *zip(*calls, strict=True))
    for one in found:
        one["shown"] = [
            (name, [(family, next(drawn)) for family in families], numbers) for name, families, numbers in one["shown"]
        ]
    return found


def lines(
    known: Found, rows: list[tuple[str, bool, list[Point]]], frame: Frame, name: str, alt: str
) -> dict[str, tuple[Any, ...]]:
    """Return what a chart of each family's methods is drawn of; methods without a mean are left out.

    Args:
        known: The results.
        rows: Method, whether it is a control, and its means at each step.
        frame: What the lines are drawn in.
        name: What the charts are of, and no others.
        alt: How their alternative texts begin.
    """
    members: dict[str, list[Line]] = {}
    for method, _, points in rows:
        if any(one.known for one in points):
            line = Line(method, *(np.array([one[place] for one in points]) for place in range(3)))
            members.setdefault(known.family(method), []).append(line)
    controls = members.pop("control", [])
    found = {}
    for family, listed in members.items():
        ends = ", ".join(f"{one.name} {_text(one.mean[0])} to {_text(one.mean[-1])}" for one in listed)
        text = f"{alt}: {ends}; with bands{', controls dashed' if controls else ''}."
        found[family] = (frame, listed, controls, f"{name}_{family}", text)
    return found


def _text(value: float) -> str:
    return "n/a" if np.isnan(value) else f"{value:.2f}"
