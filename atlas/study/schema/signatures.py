"""Read from source text what a function takes, and what its family states about it.

Nothing is imported, so that a stage with nothing to compute never pays for torch, and a misspelt setting is found
before the first pass through a network.
"""

import ast
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from atlas.study.errors import UserError
from atlas.study.schema import types
from atlas.study.schema.ranges import bare

HOUSE = Path(__file__).parents[2]
# The inputs that a method or metric may declare. Names that begin with `all_` stand for all rows that a metric scores,
# and `positions` for the batch's rows among them. atlas/inputs/table.py has what provides each and what digests it.
ROWS = ("images", "targets", "seeds", "classifier")
OF_MAPS = (
    "maps",
    "masks",
    "boxes",
    "tiles",
    "votes",
    "explain",
    "positions",
    "all_maps",
    "all_images",
    "all_targets",
    "all_seeds",
)
INPUTS = {"methods": {*ROWS, "background"}, "metrics": {*ROWS, *OF_MAPS}, "datasets": {"path"}}


class Signature(NamedTuple):
    """What a function takes: inputs by position, and settings by keyword, some of them optional."""

    inputs: list[str]
    types: dict[str, Any]
    defaults: dict[str, Any]

    @property
    def settings(self) -> dict[str, Any]:
        """Types of the settings, without ranges and descriptions."""
        return {name: bare(kind) for name, kind in self.types.items()}


@cache
def signature(kind: str, family: str, function: str, where: str = "") -> Signature:
    """Read a function's inputs and settings from its source.

    Raises:
        UserError: the family or function does not exist; the message lists those that do.
    """
    folder = HOUSE / kind
    path = folder / f"{family}.py"
    if not path.is_file():
        known = ", ".join(sorted(file.stem for file in folder.glob("[a-z]*.py")))
        raise UserError(f"params.yaml: {where}: atlas/{kind} has no family '{family}'; there are: {known}")
    found = _read(path, function)
    if found is None:
        public = [node.name for node in _tree(path).body if isinstance(node, ast.FunctionDef)]
        known = ", ".join(name for name in public if not name.startswith("_"))
        raise UserError(f"params.yaml: {where}: atlas/{kind}/{family}.py has no function '{function}'; it has: {known}")
    return found


def signature_in(module: str, function: str) -> Signature:
    """Read a function's inputs and settings from the source of a module, given by path."""
    found = _read(HOUSE.parent / f"{module}.py", function)
    if found is None:
        raise ValueError(f"{module}.py has no function {function}")
    return found


def askable(kind: str, family: str, function: str, inputs: list[str]) -> None:
    """Check that every input that a function declares exists."""
    unknown = sorted(set(inputs) - INPUTS.get(kind, set()))
    if unknown:
        known = ", ".join(sorted(INPUTS.get(kind, set()))) or "nothing"
        declared = f"atlas/{kind}/{family}.py: {function} asks for {', '.join(unknown)}"
        raise UserError(f"{declared}; there are: {known}. Settings are keyword-only: put them after '*'")
    if "tiles" in inputs and {"masks", "boxes"} & set(inputs):
        raise UserError(f"atlas/{kind}/{family}.py: {function} asks for tiles, and grids have no masks and no boxes")


@cache
def attributes(kind: str, family: str, function: str) -> dict[str, str]:
    """Read a function's attributes from its family's literal `ATTRS`: long_name, units, reference, better.

    A function that ATTRS does not mention has its own name as long_name.
    """
    for node in _tree(HOUSE / kind / f"{family}.py").body:
        if isinstance(node, ast.Assign | ast.AnnAssign) and node.value is not None:
            target = node.targets[0] if isinstance(node, ast.Assign) else node.target
            if isinstance(target, ast.Name) and target.id == "ATTRS":
                known = ast.literal_eval(node.value).get(function, {})
                return {"long_name": function.replace("_", " "), "units": "1", "reference": "", **known}
    return {"long_name": function.replace("_", " "), "units": "1", "reference": ""}


@cache
def _tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(), str(path))


def _read(path: Path, function: str) -> Signature | None:
    for node in _tree(path).body:
        if isinstance(node, ast.FunctionDef) and node.name == function:
            inputs = [argument.arg for argument in node.args.posonlyargs + node.args.args]
            kinds = {argument.arg: _annotation(argument, path) for argument in node.args.kwonlyargs}
            given = zip(kinds, node.args.kw_defaults, strict=True)
            return Signature(inputs, kinds, {name: ast.literal_eval(one) for name, one in given if one is not None})
    return None


def _annotation(argument: ast.arg, path: Path) -> Any:
    where = f"{path.relative_to(HOUSE.parent)}: the setting '{argument.arg}'"
    if argument.annotation is None:
        raise UserError(f"{where} has no type")
    try:
        return eval(ast.unparse(argument.annotation), dict(vars(types)))
    except NameError as error:
        expected = "builtins, Literal, Annotated and what atlas/study/schema/types.py defines"
        raise UserError(f"{where}: settings are typed with {expected}: {error}") from None
