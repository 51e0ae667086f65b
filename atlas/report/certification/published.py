"""Measurements of the authors of the certificates (anani2025pixel), beside those of a study of the same networks.

published.csv has values read from the charts of their rebuttal and poster: no table of the paper prints them.
published_caveats.csv lists caveats and inferences; an empty cell means all.
"""

import csv
from pathlib import Path
from typing import NamedTuple

from atlas.report.certification import protocol
from atlas.report.certification.certified_results import Found, Test, on_grids
from atlas.report.charts.tradeoff import Point
from atlas.study.params import entries
from atlas.study.schema.settings import Entry

FILE, CAVEATS = (Path(__file__).with_name(name) for name in ("published.csv", "published_caveats.csv"))
# Our functions that equal a published method at its layer of features.
NAMED = {"rise_features": "rise", "occlusion_features": "occlusion"}
DELETION, LEFT = "certified_deletion", "grid_abstained"


class Compared(NamedTuple):
    """A published mean and ours, the differences of ours, the most important first, and caveats of theirs."""

    method: str
    metric: Entry
    test: Test
    level: int
    published: float
    source: str
    ours: Point
    differs: list[str]
    caveat: str

    @property
    def difference(self) -> float:
        """Our mean minus the published one."""
        return self.ours.mean - self.published


def facts() -> list[dict[str, str]]:
    """Read the published means: network, method, layer, metric, sigma, tau, level, value, source, caveat."""
    known = _rows(CAVEATS)
    found = _rows(FILE)
    for fact in found:
        text = [one["caveat"] for one in known if all(fact[key] == one[key] for key in one if key in fact and one[key])]
        fact["caveat"] = "; ".join(text)
    return found


def joined(known: Found, given: dict) -> list[tuple[str, str, list[Compared]]]:
    """Return the published means for each classifier that is one of the paper's networks on ImageNet.

    Methods are matched by function and layer, metrics by function, σ, τ and level. Of several metrics, the one closest
    to the authors' protocol is used: with their form of the top, on their tile, then with the fewest other differences.

    Returns:
        Classifier, network and the means of both, if there are any; ours is NaN where the method has no mean.
    """
    by_method, found, all_facts = _methods(given), [], facts()
    for classifier in known.table["classifier"].values.tolist():
        network = _network(given, classifier)
        rows = [
            ours
            for fact in all_facts
            if fact["network"] == network
            for method in by_method.get((fact["method"], fact["layer"]), [])
            if (ours := _ours(known, given, classifier, method, fact)) is not None
        ]
        if rows:
            found.append((classifier, network, rows))
    return found


def places(known: Found, given: dict, game: Entry, classifier: str) -> dict[str, tuple[float, float]]:
    """Return the place of our methods in the authors' trade-off: certified grid pointing game and certified share, 0 to
    1.

    Methods are matched as in the table of means; the place is looked up by the network, the σ and τ of the test by
    which the game ranks, and its level.
    """
    network, test, by_method = _network(given, classifier), known.test(game), _methods(given)
    there: dict[str, dict[str, float]] = {}
    for fact in facts() if network else []:
        if fact["network"] == network and _tested(test, fact) and int(fact["level"]) == game.options["level"]:
            for method in by_method.get((fact["method"], fact["layer"]), []):
                there.setdefault(method.name, {})[fact["metric"]] = float(fact["value"])
    return {
        name: (one[protocol.GAME], 1 - one[LEFT] / 100)
        for name, one in there.items()
        if protocol.GAME in one and LEFT in one
    }


def _rows(file: Path) -> list[dict[str, str]]:
    with file.open(newline="") as lines:
        return list(csv.DictReader(lines))


def _methods(given: dict) -> dict[tuple[str, str], list[Entry]]:
    """Return the entries that are a method at a layer, whatever their other settings."""
    found: dict[tuple[str, str], list[Entry]] = {}
    for one in [one for family in entries(given, "methods").values() for one in family.values()]:
        at = NAMED.get(one.function, one.function), one.settings.get("layer", "input")
        if not one.options["reverse"]:
            found.setdefault(at, []).append(one)
    return found


def _network(given: dict, classifier: str) -> str:
    """Return the torchvision network of an ImageNet classifier; empty if it is none."""
    about = given["classifiers"][classifier]
    dataset = about["dataset"]
    of = given["datasets"][dataset].get("family", dataset)
    return about["network"].get("name", "") if of == "imagenet" else ""


def _ours(known: Found, given: dict, classifier: str, method: Entry, fact: dict[str, str]) -> Compared | None:
    """Return our mean for a published fact by the metric closest to the protocol; one with a mean has priority."""
    level, found, name = int(fact["level"]), [], method.name
    theirs = protocol.settings(fact["method"], fact["layer"], fact["network"])
    other = protocol.unlike_settings(method, theirs, fact["network"])
    for metric in known.of(fact["metric"]):
        test = _alike(known, metric, fact)
        if test is None or name not in known.scored(metric) or classifier not in known.classifiers(metric):
            continue
        if level not in [*test.smoothing.settings["levels"], *([0] if metric.function == DELETION else [])]:
            continue
        ours = known.point(metric, classifier, name, known.where(test), level)
        message = protocol.differs(metric, test, given, classifier, other), fact["caveat"]
        found.append(Compared(name, metric, test, level, float(fact["value"]), fact["source"], ours, *message))
    return min(found, key=_unlike, default=None)


def _unlike(one: Compared) -> tuple[bool, bool, bool, int]:
    """Return a sort key: how far a mean is from the authors' protocol."""
    form = one.test.smoothing.settings["form"] != protocol.FORM
    tile = on_grids(one.metric) and one.metric.options["tile"] != protocol.TILE
    return not one.ours.known, form, tile, len(one.differs)


def _alike(known: Found, metric: Entry, fact: dict[str, str]) -> Test | None:
    """Return the test of a metric at a published fact's σ and τ, if any."""
    return next((one for one in known.tests(metric) if _tested(one, fact)), None)


def _tested(test: Test, fact: dict[str, str]) -> bool:
    return (test.smoothing.settings["sigma"], test.tau) == (float(fact["sigma"]), float(fact["tau"]))
