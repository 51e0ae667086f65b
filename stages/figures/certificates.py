"""What the report says of certified maps, as plain values for its template."""

from concurrent.futures import Executor
from typing import Any

import numpy as np
import xarray as xr

from stages.certification import Votes
from stages.figures import certified, sweeps, tradeoff
from stages.figures.page import Shown
from stages.figures.pictures import image
from stages.figures.sweeps import Bar, Facet
from stages.figures.theme import keys
from stages.figures.tradeoff import Point, Traded
from stages.figures.voted import Found, Test, first_test
from stages.settings import Entry

IMPORTANT, UNIMPORTANT, ABSTAINED = "certified_important", "certified_unimportant", "abstained"
GAME, GRIDS, NOTHING = "certified_grid_pointing_game", "grid_abstained", "certified_nothing"
# What a column is called.
COLUMNS = {
    IMPORTANT: "important, %",
    UNIMPORTANT: "unimportant, %",
    ABSTAINED: "abstained, %",
    "certified_localization": "localization",
    "certified_deletion": "probability without",
    "certified_consistency": "as in the clean map",
    "parted_ties": "copies with ties",
}
CORRECTED = {"bonferroni": "Bonferroni’s correction", "holm": "Holm’s correction", "none": ""}


def section(known: Found, given: dict, processes: Executor) -> dict[str, Any]:
    """Give what the section shows of the results; charts are drawn in other processes."""
    test, table = first_test(given), known.table
    classifiers, methods = (table[name].values.tolist() for name in ("classifier", "method"))
    return {
        "test": said(test),
        "levels": legend(test.smoothing.settings["levels"]),
        "tradeoffs": [one for name in classifiers if (one := traded(known, given, name))],
        "sweeps": [(what, swept(known, what, processes)) for what in ("level", "radius")],
        "numbers": [one for name in classifiers for one in numbers(known, name, test)],
        "columns": [(one.name, COLUMNS[one.function]) for one in columns(known, test)],
        "families": families(table, test.smoothing.methods),
        "uncertified": [name for name in methods if name not in test.smoothing.methods],
    }


def said(test: Test) -> dict[str, Any]:
    """Give the numbers of the certificate's two sentences."""
    of = test.smoothing.settings
    numbers = {name: of[name] for name in ("sigma", "first", "rest")}
    numbers |= {"form": of["form"], "levels": len(of["levels"])}
    numbers |= {"copies": of["first"] + of["rest"], "tau": test.tau, "radius": test.radius, "alpha": test.alpha}
    return {**numbers, "sure": f"{100 * (1 - test.alpha):.6g}%", "correction": CORRECTED[test.correction]}


def legend(levels: list[int]) -> list[tuple[int, str]]:
    """Give each level's color in the pictures."""
    return [
        (level, certified.spelled(color)) for level, color in zip(levels, certified.colors(len(levels)), strict=True)
    ]


def families(table: xr.Dataset, methods: list[str]) -> list[tuple[str, str, str]]:
    """Give color and shape of each family that has a method with votes; controls are hollow and need none."""
    here = table.isel({"method": np.isin(table["method"].values, methods) & ~table["control"].values})
    return keys(list(dict.fromkeys(here["method_family"].values.tolist())))


def traded(known: Found, given: dict, classifier: str) -> dict[str, Any] | None:
    """Give the chart and table of how much is certified on grids against whether it lies in the tile explained.

    The certified share is of grids, or of images where that was not measured.
    """
    game = known.of(GAME)
    test = game and known.test(game)
    share = test and (known.alike(GRIDS, test, game.options["tile"]) or known.alike(ABSTAINED, test))
    if not share:
        return None
    level, radius, table = game.options["level"], known.place(test), known.table
    nothing = known.alike(NOTHING, test, game.options["tile"])
    listed = []
    for method in known.test(game).smoothing.methods:
        about = table.sel({"method": method})
        left = known.point(share, classifier, method, radius, level)
        certain = Point(*(1 - one / 100 for one in (left.mean, left.high, left.low)), left.count)
        place = known.point(game, classifier, method, radius, level)
        empty = known.point(nothing, classifier, method, radius, level)
        filled = round(empty.count * (1 - empty.mean)) if empty.known else None
        family, control = str(about["method_family"].values), bool(about["control"])
        listed.append(Traded(method, family, control, place, certain, filled))
    listed.sort(key=lambda one: np.hypot(1 - one.game.mean, 1 - one.share.mean) if one.known else np.inf)
    order = [name for name, _, _ in families(table, known.test(game).smoothing.methods)] + ["control"]
    chance = 1 / given["classifiers"][classifier]["grids"]["tiles_per_side"] ** 2
    return {
        "classifier": classifier,
        "chart": tradeoff.chart(listed, order, chance, classifier),
        "rows": listed,
        "level": level,
        "radius": radius,
        "chance": chance,
        "grids": share.function == GRIDS,
    }


def swept(known: Found, what: str, processes: Executor) -> dict[str, Any] | None:
    """Give a chart a classifier of the certified shares by level, or by radius where there are several."""
    fewest = 2 if what == "radius" else 1
    important, unimportant = (known.of(name, radii=fewest) for name in (IMPORTANT, UNIMPORTANT))
    first = important or unimportant
    if first is None:
        return None
    if important and unimportant and _how(important) != _how(unimportant):
        unimportant = None
    levels = known.test(first).smoothing.settings["levels"]
    rank, radii = first.options["level"], known.radii(first)
    steps = [(radii[0], one) for one in levels] if what == "level" else [(one, rank) for one in sorted(radii)]
    methods = [
        name
        for name in known.test(first).smoothing.methods
        if all(name in known.ways[way].methods for way in first.options["smoothings"])
    ]
    calls = []
    for classifier in known.table["classifier"].values.tolist():
        order = sorted(methods, key=lambda name: -_total(known, important, unimportant, classifier, name, radii[0]))
        facets = []
        for radius, level in steps:
            bars = [
                Bar(
                    method,
                    bool(known.table["control"].sel({"method": method})),
                    *(
                        known.point(one, classifier, method, radius, level) if one else None
                        for one in (important, unimportant)
                    ),
                )
                for method in order
            ]
            facets.append(Facet(f"top {level}%" if what == "level" else f"radius {radius:.3f}", level, bars))
        leading = ", ".join(order[:3])
        alt = f"Certified share of the pixels by {what} on {classifier}, most first: {leading}; numbers below."
        calls.append((facets, f"certified_{what}_{classifier}", alt))
    charts = zip(
        known.table["classifier"].values.tolist(), processes.map(sweeps.chart, *zip(*calls, strict=True)), strict=True
    )
    parts = [name for name, one in (("important", important), ("unimportant", unimportant)) if one]
    return {"charts": list(charts), "level": rank, "radius": radii[0], "parts": parts, "test": said(known.test(first))}


def columns(known: Found, test: Test) -> list[Entry]:
    """List the metrics of single images that are judged by a test."""
    return [one for one in (known.alike(function, test) for function in COLUMNS) if one is not None]


def numbers(known: Found, classifier: str, test: Test) -> list[dict[str, Any]]:
    """Give a table a level of what is certified by a test."""
    rows, listed = [], columns(known, test)
    for level in test.smoothing.settings["levels"] if listed else []:
        cells = [
            (
                method,
                bool(known.table["control"].sel({"method": method})),
                [known.point(one, classifier, method, known.place(test), level) for one in listed],
            )
            for method in test.smoothing.methods
        ]
        rows.append({"classifier": classifier, "level": level, "rows": cells})
    return rows


def panels(shown: dict[str, list[Shown]], votes: dict[str, dict[str, Votes]], test: Test, *, side: int) -> list[dict]:
    """Give the pictures of each image: what is certified of every certified method's map, None where there is none.

    Args:
        shown: The first images by classifier.
        votes: By classifier and method, on the maps of these images.
        test: What makes labels of votes.
        side: Pixels that a picture has at most a side.
    """
    levels, found = test.smoothing.settings["levels"], []
    for classifier, listed in shown.items():
        marks = {method: test.labels(cast) for method, cast in votes[classifier].items()}
        for row, one in enumerate(listed if marks else []):
            what = f"{one.target}, image {one.image}"
            rows = []
            for method in test.smoothing.methods:
                drawn = []
                if method in marks:
                    own, named = marks[method][row], f"of {method}: {what}"
                    drawn = [certified.overlay(own, f"Certified important at all levels {named}", side=side)]
                    drawn += [
                        certified.panel(own, place, f"Certified of the top {level}% {named}", side=side)
                        for place, level in enumerate(levels)
                    ]
                    cast = votes[classifier][method]
                    drawn.append(certified.average(cast, row, 0, f"Smoothed top {levels[0]}% {named}", side=side))
                rows.append((method, drawn))
            picture = image(one.pixels, f"The image: {what}", side=side)
            known = {"classifier": classifier, "image": one.image, "target": one.target}
            found.append({**known, "picture": picture, "rows": rows})
    return found


def _how(metric: Entry) -> tuple[Any, ...]:
    return metric.options["smoothings"], *(metric.settings[name] for name in ("tau", "alpha", "correction"))


def _total(
    known: Found, important: Entry | None, unimportant: Entry | None, classifier: str, method: str, radius: float
) -> float:
    parts = [
        known.point(one, classifier, method, radius, one.options["level"]).mean
        for one in (important, unimportant)
        if one is not None
    ]
    return -np.inf if np.isnan(parts).any() else sum(parts)
