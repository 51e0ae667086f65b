"""Read the section certify of params.yaml: how noisy copies vote, and on what; and which metrics judge the votes."""

from typing import Any, NamedTuple

from stages.problem import Problem
from stages.settings import Entry, check, mapping, named
from stages.signatures import signature, verb_signature

# Of an entry of certify: what is certified.
CERTIFIED = {"methods": list[str], "images": int, "grids": int}


class Smoothing(NamedTuple):
    """One name of the section certify: how noisy copies vote, and on the maps of which methods and pictures."""

    name: str
    settings: dict[str, Any]
    methods: list[str]
    pictures: dict[str, int]  # how many images, and how many grids


def smoothings(params: dict, methods: set[str]) -> dict[str, Smoothing]:
    """Give the entries of certify, checked.

    Args:
        params: What params.yaml says.
        methods: The names there are.

    Raises:
        Problem: a bad name, setting or number, or an unknown method.
    """
    found = {}
    for name, given in mapping(params["certify"], "certify", empty=True).items():
        where = f"certify.{name}"
        named(name, where)
        accepted = verb_signature("voting", "votes").settings
        checked = check(given, {**accepted, **CERTIFIED}, where, "votes of stages/voting.py")
        if unknown := set(checked["methods"]) - methods:
            raise Problem(f"params.yaml: {where}: methods names {', '.join(sorted(unknown))}, which is no method")
        levels = checked["levels"]
        if not levels or levels != sorted({level for level in levels if 0 < level < 100}, reverse=True):
            raise Problem(f"params.yaml: {where}: levels = {levels}: expected falling whole percentages, 99 to 1")
        for draws in ("first", "rest"):
            if not 0 < checked[draws] < 256:
                raise Problem(f"params.yaml: {where}: {draws} = {checked[draws]}: expected 1 to 255 noisy copies")
        if checked["sigma"] <= 0:
            raise Problem(f"params.yaml: {where}: sigma = {checked['sigma']}: expected more than 0")
        pictures = {group: checked[group] for group in ("images", "grids")}
        found[name] = Smoothing(name, {key: checked[key] for key in sorted(accepted)}, checked["methods"], pictures)
    return found


def check_judging(metric: Entry, methods: set[str], certified: dict[str, Smoothing]) -> None:
    """Check what a metric's entry says of methods, smoothings, levels and tiles."""
    where = f"params.yaml: metrics.{metric.family}.{metric.name}"
    if unknown := set(metric.options["exclude"]) - methods:
        raise Problem(f"{where}: exclude names {', '.join(sorted(unknown))}, which is no method")
    asks = signature("metrics", metric.family, metric.function).evidence
    named, level = metric.options["smoothings"], metric.options["level"]
    if metric.options["tile"] is not None and "tiles" not in asks:
        raise Problem(f"{where}: tile = {metric.options['tile']}, but {metric.function} does not judge grids")
    if "votes" not in asks:
        if named or level is not None:
            raise Problem(f"{where}: smoothings and level are of metrics of votes; {metric.function} is none")
        return
    if not named or (unknown := set(named) - set(certified)):
        known = ", ".join(certified) or "none"
        raise Problem(f"{where}: smoothings = {named}: expected names of the section certify; there are: {known}")
    ways = [certified[name].settings for name in named]
    if any(one["levels"] != ways[0]["levels"] for one in ways):
        raise Problem(f"{where}: smoothings = {named}: their levels differ; expected the same ones")
    if level not in ways[0]["levels"]:
        raise Problem(f"{where}: level = {level}: expected the one to rank by, of {ways[0]['levels']}")
