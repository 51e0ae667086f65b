"""Results of metrics of votes, bound to the entries of params.yaml that they are of."""

from typing import NamedTuple

import numpy as np
import xarray as xr

from stages import certification
from stages.certification import Votes
from stages.figures.tradeoff import Point
from stages.params import entries
from stages.problem import Problem
from stages.settings import Entry
from stages.smoothing import Smoothing, radius, smoothings

NOWHERE = Point(np.nan, np.nan, np.nan, 0)


class Test(NamedTuple):
    """How the votes of a smoothing are tested for labels."""

    smoothing: Smoothing
    tau: float
    alpha: float
    correction: certification.Correction

    @property
    def radius(self) -> float:
        """The L2 norm of changes that no label minds."""
        return radius(self.smoothing.settings["sigma"], self.tau)

    def labels(self, votes: Votes) -> np.ndarray:
        """Label the pixels of some images."""
        return certification.labels(votes, tau=self.tau, alpha=self.alpha, correction=self.correction)


class Found(NamedTuple):
    """The results of metrics of votes, and the entries they are of."""

    table: xr.Dataset
    values: np.ndarray  # mean, low, high and count by classifier, method, metric, radius and level
    metrics: list[Entry]
    ways: dict[str, Smoothing]

    def of(self, function: str, *, radii: int = 1) -> Entry | None:
        """Give the first entry of a function that is judged at so many radii, at least."""
        known = (one for one in self.metrics if one.function == function and len(self.radii(one)) >= radii)
        return next(known, None)

    def alike(self, function: str, test: Test, tile: int | None = None) -> Entry | None:
        """Give the first entry of a function that is judged by a test, among others, and on the same tiles."""
        for one in self.metrics:
            settings, options = one.settings, one.options
            same = (settings["alpha"], settings["correction"], options["tile"]) == (test.alpha, test.correction, tile)
            there = test.tau in settings["tau"] and test.smoothing.name in options["smoothings"]
            if one.function == function and same and there:
                return one
        return None

    def place(self, test: Test) -> float:
        """Give the label of a test's radius."""
        labels = self.table["radius"].values
        return float(labels[np.abs(labels - test.radius).argmin()])

    def test(self, metric: Entry) -> Test:
        """Give the test by which a metric ranks: of its first smoothing, at its first share of the votes."""
        return _test(metric, self.ways)

    def radii(self, metric: Entry) -> list[float]:
        """Give the radii of a metric, the one by which it ranks first."""
        of = [self.ways[name] for name in metric.options["smoothings"]]
        alpha, correction = metric.settings["alpha"], metric.settings["correction"]
        return [self.place(Test(way, tau, alpha, correction)) for way in of for tau in metric.settings["tau"]]

    def point(self, metric: Entry | None, classifier: str, method: str, radius: float, level: int) -> Point:
        """Look up a mean with its interval and count."""
        if metric is None or level not in self.table.indexes["level"]:
            return NOWHERE
        at = {"classifier": classifier, "method": method, "metric": metric.name, "radius": radius, "level": level}
        place = tuple(self.table.indexes[dim].get_loc(label) for dim, label in at.items())
        mean, low, high, count = self.values[place]
        return Point(float(mean), float(low), float(high), int(count))


def first_test(given: dict) -> Test:
    """Give the test by which the first metric of votes on images ranks, or of votes on grids where there is no other.

    Raises:
        Problem: there is no such metric.
    """
    judged = (one for listed in entries(given, "metrics").values() for one in listed.values())
    tests = [_test(one, _ways(given)) for one in judged if one.options["smoothings"]]
    if not tests:
        raise Problem("params.yaml: no metric names smoothings; expected one, which says how votes are tested")
    return next((one for one in tests if one.smoothing.pictures["images"]), tests[0])


def found(table: xr.Dataset, given: dict) -> Found:
    """Bind the results of metrics of votes to their entries in params.yaml."""
    judged = [one for listed in entries(given, "metrics").values() for one in listed.values()]
    there = set(table["metric"].values.tolist())
    dims = ("classifier", "method", "metric", "radius", "level", "variable")
    values = table[["mean", "low", "high", "count"]].to_array().transpose(*dims).values
    return Found(table, values, [one for one in judged if one.name in there], _ways(given))


def _test(metric: Entry, ways: dict[str, Smoothing]) -> Test:
    of = metric.settings
    return Test(ways[metric.options["smoothings"][0]], of["tau"][0], of["alpha"], of["correction"])


def _ways(given: dict) -> dict[str, Smoothing]:
    return smoothings(given, {name for listed in entries(given, "methods").values() for name in listed})
