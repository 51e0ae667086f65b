"""Read params.yaml, find the functions it names, check their settings, and explain a bad entry.

Nothing here imports what it describes until it is asked to: a stage with nothing to compute never pays for torch.
"""

import importlib
import json
import re
import sys
from argparse import ArgumentParser
from collections.abc import Callable, Iterable
from functools import cache
from inspect import signature as python_signature
from pathlib import Path
from typing import Any, Literal, NamedTuple

import yaml

from stages.problem import Problem
from stages.signatures import askable, signature, verb_signature

NAME = re.compile(r"[a-z][a-z0-9_]*")

# Keys of an entry that are not settings of its function.
OPTIONS: dict[str, dict[str, Any]] = {
    "methods": {"channels": Literal["sum", "abs_sum", "max_abs"], "reverse": dict[str, float] | None},
    "metrics": {"count": int | None, "exclude": list[str]},
    "datasets": {},
    "networks": {},
}
# Of pixels: the highest, which stay, and those that change places (stages.explain.swapped).
REVERSE = {"remain": float, "swap": float}
OPTIONAL = {"count": None, "exclude": [], "reverse": None}

SECTIONS: dict[str, dict[str, Any]] = {
    "engine": {
        "device": Literal["cpu", "cuda"],
        "precision": Literal["float32", "bfloat16"],
        "threads": int,
        "batch": int,
    },
    "stores": {"dtype": Literal["float32", "float16"], "shard_rows": int},
}


# Settings that count: at least 1 wherever they stand. All other whole numbers are at least 0.
COUNTS = {
    "background", "baselines", "batch", "blocks", "cells", "count", "epochs", "iterations", "levels", "masks",
    "min_pixels", "parts", "patch", "pixels", "resamples", "samples", "shard_rows", "size", "steps", "stride",
    "superpixels", "threads", "thresholds", "tiles_per_side", "window",
}  # fmt: skip
LAST = ("aggregate", "report")


class Entry(NamedTuple):
    """One name of params.yaml bound to a function: `gag_85: {function: gag, percentile: 85}`."""

    kind: str
    family: str
    name: str
    function: str
    settings: dict[str, Any]
    options: dict[str, Any]


def load(study: Path) -> dict:
    """Read a study's params.yaml and check every entry in it.

    Raises:
        Problem: the file is missing, is no YAML mapping, or an entry is wrong.
    """
    path = study / "params.yaml"
    try:
        params = yaml.load(path.read_text(), Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    except FileNotFoundError:
        raise Problem(f"{path}: there is no such file; a study is a folder with a params.yaml") from None
    except yaml.YAMLError as error:
        raise Problem(f"{path}: not YAML: {error}") from None
    if not isinstance(params, dict):
        raise Problem(f"{path}: expected a mapping of sections, got {type(params).__name__}")
    for section in ("seed", "engine", "stores", "judge", "datasets", "classifiers", "methods", "metrics", *LAST):
        if section not in params:
            raise Problem(f"{path}: the section '{section}' is missing")
    for section, accepted in SECTIONS.items():
        check(params[section], accepted, section, "the kernel")
    methods = {name for listed in entries(params, "methods").values() for name in listed}
    for listed in entries(params, "metrics").values():
        for metric in listed.values():
            where = f"params.yaml: metrics.{metric.family}.{metric.name}"
            if unknown := set(metric.options["exclude"]) - methods:
                raise Problem(f"{where}: exclude names {', '.join(sorted(unknown))}, which is no method")
    for name in mapping(params["datasets"], "datasets"):
        dataset(params, name)
    if not isinstance(params["seed"], int):
        raise Problem(f"params.yaml: seed = {params['seed']!r}: expected int, got {type(params['seed']).__name__}")
    for section, verb, function in (("judge", "train", "judged"), ("aggregate", "aggregate", "aggregate")):
        settings(section, params[section], verb, function)
    settings("report", params["report"], "report", "report")
    for name, spec in mapping(params["classifiers"], "classifiers").items():
        _classifier(params, name, mapping(spec, f"classifiers.{name}"))
    return params


def _classifier(params: dict, name: str, spec: dict) -> None:
    where = f"classifiers.{name}"
    _named(name, where)
    due = {"dataset", "network", "train", "images", "grids"}
    if set(spec) != due:
        missing, unknown = ", ".join(sorted(due - set(spec))), ", ".join(sorted(set(spec) - due))
        raise Problem(f"params.yaml: {where}: missing: {missing or 'nothing'}; unknown: {unknown or 'nothing'}")
    if spec["dataset"] not in params["datasets"]:
        known = ", ".join(params["datasets"])
        raise Problem(f"params.yaml: {where}.dataset: no dataset '{spec['dataset']}'; known: {known}")
    network(params, name)
    for section, verb, function in (
        ("images", "select", "eligible"),
        ("grids", "tile", "members"),
        ("train", "train", "fit"),
    ):
        settings(f"{where}.{section}", spec[section], verb, function)
    if spec["train"]["adversary"] is not None:
        settings(f"{where}.train.adversary", spec["train"]["adversary"], "train", "attack")


def entries(params: dict, kind: str) -> dict[str, dict[str, Entry]]:
    """Give the entries of a kind by family and name, settings checked.

    Raises:
        Problem: a bad name, an unknown family or function, a setting that is unknown, missing or of the wrong type,
            or a name that stands in two families.
    """
    found: dict[str, dict[str, Entry]] = {}
    seen: dict[str, str] = {}
    for family, listed in mapping(params[kind], kind).items():
        found[family] = {}
        for name, given in mapping(listed, f"{kind}.{family}").items():
            where = f"{kind}.{family}.{name}"
            if name in seen:
                raise Problem(f"params.yaml: {where}: the name '{name}' stands in family '{seen[name]}' already")
            seen[name] = family
            found[family][name] = entry(kind, family, name, {} if given is None else given, where)
    return found


def entry(kind: str, family: str, name: str, given: object, where: str) -> Entry:
    """Bind one entry: split its options from its settings and check both."""
    _named(name, where)
    given = dict(mapping(given, where, empty=True))
    function = given.pop("function", name)
    accepted = OPTIONS[kind]
    options = {key: given.pop(key) for key in accepted if key in given}
    options = {**{key: OPTIONAL[key] for key in accepted if key in OPTIONAL}, **options}
    taken = signature(kind, family, function, where)
    askable(kind, family, function, taken.evidence)
    both = {**taken.settings, **accepted}
    checked = check({**given, **options}, both, where, f"{function} of stages/{kind}/{family}.py")
    if checked.get("reverse"):
        shares = check(checked["reverse"], REVERSE, f"{where}.reverse", "every method")
        if not 0 <= shares["remain"] <= shares["remain"] + 2 * shares["swap"] <= 1:
            raise Problem(f"params.yaml: {where}.reverse = {shares}: expected shares, and remain + 2 * swap at most 1")
    return Entry(
        kind,
        family,
        name,
        function,
        {key: checked[key] for key in sorted(taken.settings)},
        {key: checked[key] for key in sorted(accepted)},
    )


def dataset(params: dict, name: str) -> Entry:
    """Bind a dataset's entry; its family is its own name unless it says otherwise."""
    given = dict(mapping(params["datasets"][name], f"datasets.{name}"))
    return entry("datasets", given.pop("family", name), name, given, f"datasets.{name}")


def network(params: dict, classifier: str) -> Entry:
    """Bind the network of a classifier's entry."""
    where = f"classifiers.{classifier}.network"
    given = dict(mapping(params["classifiers"][classifier]["network"], where))
    if "family" not in given:
        raise Problem(f"params.yaml: {where}: 'family' is missing: the module of stages/networks that has it")
    family = given.pop("family")
    # The number of classes is the dataset's to say.
    return entry("networks", family, given.get("function", family), {**given, "classes": 1}, where)


def settings(where: str, given: object, verb: str, function: str) -> dict[str, Any]:
    """Check a section of params.yaml against the keyword-only settings of a verb's function."""
    return check(given, verb_signature(verb, function).settings, where, f"{function} of stages/{verb}.py")


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


def find(kind: str, family: str, function: str) -> Any:
    """Import the module of a family and take a function, or a constant, from it."""
    return getattr(importlib.import_module(f"stages.{kind}.{family}"), function)


def path(study: Path, kind: str, *names: str) -> Path:
    """Say where something lies under data/: classifiers and families of maps are folders, all else Zarr stores."""
    folder = kind == "classifiers" or (kind == "maps" and len(names) == 2)
    return study.joinpath("data", kind, *names[:-1], names[-1] + ("" if folder else ".zarr"))


def canonical(value: object) -> str:
    """Spell settings so that equal ones are spelled equally."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"))


def command(main: Callable) -> None:
    """Run a verb's main from the command line; a Problem is one line on stderr and exit status 1."""
    parser = ArgumentParser(prog=f"python -m stages.{Path(sys.argv[0]).stem}", description=main.__doc__)
    parser.add_argument("--study", type=Path, default=Path(), help="the folder of params.yaml (default: here)")
    for name in list(python_signature(main).parameters)[1:]:
        parser.add_argument(name)
    arguments = vars(parser.parse_args())
    try:
        main(**arguments)
    except Problem as problem:
        print(f"error: {problem}", file=sys.stderr)
        sys.exit(1)


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


def _named(name: str, where: str) -> None:
    if not NAME.fullmatch(name):
        raise Problem(
            f"params.yaml: {where}: the name '{name}' must be of a-z, 0-9 and _, beginning with a letter "
            "(DVC joins names with '-')"
        )
