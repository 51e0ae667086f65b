"""Results of metrics of votes, with their entries in params.yaml."""

import math
from typing import Any, NamedTuple

import numpy as np
import xarray as xr

from atlas.inputs import certification
from atlas.inputs.certification import Votes
from atlas.report.charts.tradeoff import Point
from atlas.study.errors import UserError
from atlas.study.params import entries
from atlas.study.schema.settings import Entry
from atlas.study.schema.signatures import signature
from atlas.study.schema.smoothing import DIGITS, Smoothing, radius, read_smoothings
from atlas.study.schema.types import Correction

NOWHERE = Point(np.nan, np.nan, np.nan, 0)
CORRECTED = {"bonferroni": "Bonferroni’s correction", "holm": "Holm’s correction", "none": ""}


class Test(NamedTuple):
    """How the votes of a smoothing are tested for labels."""

    smoothing: Smoothing
    tau: float
    alpha: float
    correction: Correction

    @property
    def radius(self) -> float:
        """The L2 norm of image changes up to which labels hold."""
        return radius(self.smoothing.settings["sigma"], self.tau)

    @property
    def reach(self) -> str:
        """The radius to three digits, rounded down."""
        if not self.radius:
            return "0"
        unit = 10.0 ** (math.floor(math.log10(self.radius)) - 2)
        return f"{math.floor(self.radius / unit) * unit:.3g}"

    @property
    def place(self) -> str:
        """σ, τ and the radius, as text."""
        return f"σ = {self.smoothing.settings['sigma']:g}, τ = {self.tau:g} → radius {self.reach}"

    @property
    def how(self) -> str:
        """The test's other settings, as text."""
        return f"form {self.smoothing.settings['form']}, α = {self.alpha:g}, {self.corrected}"

    @property
    def corrected(self) -> str:
        """The correction for the pixels of a map, as text."""
        return CORRECTED[self.correction] or "uncorrected"

    @property
    def name(self) -> str:
        """A name that is unique among the study's tests."""
        return f"{self.smoothing.name}, τ = {self.tau:g}, α = {self.alpha:g}, {self.correction}"

    def text(self) -> dict[str, Any]:
        """Return the numbers in the two sentences on the certificate."""
        of = self.smoothing.settings
        numbers = {name: of[name] for name in ("sigma", "n0", "n", "form")}
        numbers |= {"levels": len(of["levels"]), "samples": of["n0"] + of["n"]}
        numbers |= {"tau": self.tau, "reach": self.reach, "alpha": self.alpha}
        return {**numbers, "sure": f"{100 * (1 - self.alpha):.6g}%", "correction": CORRECTED[self.correction]}

    def needed(self, pixels: int) -> tuple[int, int]:
        """Return the fewest votes that certify a pixel of a map of so many pixels: for the first one, and the last."""
        draws = self.smoothing.settings["n"]
        return certification.needed(draws, self.tau, alpha=self.alpha, correction=self.correction, pixels=pixels)

    def reaches(self, pixels: int) -> bool:
        """Return whether unanimous votes certify a pixel of a map of so many pixels."""
        return self.needed(pixels)[0] <= self.smoothing.settings["n"]

    def votes(self, pixels: int) -> str:
        """Return, as text, how many votes certify a pixel of a map of so many pixels."""
        (first, last), rest = self.needed(pixels), self.smoothing.settings["n"]
        if not self.reaches(pixels):
            return f"none: not even all {rest}"
        return f"{first} of {rest}" if first == last else f"{first} of {rest}, down to {last} as others are certified"

    def labels(self, votes: Votes) -> np.ndarray:
        """Label the pixels of some images."""
        return certification.labels(votes, tau=self.tau, alpha=self.alpha, correction=self.correction)


class Found(NamedTuple):
    """The results of metrics of votes, with their entries."""

    table: xr.Dataset
    values: np.ndarray  # mean, low, high and count by classifier, method, metric, radius and level
    metrics: list[Entry]
    smoothings: dict[str, Smoothing]
    pixels: dict[str, dict[str, int]]  # pixels of a map, by classifier, for `images` and, if there are any, `grids`

    def of(self, function: str) -> list[Entry]:
        """Return the entries of a function."""
        return [one for one in self.metrics if one.function == function]

    def alike(self, function: str, test: Test, tile: int | None = None) -> Entry | None:
        """Return the first entry of a function that uses a test (possibly among others), and the same tiles."""
        return next((one for one in self.of(function) if self.uses(one, test, tile)), None)

    def uses(self, metric: Entry, test: Test, tile: int | None) -> bool:
        """Return whether a metric uses a test (possibly among others), and the same tiles."""
        settings, options = metric.settings, metric.options
        same = (settings["alpha"], settings["correction"], options["tile"]) == (test.alpha, test.correction, tile)
        return same and test.tau in settings["tau"] and test.smoothing.name in options["smoothings"]

    def where(self, test: Test) -> float:
        """Return the label of a test's radius in the results; NaN if they have none."""
        labels = self.table["radius"].values
        nearest = float(labels[np.abs(labels - test.radius).argmin()])
        return nearest if abs(nearest - test.radius) <= 10**-DIGITS else np.nan

    def test(self, metric: Entry) -> Test:
        """Return the test by which a metric ranks: that of its first smoothing at its first τ."""
        return _test(metric, self.smoothings)

    def tests(self, metric: Entry) -> list[Test]:
        """Return the tests of a metric, with the one by which it ranks first."""
        of, settings = [self.smoothings[name] for name in metric.options["smoothings"]], metric.settings
        return [
            Test(smoothing, tau, settings["alpha"], settings["correction"])
            for smoothing in of
            for tau in settings["tau"]
        ]

    def classifiers(self, metric: Entry) -> list[str]:
        """Return the classifiers that have the pictures that a metric scores: images, or grids."""
        return [name for name in self.table["classifier"].values.tolist() if group(metric) in self.pixels[name]]

    def scored(self, metric: Entry) -> list[str]:
        """Return the methods that a metric scores: those that all of its smoothings certify and it does not exclude."""
        smoothings = [self.smoothings[name] for name in metric.options["smoothings"]]
        return [
            name
            for name in self.table["method"].values.tolist()
            if name not in metric.options["exclude"] and all(name in smoothing.methods for smoothing in smoothings)
        ]

    def reaches(self, metric: Entry, test: Test, classifier: str) -> bool:
        """Return whether a test of a metric can certify a pixel of a classifier's maps."""
        return test.reaches(self.pixels[classifier][group(metric)])

    def control(self, method: str) -> bool:
        """Return whether a method is a control."""
        return bool(self.table["control"].values[self.table.indexes["method"].get_loc(method)])

    def family(self, method: str) -> str:
        """Return a method's family."""
        return str(self.table["method_family"].values[self.table.indexes["method"].get_loc(method)])

    def voted(self, method: str) -> list[str]:
        """Return the names of the smoothings that certify a method."""
        return [smoothing.name for smoothing in self.smoothings.values() if method in smoothing.methods]

    def point(self, metric: Entry | None, classifier: str, method: str, radius: float, level: int) -> Point:
        """Look up a mean with its interval and count."""
        known = radius in self.table.indexes["radius"] and level in self.table.indexes["level"]
        if metric is None or not known:
            return NOWHERE
        at = {"classifier": classifier, "method": method, "metric": metric.name, "radius": radius, "level": level}
        place = tuple(self.table.indexes[dim].get_loc(label) for dim, label in at.items())
        mean, low, high, count = self.values[place]
        return Point(float(mean), float(low), float(high), int(count))


def on_grids(metric: Entry) -> bool:
    """Return whether a metric scores grids, not images."""
    return "tiles" in signature("metrics", metric.family, metric.function).inputs


def group(metric: Entry) -> str:
    """Return the kind of pictures that a metric scores."""
    return "grids" if on_grids(metric) else "images"


def first_test(given: dict) -> Test:
    """Return the test by which the first metric of votes on images ranks, or the first on grids if there is no other.

    Raises:
        UserError: there is no such metric.
    """
    return _test(_of_votes(given)[0], _smoothings(given))


def test_of(given: dict, name: str) -> Test:
    """Return the test by which a metric of votes ranks.

    Raises:
        UserError: there is no such metric.
    """
    listed = {one.name: one for one in _of_votes(given)}
    if name not in listed:
        raise UserError(f"params.yaml names no metric of votes '{name}'; it names: {', '.join(listed)}")
    return _test(listed[name], _smoothings(given))


def found(table: xr.Dataset, given: dict, sizes: dict[str, int]) -> Found:
    """Bind the results of metrics of votes to their entries in params.yaml.

    Args:
        table: The results.
        given: The content of params.yaml.
        sizes: Pixels of an image, by classifier.
    """
    scored = [one for listed in entries(given, "metrics").values() for one in listed.values()]
    there = set(table["metric"].values.tolist())
    dims = ("classifier", "method", "metric", "radius", "level", "variable")
    values = table[["mean", "low", "high", "count"]].to_array().transpose(*dims).values
    pixels = {name: {"images": sizes[name]} for name in table["classifier"].values.tolist()}
    for name, of in pixels.items():
        if grids := given["classifiers"][name]["grids"]:
            of["grids"] = sizes[name] * grids["tiles_per_side"] ** 2
    return Found(table, values, [one for one in scored if one.name in there], _smoothings(given), pixels)


def _of_votes(given: dict) -> list[Entry]:
    """Return the metrics of votes, those on images before those on grids."""
    scored = [one for listed in entries(given, "metrics").values() for one in listed.values()]
    scored = sorted((one for one in scored if one.options["smoothings"]), key=on_grids)
    if not scored:
        raise UserError("params.yaml: no metric names smoothings; expected one, which says how votes are tested")
    return scored


def _test(metric: Entry, smoothings: dict[str, Smoothing]) -> Test:
    of = metric.settings
    return Test(smoothings[metric.options["smoothings"][0]], of["tau"][0], of["alpha"], of["correction"])


def _smoothings(given: dict) -> dict[str, Smoothing]:
    return read_smoothings(given, {name for listed in entries(given, "methods").values() for name in listed})
