"""Check what params.yaml gives against what a function accepts: names, types, least values."""

import json
import re
from collections.abc import Callable, Iterable
from functools import cache
from typing import Any, NamedTuple

from stages.study.problem import Problem

NAME = re.compile(r"[a-z][a-z0-9_]*")

# Settings that count: at least 1 wherever they stand. All other whole numbers are at least 0.
COUNTS = {
    "background", "baselines", "batch", "blocks", "cells", "count", "epochs", "iterations", "levels", "masks",
    "min_pixels", "parts", "patch", "pixels", "resamples", "samples", "shard_rows", "size", "steps", "stride",
    "superpixels", "threads", "thresholds", "tiles_per_side", "window",
}  # fmt: skip


class Entry(NamedTuple):
    """One name of params.yaml bound to a function: `gag_85: {function: gag, percentile: 85}`."""

    kind: str
    family: str
    name: str
    function: str
    settings: dict[str, Any]
    options: dict[str, Any]


def check(given: object, accepted: dict[str, Any], where: str, owner: str) -> dict[str, Any]:
    """Check names, types and least values of settings.

    Raises:
        Problem: with every fault of the entry, what was given and what is accepted.
    """
    from pydantic import ValidationError

    try:
        checked = dict(_model(tuple(accepted.items()))(**mapping(given, where, empty=True)))
    except ValidationError as error:
        faults = "; ".join(_fault(fault, accepted) for fault in error.errors())
        takes = ", ".join(f"{key}: {_spelled(kind)}" for key, kind in accepted.items()) or "no settings"
        raise Problem(f"params.yaml: {where}: {faults}. Accepted by {owner}: {takes}") from None
    for name, value in checked.items():
        least = 1 if name in COUNTS else 0
        if isinstance(value, int) and value < least:
            raise Problem(f"params.yaml: {where}: '{name}' = {value}: expected at least {least}")
    return checked


def mapping(value: object, where: str, *, empty: bool = False) -> dict:
    """Check that something is a mapping, and not an empty one unless that will do.

    Raises:
        Problem: with what was given.
    """
    if not isinstance(value, dict) or not (value or empty):
        shown = f"{value!r}"[:80]
        raise Problem(f"params.yaml: {where} = {shown}: expected a mapping of names, got {type(value).__name__}")
    return value


def named(name: str, where: str) -> None:
    """Check a name that params.yaml gives.

    Raises:
        Problem: DVC could not join it with others.
    """
    if not NAME.fullmatch(name):
        raise Problem(
            f"params.yaml: {where}: the name '{name}' must be of a-z, 0-9 and _, beginning with a letter "
            "(DVC joins names with '-')"
        )


def canonical(value: object) -> str:
    """Spell settings so that equal ones are spelled equally."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"))


@cache
def _model(accepted: tuple[tuple[str, Any], ...]) -> Callable[..., Iterable[tuple[str, Any]]]:
    from pydantic import ConfigDict, create_model

    fields: dict[str, Any] = {key: (kind, ...) for key, kind in accepted}
    return create_model("Settings", __config__=ConfigDict(extra="forbid", strict=True), **fields)


def _fault(fault: Any, accepted: dict[str, Any]) -> str:
    name = ".".join(str(part) for part in fault["loc"])
    if fault["type"] == "extra_forbidden":
        return f"unknown setting '{name}' = {fault['input']!r}"
    if fault["type"] == "missing":
        return f"the setting '{name}' is missing"
    top = str(fault["loc"][0])
    return f"'{name}' = {fault['input']!r}: expected {_spelled(accepted[top])}, got {type(fault['input']).__name__}"


def _spelled(kind: Any) -> str:
    return (
        kind.__name__ if isinstance(kind, type) and not hasattr(kind, "__args__") else str(kind).replace("typing.", "")
    )
