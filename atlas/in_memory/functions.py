"""Find a method or metric by its name alone, and check settings given in Python.

A missing setting is taken from the default study's entry of the function's name, if there is one.
"""

import ast
from collections.abc import Mapping
from difflib import get_close_matches
from functools import cache
from pathlib import Path
from typing import Any, Literal

from atlas.study.errors import UserError
from atlas.study.params import OPTIONS
from atlas.study.parsing import parsed
from atlas.study.schema.settings import Entry, check, mapping
from atlas.study.schema.signatures import HOUSE, attributes, signature

# Options of an entry, besides its settings, that affect maps. The others choose images, or need a study.
SHAPING = {"methods": ("channels",), "metrics": ()}
# The default study's params.yaml; a wheel includes it in the package.
DEFAULTS = (HOUSE / "params.yaml", HOUSE.parent / "params.yaml")

Kind = Literal["methods", "metrics"]


def bound(kind: Kind, name: str, given: Mapping[str, Any]) -> Entry:
    """Bind a function of `atlas/methods` or `atlas/metrics` to settings, as an entry of params.yaml does.

    Args:
        kind: methods or metrics.
        name: The function's name.
        given: Settings; missing ones are taken from the default study.

    Raises:
        UserError: there is no such function, or a setting is unknown, missing or invalid.
    """
    one, known = kind.removesuffix("s"), functions(kind)
    if name not in known:
        near = get_close_matches(str(name), known, n=3)
        message = f"did you mean {' or '.join(near)}?" if near else f"there are: {', '.join(sorted(known))}"
        raise UserError(f"there is no {one} {name!r}; {message}")
    family = known[name]
    taken = signature(kind, family, name)
    shaping = {option: OPTIONS[kind][option] for option in SHAPING[kind]}
    accepted = {**taken.types, **shaping}
    default = {key: value for key, value in defaults(kind, family, name).items() if key in accepted}
    owner = f"{name} of atlas/{kind}/{family}.py"
    try:
        checked = check({**taken.defaults, **default, **given}, accepted, name, owner)
    except UserError as error:
        raise UserError(str(error).removeprefix("params.yaml: ")) from None
    settings = {key: checked[key] for key in sorted(taken.settings)}
    options = {option: checked[option] for option in shaping}
    return Entry(kind, family, name, name, settings, options | ({"reverse": None} if kind == "methods" else {}))


@cache
def functions(kind: Kind) -> dict[str, str]:
    """Return the family of every existing method or metric, by name; read from source, without imports."""
    found = {}
    for file in sorted((HOUSE / kind).glob("[a-z]*.py")):
        for node in ast.parse(file.read_text()).body:
            if isinstance(node, ast.FunctionDef) and not node.name.startswith("_"):
                if kind == "metrics" and "better" not in attributes(kind, file.stem, node.name):
                    continue  # a helper of the family
                found[node.name] = file.stem
    return found


def defaults(kind: Kind, family: str, name: str) -> dict[str, Any]:
    """Return the default study's entry of a function's name; empty if there is none."""
    listed = _default_study()[kind].get(family) or {}
    entry = listed.get(name) or {}
    return {} if "function" in entry else entry


@cache
def _default_study() -> dict[str, Any]:
    file: Path = next(one for one in DEFAULTS if one.is_file())
    try:
        return dict(mapping(parsed(file.read_bytes()), "the sections"))
    except ValueError as error:
        raise UserError(f"{file}: {error}") from None
