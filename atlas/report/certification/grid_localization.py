"""Whether certified pixels on grids lie in the explained tile: by level, σ and τ, as lines and in numbers."""

from concurrent.futures import Executor
from typing import Any

import numpy as np

from atlas.report.certification import certified_curves
from atlas.report.certification.certified_curves import Numbers, Step
from atlas.report.certification.certified_results import Found, Test, on_grids
from atlas.report.charts import curve_plot
from atlas.report.charts.curve_plot import Frame
from atlas.study.schema.settings import Entry

GAME, GRIDS, NOTHING = "certified_grid_pointing_game", "grid_abstained", "certified_nothing"
TIES = "grid_parted_ties"
# Headings of columns.
COLUMNS = {GAME: "game", GRIDS: "abstained, %", NOTHING: "nothing important", TIES: "samples with ties"}
TIED = (
    "Samples with ties: equal scores lay at the edge of the top and were left out together, so that fewer pixels are "
    "at the top, and what is certified unimportant says little."
)


def sweep_charts(known: Found, given: dict, processes: Executor) -> list[tuple[str, list[dict[str, Any]]]]:
    """Return charts of the certified grid pointing game by level, by σ at one τ, and by τ at one σ.

    Args:
        known: The results.
        given: The content of params.yaml.
        processes: Processes that draw the charts.

    Returns:
        The swept quantity, and for each entry with more than one step the caption's words; by classifier, a chart per
        family of methods, and a table.
    """
    found = {
        what: [one for game in known.of(GAME) if (one := _swept(known, given, game, what))]
        for what in certified_curves.SPELLED
    }
    calls = [call for listed in found.values() for one in listed for call in one.pop("calls")]
    drawn = processes.map(curve_plot.chart, *zip(*calls, strict=True))
    for listed in found.values():
        for one in listed:
            one["shown"] = [
                (name, [(family, next(drawn)) for family in families], numbers)
                for name, families, numbers in one["shown"]
            ]
    return [(what, listed) for what, listed in found.items() if listed]


def chance(given: dict, classifier: str) -> float:
    """Return the expected score by chance: 1 / tiles."""
    return 1 / given["classifiers"][classifier]["grids"]["tiles_per_side"] ** 2


def _swept(known: Found, given: dict, game: Entry, what: str) -> dict[str, Any] | None:
    ranks, there, methods = known.test(game), certified_curves.steps(known, game, what), known.scored(game)
    if len(there) < 2 or not methods:
        return None
    at = {"level": ranks.place, "sigma": f"τ = {ranks.tau:g}", "tau": f"σ = {ranks.smoothing.settings['sigma']:g}"}
    heads = [(game.name, " ".join(step.title.split())) for step in there]
    calls: list[Any] = []
    shown: list[tuple] = []
    for classifier in known.classifiers(game):
        rows = [
            (
                name,
                known.control(name),
                [known.point(game, classifier, name, known.where(step.test), step.level) for step in there],
            )
            for name in methods
        ]
        places = [_place(step, what) for step in there]
        across = "the top …" if what == "level" else certified_curves.SPELLED[what]
        frame = Frame(
            np.arange(len(there)), places, across, "game", certified_curves.BENEATH, 1, chance=chance(given, classifier)
        )
        alt = f"Certified grid pointing game on {classifier} by {certified_curves.SPELLED[what]} at {at[what]}, "
        alt += f"from {places[0]} to {places[-1]}, {frame.chance:.3g} by chance"
        charts = certified_curves.lines(known, rows, frame, f"game_{what}_{game.name}_{classifier}", alt)
        calls += charts.values()
        shown.append((classifier, list(charts), Numbers(heads, rows)))
    about = {"entry": game.name, "level": game.options["level"], "at": at[what], "how": ranks.how}
    about |= {"tile": game.options["tile"], "nothing": game.settings["nothing"]}
    return {**about, "beyond": certified_curves.beyond(known, game, there), "calls": calls, "shown": shown}


def _place(step: Step, what: str) -> str:
    """Return the label of a step on the axis."""
    test = step.test
    return {"level": f"{step.level}%", "sigma": f"{test.smoothing.settings['sigma']:g}", "tau": f"{test.tau:g}"}[what]


def tests(known: Found) -> list[tuple[Test, int | None]]:
    """Return the distinct tests by which metrics of votes on grids rank, and the tile if only one is explained."""
    found = [(known.test(one), one.options["tile"]) for one in known.metrics if on_grids(one)]
    return list({(test.name, tile): (test, tile) for test, tile in found}.values())


def numbers(known: Found, classifier: str, test: Test, tile: int | None) -> list[dict[str, Any]]:
    """Return a table per level of the certified results on grids by a test."""
    listed = [one for function in COLUMNS for one in known.of(function) if known.uses(one, test, tile)]
    functions = [one.function for one in listed]
    heads = [(one.name, COLUMNS[one.function] if functions.count(one.function) == 1 else one.name) for one in listed]
    name = test.name if tile is None else f"{test.name}, tile {tile}"
    about: dict[str, Any] = {
        "test": name,
        "tile": tile,
        "at": test.place,
        "how": test.how,
        "classifier": classifier,
        "heads": heads,
    }
    about["notes"] = [TIED] if TIES in functions else []
    radius, found = known.where(test), []
    for level in test.smoothing.settings["levels"]:
        rows = [
            (method, known.control(method), [known.point(one, classifier, method, radius, level) for one in listed])
            for method in test.smoothing.methods
        ]
        found.append({**about, "level": level, "rows": rows})
    return found
