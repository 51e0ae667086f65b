"""What the authors of the certificates measured (anani2025pixel), beside what a study of the same networks did.

published.csv holds what was read off the charts of their rebuttal and poster: no table of the paper prints it.
"""

import csv
from pathlib import Path
from typing import NamedTuple

from stages.figures.tradeoff import Point
from stages.figures.voted import CORRECTED, Found, Test
from stages.params import entries
from stages.settings import Entry

FILE = Path(__file__).with_name("published.csv")
# Our functions that are a published method at its layer of features.
NAMED = {"rise_features": "rise", "occlusion_features": "occlusion"}
# How the authors measured, by their published code.
FORM, FIRST, REST, ALPHA, CORRECTION = "authors", 10, 90, 0.001, "bonferroni"
TILE, TILES, EMPTY = 0, 2, "zero"  # of grids: the tile explained, tiles a side, what a map scores of which nothing is
GAME, DELETION = "certified_grid_pointing_game", "certified_deletion"


class Compared(NamedTuple):
    """A published mean and ours, and what ours is measured otherwise by, what weighs most first."""

    method: str
    metric: Entry
    test: Test
    level: int
    published: float
    source: str
    ours: Point
    differs: list[str]

    @property
    def difference(self) -> float:
        """Ours less the published one."""
        return self.ours.mean - self.published


def facts() -> list[dict[str, str]]:
    """Read the published means: network, method, layer, metric, sigma, tau, level, value, source."""
    with FILE.open(newline="") as file:
        return list(csv.DictReader(file))


def joined(known: Found, given: dict) -> list[tuple[str, str, list[Compared]]]:
    """Find what was published of each classifier that is one of the networks of the paper on ImageNet.

    A method is found by its function and layer, a metric by its function, σ, τ and level. Of several metrics the one
    is taken that is measured most as the authors did: with their form of the top, on their tile, then with the fewest
    other differences.

    Returns:
        Classifier, network and the means of both, where there are any; ours is NaN where the method has no mean.
    """
    listed = [one for family in entries(given, "methods").values() for one in family.values()]
    by_method: dict[tuple[str, str], list[Entry]] = {}
    for one in listed:
        at = NAMED.get(one.function, one.function), one.settings.get("layer", "input")
        if not one.options["reverse"]:
            by_method.setdefault(at, []).append(one)
    found, all_facts = [], facts()
    for classifier in known.table["classifier"].values.tolist():
        about = given["classifiers"][classifier]
        dataset, network = about["dataset"], about["network"].get("name", "")
        if given["datasets"][dataset].get("family", dataset) != "imagenet":
            continue
        rows = [
            ours
            for fact in all_facts
            if fact["network"] == network
            for method in by_method.get((fact["method"], fact["layer"]), [])
            if (ours := _ours(known, classifier, about["grids"]["tiles_per_side"], method.name, fact)) is not None
        ]
        if rows:
            found.append((classifier, network, rows))
    return found


def differs(metric: Entry, test: Test, tiles: int) -> list[str]:
    """Say what a metric measures otherwise than the authors, what weighs most first.

    Args:
        metric: An entry of a metric of votes.
        test: One of its tests.
        tiles: Tiles a side of the classifier's grids.
    """
    of, tile = test.smoothing.settings, metric.options["tile"]
    form = [] if of["form"] == FORM else [f"form {of['form']}"]
    found = []
    if metric.function == GAME:
        form += [] if tile == TILE else ["all tiles" if tile is None else f"tile {tile}"]
        found += [] if tiles == TILES else [f"{tiles} × {tiles} tiles"]
        found += [] if metric.settings["nothing"] == EMPTY else ["empty maps left out"]
    if (of["first"], of["rest"]) != (FIRST, REST):
        found.append(f"{of['first']} + {of['rest']} votes")
    found += [] if test.alpha == ALPHA else [f"α = {test.alpha:g}"]
    found += [] if test.correction == CORRECTION else [CORRECTED[test.correction] or "uncorrected"]
    return form + found


def _ours(known: Found, classifier: str, tiles: int, method: str, fact: dict[str, str]) -> Compared | None:
    """Give our mean of a fact by the metric that is measured most alike, one with a mean before one without."""
    level, found = int(fact["level"]), []
    for metric in known.of(fact["metric"]):
        test = _alike(known, metric, fact)
        if test is None or method not in known.judged(metric):
            continue
        if level not in [*test.smoothing.settings["levels"], *([0] if metric.function == DELETION else [])]:
            continue
        ours = known.point(metric, classifier, method, known.where(test), level)
        told = float(fact["value"]), fact["source"], ours, differs(metric, test, tiles)
        found.append(Compared(method, metric, test, level, *told))
    return min(found, key=_unlike, default=None)


def _unlike(one: Compared) -> tuple[bool, bool, bool, int]:
    """Weigh how far a mean is from being measured as the authors did."""
    form = one.test.smoothing.settings["form"] != FORM
    tile = one.metric.function == GAME and one.metric.options["tile"] != TILE
    return not one.ours.known, form, tile, len(one.differs)


def _alike(known: Found, metric: Entry, fact: dict[str, str]) -> Test | None:
    """Give the test of a metric at a fact's σ and τ, if any."""
    sigma, tau = float(fact["sigma"]), float(fact["tau"])
    tests = known.tests(metric)
    return next((one for one in tests if (one.smoothing.settings["sigma"], one.tau) == (sigma, tau)), None)
