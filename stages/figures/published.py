"""What the authors of the certificates measured (anani2025pixel), beside what a study of the same networks did.

published.csv holds what was read off the charts of their rebuttal and poster: no table of the paper prints it.
"""

import csv
from pathlib import Path
from typing import NamedTuple

from stages.figures.tradeoff import Point
from stages.figures.voted import Found
from stages.params import entries
from stages.settings import Entry

FILE = Path(__file__).with_name("published.csv")
# Our functions that are a published method at its layer of features.
NAMED = {"rise_features": "rise", "occlusion_features": "occlusion"}


class Compared(NamedTuple):
    """A published mean and ours."""

    method: str
    metric: str
    radius: float
    level: int
    published: float
    source: str
    ours: Point

    @property
    def difference(self) -> float:
        """Ours less the published one."""
        return self.ours.mean - self.published


def facts() -> list[dict[str, str]]:
    """Read the published means: network, method, layer, metric, radius, level, value, source."""
    with FILE.open(newline="") as file:
        return list(csv.DictReader(file))


def joined(known: Found, given: dict) -> list[tuple[str, str, list[Compared]]]:
    """Find what was published of each classifier that is one of the networks of the paper on ImageNet.

    A method is found by its function and layer, a metric by its function, a radius by two digits.

    Returns:
        Classifier, network and the means of both, where there are any.
    """
    listed = [one for family in entries(given, "methods").values() for one in family.values()]
    by_method: dict[tuple[str, str], list[Entry]] = {}
    for one in listed:
        at = NAMED.get(one.function, one.function), one.settings.get("layer", "input")
        by_method.setdefault(at, []).append(one)
    found = []
    for classifier in known.table["classifier"].values.tolist():
        about = given["classifiers"][classifier]
        dataset, network = about["dataset"], about["network"].get("name", "")
        if given["datasets"][dataset].get("family", dataset) != "imagenet":
            continue
        rows = [
            Compared(method.name, metric.name, radius, int(fact["level"]), float(fact["value"]), fact["source"], ours)
            for fact in facts()
            if fact["network"] == network
            for method in by_method.get((fact["method"], fact["layer"]), [])
            for metric, radius, ours in _ours(known, classifier, method.name, fact)
        ]
        if rows:
            found.append((classifier, network, rows))
    return found


def _ours(known: Found, classifier: str, method: str, fact: dict[str, str]) -> list[tuple[Entry, float, Point]]:
    """Give the first entry's mean that there is at a fact's radius and level, if any."""
    for metric in known.metrics:
        for radius in known.radii(metric) if metric.function == fact["metric"] else []:
            ours = known.point(metric, classifier, method, radius, int(fact["level"]))
            if f"{radius:.2f}" == fact["radius"] and ours.known:
                return [(metric, radius, ours)]
    return []
