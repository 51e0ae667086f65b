"""Read params.yaml, find the functions it names, check their settings, and explain a bad entry.

Nothing here imports what params.yaml names until asked to: a stage with nothing to compute never pays for torch.
"""

import importlib
from pathlib import Path
from typing import Annotated, Any, Literal

from atlas.study import unedited
from atlas.study.errors import UserError
from atlas.study.parsing import parsed
from atlas.study.schema import classifiers
from atlas.study.schema.fitting import fitting, of_weights
from atlas.study.schema.labels import check_labels
from atlas.study.schema.settings import NAME, Entry, check, mapping, named, outside, settings
from atlas.study.schema.signatures import askable, signature
from atlas.study.schema.smoothing import check_reach, check_smoothings, read_smoothings
from atlas.study.schema.types import Count, Range, Seed, Share

# Keys of an entry that are not settings of its function.
OPTIONS: dict[str, dict[str, Any]] = {
    "methods": {
        "channels": Literal["sum", "abs_sum", "max_abs"],
        "reverse": dict[str, float] | None,
        "count": Count | None,
        "grids": bool,
    },
    "metrics": {
        "count": Count | None,
        "exclude": list[str],
        "smoothings": list[str],
        "level": int | None,
        "tile": int | None,
    },
    "datasets": {
        "path": str,
        "fit": dict[str, Any] | None,
        "channels": Literal["rgb", "gray", "as_is"],
    },
    "networks": {},
}
# Shares of pixels: the highest, which stay, and those that exchange values (atlas.inputs.explain.swapped).
REVERSE = {"remain": Share, "swap": Share}
OPTIONAL: dict[str, Any] = {
    "count": None,
    "exclude": [],
    "grids": True,
    "reverse": None,
    "smoothings": [],
    "level": None,
    "tile": None,
}
# Options that choose rows, or what is read from them, and do not affect values.
CHOOSING = ("count", "exclude", "grids", "smoothings", "level", "tile")

# For any network: which part of its output the logits are. For networks that take them: default values.
OUTPUT = {"output": int | str | list[int | str] | None}
ABSENT: dict[str, Any] = {"settings": {}, "side": None}

SECTIONS: dict[str, dict[str, Any]] = {
    "engine": {
        "device": Literal["cpu", "cuda"],
        "precision": Literal["float32", "bfloat16"],
        "threads": Annotated[int, Range(1, 1024)],
        "batch": Count,
    },
    "stores": {"dtype": Literal["float32", "float16"], "shard_rows": Count},
}
WORK = ("datasets", "classifiers", "methods", "certify", "metrics")
REQUIRED = ("seed", "engine", "stores", "robustness_eval", *WORK, "aggregate", "report")
# These may be empty but must exist: DVC records no cell that depends on a missing parameter.
EMPTY = ("certify", "robustness_eval")


def load(study: Path) -> dict:
    """Read a study's params.yaml, check every entry, and fill in what may be left out.

    Classifiers get all their sections (`atlas.study.schema.classifiers`); `certify` is a mapping; `robustness_eval` is
    a mapping or None.

    Raises:
        UserError: the file is missing or no YAML mapping, or an entry is wrong.
    """
    path = study / "params.yaml"
    try:
        params = parsed(unedited.read(path, meaning))
    except FileNotFoundError:
        raise UserError(f"{path}: there is no such file; a study is a folder with a params.yaml") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from None
    except ValueError as error:
        raise UserError(f"{path}: {error}") from None
    if not isinstance(params, dict):
        raise UserError(f"{path}: expected a mapping of sections, got {type(params).__name__}")
    mapping(params, "the sections")
    if missing := [section for section in REQUIRED if section not in params]:
        listed = ", ".join(f"'{section}'" for section in missing)
        message = f"the sections {listed} are missing" if missing[1:] else f"the section {listed} is missing"
        empty = [f"`{section}: null`" for section in missing if section in EMPTY]
        due = f"; write {' and '.join(empty)} to leave {'them' if empty[1:] else 'it'} empty" if empty else ""
        raise UserError(f"{path}: {message}{due}")
    if unknown := [str(section) for section in params if section not in REQUIRED]:
        raise UserError(f"{path}: unknown sections: {', '.join(unknown)}; expected: {', '.join(REQUIRED)}")
    for section, accepted in SECTIONS.items():
        check(params[section], accepted, section, "every study")
    params["certify"] = {} if params["certify"] is None else params["certify"]
    methods = {name for listed in entries(params, "methods").values() for name in listed}
    certified = read_smoothings(params, methods)
    scoring = [metric for listed in entries(params, "metrics").values() for metric in listed.values()]
    for metric in scoring:
        check_smoothings(metric, methods, certified)
    for name in mapping(params["datasets"], "datasets"):
        outside(study, dataset(params, name).options["path"], f"datasets.{name}.path")
    check({"seed": params["seed"]}, {"seed": Seed}, "seed", "every study")
    if params["robustness_eval"] is not None:
        settings("robustness_eval", params["robustness_eval"], "atlas/model/attacks", "attacked")
    settings("aggregate", params["aggregate"], "stages/aggregate", "aggregate")
    settings("report", params["report"], "stages/report", "report")
    specs = mapping(params["classifiers"], "classifiers")
    for name in specs:
        named(name, f"classifiers.{name}")
    for name in specs:
        specs[name] = classifiers.completed(params, name)
        network(params, name)
        check_labels(specs[name], f"classifiers.{name}")
        if (known := side(params, name)) is not None:
            _check_reach(certified, scoring, name, specs[name]["grids"], known)
    return params


def meaning(content: bytes) -> bytes:
    """Digest the content of params.yaml, or the text if it is no YAML: comments may change during a run."""
    try:
        return unedited.plain(repr(parsed(content)).encode())
    except ValueError:
        return unedited.plain(content)


def _check_reach(certified: dict, scoring: list[Entry], classifier: str, tiled: dict | None, side: int) -> None:
    """Check that metrics of votes can certify something on a classifier's images, and on its grids if it has any."""
    for metric in [one for one in scoring if one.options["smoothings"]]:
        tiles = 1
        if "tiles" in signature("metrics", metric.family, metric.function).inputs:
            if tiled is None:
                continue
            tiles = tiled["tiles_per_side"]
        check_reach(metric, certified[metric.options["smoothings"][0]], classifier, (tiles * side) ** 2)


def side(params: dict, classifier: str) -> int | None:
    """Return the side of a classifier's images in pixels; None if neither its dataset nor its network states it."""
    about = params["classifiers"][classifier]
    images = params["datasets"][about["dataset"]]
    fit, built = images.get("fit") or {}, about["network"].get("side")
    fitted = fit.get("size", built if of_weights(fit) else images.get("size", built))
    return fitted if isinstance(fitted, int) else None


def entries(params: dict, kind: str) -> dict[str, dict[str, Entry]]:
    """Return the entries of a kind by family and name, with checked settings.

    Raises:
        UserError: a bad name, an unknown family or function, a setting that is unknown, missing or of the wrong type,
            or a name in two families.
    """
    found: dict[str, dict[str, Entry]] = {}
    seen: dict[str, str] = {}
    for family, listed in mapping(params[kind], kind).items():
        found[family] = {}
        for name, given in mapping(listed, f"{kind}.{family}").items():
            where = f"{kind}.{family}.{name}"
            if name in seen:
                raise UserError(f"params.yaml: {where}: the name '{name}' stands in family '{seen[name]}' already")
            seen[name] = family
            found[family][name] = entry(kind, family, name, {} if given is None else given, where)
    return found


def entry(kind: str, family: str, name: str, given: object, where: str) -> Entry:
    """Bind one entry to its function: separate options from settings and check both."""
    named(name, where)
    given = dict(mapping(given, where, empty=True))
    function = _plain(given.pop("function", name), "function", where)
    accepted = OPTIONS[kind]
    options = {key: given.pop(key) for key in accepted if key in given}
    options = {**{key: OPTIONAL[key] for key in accepted if key in OPTIONAL}, **options}
    taken = signature(kind, family, function, where)
    askable(kind, family, function, taken.inputs)
    both = {**taken.types, **accepted}
    checked = check({**taken.defaults, **given, **options}, both, where, f"{function} of atlas/{kind}/{family}.py")
    if checked.get("reverse"):
        shares = check(checked["reverse"], REVERSE, f"{where}.reverse", "every method")
        if not 0 <= shares["remain"] <= shares["remain"] + 2 * shares["swap"] <= 1:
            raise UserError(
                f"params.yaml: {where}.reverse = {shares}: expected shares, and remain + 2 * swap at most 1"
            )
    return Entry(
        kind,
        family,
        name,
        function,
        {key: checked[key] for key in sorted(taken.settings)},
        {key: checked[key] for key in sorted(accepted)},
    )


def dataset(params: dict, name: str) -> Entry:
    """Bind a dataset's entry; its family is its own name unless the entry states one."""
    where = f"datasets.{name}"
    given = {"channels": "rgb", "fit": None, **mapping(params["datasets"][name], where)}
    family = _plain(given.pop("family", name), "family", where)
    # The name is the user's (`photographs`); the function is named like the family.
    bound = entry("datasets", family, name, {"function": family, **given}, where)
    return bound._replace(options={**bound.options, "fit": fitting(bound.options["fit"], f"{where}.fit")})


def network(params: dict, classifier: str) -> Entry:
    """Bind the network of a classifier's entry to its function."""
    return bound_network(params["classifiers"][classifier]["network"], f"classifiers.{classifier}.network")


def bound_network(network: object, where: str) -> Entry:
    """Bind an entry's network to its function; its `output`, if it has one, is among the settings."""
    given = dict(mapping(network, where))
    if "family" not in given:
        raise UserError(f"params.yaml: {where}: 'family' is missing: the module of atlas/networks that has it")
    family = _plain(given.pop("family"), "family", where)
    function = _plain(given.get("function", family), "function", where)
    output = check({"output": given.pop("output", None)}, OUTPUT, where, "every network")
    taken = signature("networks", family, function, where).settings
    given = {**{name: value for name, value in ABSENT.items() if name in taken}, **given}
    # The dataset determines the number of classes.
    bound = entry("networks", family, function, {**given, "classes": 1}, where)
    return bound if output["output"] is None else bound._replace(settings={**bound.settings, **output})


def _plain(value: object, part: str, where: str) -> str:
    if not isinstance(value, str) or not NAME.fullmatch(value):
        raise UserError(f"params.yaml: {where}: {part} = {value!r}: expected a name of a-z, 0-9 and _")
    return value


def find(kind: str, family: str, function: str) -> Any:
    """Import a family's module and return a function, or a constant, from it."""
    return getattr(importlib.import_module(f"atlas.{kind}.{family}"), function)


def path(study: Path, kind: str, *names: str) -> Path:
    """Return a path under data/: classifiers are folders, everything else is a Zarr store."""
    return study.joinpath("data", kind, *names[:-1], names[-1] + ("" if kind == "classifiers" else ".zarr"))
