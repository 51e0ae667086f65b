"""Check the settings in params.yaml against what a function accepts: names, types, ranges."""

import json
import os
import re
from collections.abc import Callable, Iterable
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from atlas.study.errors import UserError
from atlas.study.schema.ranges import bare, fault
from atlas.study.schema.signatures import signature_in

NAME = re.compile(r"[a-z][a-z0-9_]*")


class Entry(NamedTuple):
    """A name in params.yaml bound to a function: `gag_85: {function: gag, percentile: 85}`."""

    kind: str
    family: str
    name: str
    function: str
    settings: dict[str, Any]
    options: dict[str, Any]


def check(given: object, accepted: dict[str, Any], where: str, owner: str) -> dict[str, Any]:
    """Check the names, types and ranges of settings.

    Args:
        given: The settings in params.yaml.
        accepted: Types of the settings, with their ranges.
        where: The entry's path.
        owner: The function or section that takes them.

    Raises:
        UserError: it lists every fault of the entry, with what was given and what is accepted.
    """
    from pydantic import ValidationError

    plain = {key: bare(kind) for key, kind in accepted.items()}
    try:
        checked = dict(_model(tuple(plain.items()))(**mapping(given, where, empty=True)))
    except ValidationError as error:
        faults = "; ".join(_message(one, plain) for one in error.errors())
        takes = ", ".join(f"{key}: {_spelled(kind)}" for key, kind in plain.items()) or "no settings"
        raise UserError(f"params.yaml: {where}: {faults}. Accepted by {owner}: {takes}") from None
    wrong = [message for name, value in checked.items() if (message := fault(name, value, accepted[name]))]
    if wrong:
        raise UserError(f"params.yaml: {where}: {'; '.join(wrong)}")
    return checked


def settings(where: str, given: object, module: str, function: str) -> dict[str, Any]:
    """Check a section of params.yaml against the keyword-only settings of a function, given its module's path."""
    taken = signature_in(module, function)
    given = {**taken.defaults, **mapping(given, where, empty=True)}
    return check(given, taken.types, where, f"{function} of {module}.py")


def mapping(value: object, where: str, *, empty: bool = False) -> dict:
    """Check that something is a mapping and, unless `empty`, not an empty one.

    Raises:
        UserError: it is not; the message shows what was given.
    """
    if not isinstance(value, dict) or not (value or empty):
        shown = f"{value!r}"[:80]
        got = "an empty one" if value == {} else type(value).__name__
        raise UserError(f"params.yaml: {where} = {shown}: expected a mapping of names, got {got}")
    for name in value:
        if not isinstance(name, str):
            got = f"{name!r} of type {type(name).__name__}"
            raise UserError(f"params.yaml: {where}: expected names that are text, got {got}; put it in quotes")
    return value


def named(name: str, where: str) -> None:
    """Check a name in params.yaml.

    Raises:
        UserError: DVC could not join it with other names.
    """
    if not NAME.fullmatch(name):
        shown = "".join(one if one.isprintable() else repr(one)[1:-1] for one in where)  # it may hold the name
        raise UserError(
            f"params.yaml: {shown}: the name {name!r} must be of a-z, 0-9 and _, beginning with a letter "
            "(DVC joins names with '-')"
        )


def outside(folder: Path, file: str, where: str) -> Path:
    """Return where a user's own file lies, if that is outside what the stages make; data/raw is allowed.

    Raises:
        UserError: it lies within what the stages make, by name or through a link, or what they make lies within it.
    """
    place = folder / file
    for spelled in (os.path.abspath, os.path.realpath):
        full, made = Path(spelled(place)), Path(spelled(folder / "data"))
        above = (full, *full.parents)
        if full in (made, *made.parents) or (made in above and made / "raw" not in above):
            message = "lies among" if made in full.parents else "holds"
            message += " what the stages make and delete"
            raise UserError(
                f"params.yaml: {where} = {file!r}: {message}; expected another place: data/raw, for example"
            )
    return place


def canonical(value: object) -> str:
    """Serialize settings so that equal ones give equal texts."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"))


@cache
def _model(accepted: tuple[tuple[str, Any], ...]) -> Callable[..., Iterable[tuple[str, Any]]]:
    from pydantic import ConfigDict, create_model

    fields: dict[str, Any] = {key: (kind, ...) for key, kind in accepted}
    return create_model("Settings", __config__=ConfigDict(extra="forbid", strict=True), **fields)


def _message(fault: Any, accepted: dict[str, Any]) -> str:
    name = ".".join(str(part) for part in fault["loc"])
    if fault["type"] == "extra_forbidden":
        return f"unknown setting '{name}' = {fault['input']!r:.100}"
    if fault["type"] == "missing":
        return f"the setting '{name}' is missing"
    top = str(fault["loc"][0])
    given = fault["input"]
    return f"'{name}' = {given!r:.100}: expected {_spelled(accepted[top])}, got {type(given).__name__}"


def _spelled(kind: Any) -> str:
    return (
        kind.__name__ if isinstance(kind, type) and not hasattr(kind, "__args__") else str(kind).replace("typing.", "")
    )
