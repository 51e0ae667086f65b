"""Read the section certify of params.yaml: how noisy samples vote, on which maps, and which metrics use the votes."""

from math import ceil, floor, log
from statistics import NormalDist
from typing import Any, NamedTuple

from atlas.study.errors import UserError
from atlas.study.schema.settings import Entry, check, mapping, named
from atlas.study.schema.signatures import signature, signature_in

# What an entry of certify states about what is certified.
CERTIFIED = {"methods": list[str], "images": int, "grids": int, "tile": int | None}


DIGITS = 6  # decimals of stored radii
MOST = 255  # noisy samples, counted in one byte


class Smoothing(NamedTuple):
    """An entry of the section certify: how noisy samples vote, and on the maps of which methods and pictures."""

    name: str
    settings: dict[str, Any]
    methods: list[str]
    pictures: dict[str, int]  # how many images, and how many grids
    tile: int | None  # the tile of grids that is explained; None for all

    def stored_as(self, method: str, pictures: str) -> tuple[str, str]:
        """Return the group of a store of votes, and the name in it, of the votes on a method's maps.

        Votes at as many levels share a group.

        Args:
            method: The method.
            pictures: `images` or `grids`.
        """
        return f"{pictures}_{len(self.settings['levels'])}", f"{method}/{self.name}"


def read_smoothings(params: dict, methods: set[str]) -> dict[str, Smoothing]:
    """Return the checked entries of certify.

    Args:
        params: The content of params.yaml.
        methods: The names of all methods.

    Raises:
        UserError: a bad name, setting or number, or an unknown method.
    """
    found = {}
    for name, given in mapping(params["certify"], "certify", empty=True).items():
        where = f"certify.{name}"
        named(name, where)
        accepted = signature_in("atlas/inputs/voting", "votes").types
        checked = check(given, {**accepted, **CERTIFIED}, where, "votes of atlas/inputs/voting.py")
        if unknown := set(checked["methods"]) - methods:
            raise UserError(f"params.yaml: {where}: methods names {', '.join(sorted(unknown))}, which is no method")
        if len(set(checked["methods"])) < len(checked["methods"]):
            raise UserError(f"params.yaml: {where}: methods names one twice: {', '.join(checked['methods'])}")
        levels = checked["levels"]
        if levels != sorted(set(levels), reverse=True):
            raise UserError(f"params.yaml: {where}: levels = {levels}: expected falling whole percentages, 99 to 1")
        for draws in ("n0", "n"):
            if not 0 < checked[draws] <= MOST:
                raise UserError(f"params.yaml: {where}: {draws} = {checked[draws]}: expected 1 to {MOST} noisy samples")
        pictures = {group: checked[group] for group in ("images", "grids")}
        settings = {key: checked[key] for key in sorted(accepted)}
        found[name] = Smoothing(name, settings, checked["methods"], pictures, checked["tile"])
    return found


def check_smoothings(metric: Entry, methods: set[str], certified: dict[str, Smoothing]) -> None:
    """Check the methods, smoothings, levels and tiles in a metric's entry."""
    where = f"params.yaml: metrics.{metric.family}.{metric.name}"
    if unknown := set(metric.options["exclude"]) - methods:
        raise UserError(f"{where}: exclude names {', '.join(sorted(unknown))}, which is no method")
    if methods <= set(metric.options["exclude"]):
        raise UserError(f"{where}: exclude names all methods; expected at least one that is scored")
    declared = signature("metrics", metric.family, metric.function).inputs
    named, level = metric.options["smoothings"], metric.options["level"]
    if metric.options["tile"] is not None and "tiles" not in declared:
        raise UserError(f"{where}: tile = {metric.options['tile']}, but {metric.function} does not score grids")
    if "votes" not in declared:
        if named or level is not None:
            raise UserError(f"{where}: smoothings and level are of metrics of votes; {metric.function} is none")
        return
    if not named or (unknown := set(named) - set(certified)):
        known = ", ".join(certified) or "none"
        raise UserError(f"{where}: smoothings = {named}: expected names of the section certify; there are: {known}")
    smoothings = [certified[name] for name in named]
    for alike in ("levels", "form", "n0", "n"):
        if any(one.settings[alike] != smoothings[0].settings[alike] for one in smoothings):
            raise UserError(
                f"{where}: smoothings = {named}: their {alike} differ; expected smoothings alike but in sigma"
            )
    group = "grids" if "tiles" in declared else "images"
    if empty := [one.name for one in smoothings if not one.pictures[group]]:
        raise UserError(f"{where}: smoothings = {named}: {', '.join(empty)} certifies no {group}, which it scores")
    for one in smoothings if group == "grids" else []:
        if one.tile not in (None, metric.options["tile"]):
            given = metric.options["tile"]
            raise UserError(f"{where}: tile = {given}: {one.name} certifies tile {one.tile} alone; expected {one.tile}")
    voted = {name for one in smoothings for name in one.methods}
    if voted and voted <= set(metric.options["exclude"]):
        raise UserError(f"{where}: exclude names all methods that its smoothings certify; expected at least one scored")
    levels, tau = smoothings[0].settings["levels"], metric.settings["tau"]
    if level not in levels:
        raise UserError(f"{where}: level = {level}: expected the one to rank by, of {levels}")
    radii = [stored(radius(one.settings["sigma"], share)) for one in smoothings for share in tau]
    if len(set(radii)) < len(radii):
        raise UserError(f"{where}: two of its smoothings and tau have the same radius; expected each radius once")


def check_reach(metric: Entry, smoothing: Smoothing, classifier: str, pixels: int) -> None:
    """Check that unanimous votes can certify a pixel at the τ by which a metric of votes ranks.

    Some of the other τ of a sweep may be out of reach.

    Args:
        metric: The metric's entry.
        smoothing: The first of its smoothings; the others have as many votes.
        classifier: The classifier whose pictures are used.
        pixels: Number of pixels of a map.

    Raises:
        UserError: no pixel of any map can be certified.
    """
    tau, alpha, correction = metric.settings["tau"][0], metric.settings["alpha"], metric.settings["correction"]
    rest, threshold = smoothing.settings["n"], strictest(alpha, correction, pixels)
    if tau**rest <= threshold:
        return
    least, most = ceil(log(threshold) / log(tau)), floor(1000 * threshold ** (1 / rest)) / 1000
    remedies = [f"at least {least} samples ({smoothing.name}.n)"] if least <= MOST else []
    remedies += [f"tau of at most {most:g}"] if most >= 0.5 else []
    raise UserError(
        f"params.yaml: metrics.{metric.family}.{metric.name}: tau = {tau}: on {classifier} no pixel can be certified, "
        f"not by all {rest} votes of certify.{smoothing.name} "
        f"(alpha = {alpha}, correction {correction}, {pixels} pixels); "
        f"expected {', or '.join([*remedies, 'a higher alpha'])}"
    )


def strictest(alpha: float, correction: str, pixels: int) -> float:
    """Return the p-value that a map's first certified pixel must not exceed: α, or α / pixels."""
    return alpha if correction == "none" else alpha / pixels


def radius(sigma: float, tau: float) -> float:
    """Return the L2 radius of a certificate, in intensities: σ · Φ⁻¹(τ).

    Raises:
        ValueError: τ is not in [0.5, 1).
    """
    if not 0.5 <= tau < 1:
        raise ValueError(f"tau = {tau}: expected at least 0.5 and less than 1, the share of votes that a label needs")
    return sigma * NormalDist().inv_cdf(tau)


def stored(exact: float) -> float:
    """Return a radius as it is stored, rounded down, so that it never exceeds what is certified."""
    return floor(exact * 10**DIGITS) / 10**DIGITS
