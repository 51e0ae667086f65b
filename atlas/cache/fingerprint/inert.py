"""Decide whether a module can be analyzed from its source: what it runs when imported, what it looks up by name."""

import ast
import re
from collections.abc import Container, Iterable

from atlas.cache.fingerprint.known import (
    CALLING,
    DECORATORS,
    HOOKS,
    LOADING,
    LOOKUP_ATTRIBUTES,
    LOOKUP_MODULES,
    LOOKUP_NAMES,
    LOOKUP_PASSED_ON,
    LOOKUPS,
    PLAIN,
    PROPERTY,
    READING,
    RECORD,
    VALUES,
)
from atlas.cache.fingerprint.syntax import nodes


def impure(tree: ast.Module, imports: dict[str, tuple[str, str]]) -> str:
    """Return what a module does beyond imports, constants, functions and classes; empty if nothing.

    Args:
        tree: The module's syntax tree, without docstrings.
        imports: What each of its names is imported from.
    """
    defined = {name for node in tree.body for name in bound(node)}
    if twice := sorted(defined & set(imports)):
        return f"{twice[0]} is imported and defined"
    classes = [node for node in tree.body if isinstance(node, ast.ClassDef)]
    known = imports | {node.name: RECORD for node in classes if _is_record(node, imports)}
    known |= dict.fromkeys(_plain(tree, known), PLAIN)
    return next((why for node in tree.body if (why := _statement(node, known, defined))), "")


def dynamic(node: ast.stmt, imports: dict[str, tuple[str, str]], defined: set[str], asking: bool = False) -> str:
    """Return how a definition looks code up by name or changes its module; empty if it does neither.

    Args:
        node: The definition.
        imports: What names are imported from, in the definition and in its module.
        defined: The names that its module defines.
        asking: Whether attributes by names that are made while it runs are known to be no code of this project.
    """
    taken = {id(inner.value) for inner in nodes(node) if isinstance(inner, ast.Attribute)}
    plain = {id(inner.func) for inner in nodes(node) if isinstance(inner, ast.Call) and _spells(inner)}
    for inner in nodes(node):
        if isinstance(inner, ast.Name) and id(inner) not in taken and dotted(inner, imports, set()) == "sys":
            return f"line {inner.lineno}: sys is used whole, and finds by name what cannot be read off the source"
        if isinstance(inner, ast.Constant) and (found := _spelled(inner.value, imports, defined)):
            return f"line {inner.lineno}: '{found}' finds by name what cannot be read off the source"
        if isinstance(inner, ast.expr) and not asking and id(inner) not in plain and _asks_attribute(inner, imports):
            return f"line {inner.lineno}: {ast.unparse(inner)} finds an attribute by a name that is made while it runs"
        if isinstance(inner, ast.Global):
            return f"line {inner.lineno}: changes {', '.join(inner.names)} of its module while it runs"
        if isinstance(inner, ast.Name | ast.Attribute) and (found := _lookup(inner, imports)):
            return f"line {inner.lineno}: {found} finds by name what cannot be read off the source"
        if isinstance(inner, ast.Attribute) and not isinstance(inner.ctx, ast.Load):
            root = dotted(inner.value, imports, set())
            if root.startswith(("atlas", "stages", "flows")) or root.removeprefix("builtins.").split(".")[0] in defined:
                return f"line {inner.lineno}: changes {ast.unparse(inner)} while it runs"
        if isinstance(inner, ast.ImportFrom) and any(alias.name == "*" for alias in inner.names):
            return f"line {inner.lineno}: imports * from {inner.module}"
    return ""


def bound(node: ast.stmt) -> list[str]:
    """Return the names that a top-level statement defines; empty if it does anything else."""
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        return [node.name]
    if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
        return [node.target.id]
    if isinstance(node, ast.Assign):
        targets = [inner for target in node.targets for inner in ast.walk(target)]
        if all(isinstance(inner, ast.Name | ast.Tuple | ast.List | ast.Store) for inner in targets):
            return [inner.id for inner in targets if isinstance(inner, ast.Name)]
    return []


def dotted(node: ast.expr, imports: dict[str, tuple[str, str]], defined: set[str]) -> str:
    """Return the full name that an expression stands for (`np.array`: numpy.array); empty if that cannot be determined.

    A name that is neither imported nor defined is a builtin; an attribute of anything but a name is `.attribute`.
    """
    if isinstance(node, ast.Name):
        if node.id in imports:
            return ".".join(part for part in imports[node.id] if part)
        return "" if node.id in defined else f"builtins.{node.id}"
    if isinstance(node, ast.Attribute):
        root = dotted(node.value, imports, defined)
        return f"{root}.{node.attr}" if root and not root.startswith(".") else f".{node.attr}"
    return ""


def _statement(node: ast.stmt, imports: dict[str, tuple[str, str]], defined: set[str]) -> str:
    """Return what a statement does when its module is imported, beyond defining a name."""
    if isinstance(node, ast.Pass) or (isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)):
        return ""
    line = f"line {node.lineno}"
    if isinstance(node, ast.Import):
        plain = [
            alias.name
            for alias in node.names
            if alias.name.startswith(("atlas.", "stages.", "flows.")) and not alias.asname
        ]
        return f"{line}: import {plain[0]} binds all of {plain[0].partition('.')[0]}" if plain else ""
    if isinstance(node, ast.ImportFrom):
        return f"{line}: imports * from {node.module}" if any(alias.name == "*" for alias in node.names) else ""
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
        if node.name in HOOKS:
            return f"{line}: {node.name} answers for names that are not defined"
        given = (*node.args.posonlyargs, *node.args.args, node.args.vararg, *node.args.kwonlyargs, node.args.kwarg)
        annotations = [one.annotation for one in given if one is not None]
        values = [*node.args.defaults, *node.args.kw_defaults, *annotations, node.returns]
        return _decorated(node, imports, defined) or _values(filter(None, values), imports, defined)
    if isinstance(node, ast.ClassDef):
        if node.keywords:
            return f"{line}: the class {node.name} is made by {', '.join(one.arg or '**' for one in node.keywords)}"
        own = [name for one in node.body for name in (*bound(one), *_imported(one))]
        known = {name: imported for name, imported in imports.items() if name not in own} | _properties(node, imports)
        messages = (_statement(one, known, defined | set(own)) for one in node.body)
        return (
            _decorated(node, imports, defined)
            or _values(node.bases, imports, defined)
            or next(filter(None, messages), "")
        )
    if isinstance(node, ast.Assign | ast.AnnAssign) and (names := bound(node)):
        if set(names) & LOADING:
            return f"line {node.lineno}: sets {', '.join(names)}"
        both = [node.value, node.annotation if isinstance(node, ast.AnnAssign) else None]
        return _values(filter(None, both), imports, defined)
    if isinstance(node, ast.If) and not node.orelse and _never(node.test, imports):
        return ""
    return f"{line}: {type(node).__name__.lower()} runs when it is imported"


def _values(nodes: Iterable[ast.expr], imports: dict[str, tuple[str, str]], defined: set[str]) -> str:
    """Return what evaluating expressions does beyond producing a value."""
    waiting = list(nodes)
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.Lambda):  # its body does not run
            waiting += [one for one in (*node.args.defaults, *node.args.kw_defaults) if one is not None]
            continue
        waiting += [one for one in ast.iter_child_nodes(node) if isinstance(one, ast.expr)]
        waiting += [one.iter for one in ast.iter_child_nodes(node) if isinstance(one, ast.comprehension)]
        waiting += [
            test for one in ast.iter_child_nodes(node) if isinstance(one, ast.comprehension) for test in one.ifs
        ]
        waiting += [one.value for one in ast.iter_child_nodes(node) if isinstance(one, ast.keyword)]
        if isinstance(node, ast.Await | ast.Yield | ast.YieldFrom | ast.NamedExpr):
            return f"line {node.lineno}: {type(node).__name__} runs when it is imported"
        if isinstance(node, ast.Name | ast.Attribute) and (found := _lookup(node, imports)):
            return f"line {node.lineno}: {found} finds by name what cannot be read off the source"
        if isinstance(node, ast.Call) and not _makes_a_value(node, imports, defined):
            return f"line {node.lineno}: the call of {ast.unparse(node.func)} runs when it is imported"
    return ""


def _makes_a_value(call: ast.Call, imports: dict[str, tuple[str, str]], defined: set[str]) -> bool:
    name = dotted(call.func, imports, defined)
    if name in VALUES:
        return _calls_nothing(call, name, imports, defined)
    if not isinstance(call.func, ast.Attribute) or call.func.attr not in READING:
        return False
    # Allowed only on values without any class or function of this project: those may define a method of that name.
    parts = [dotted(one, imports, defined) for one in ast.walk(call.func.value) if isinstance(one, ast.Name)]
    if not all(parts) or any(part.startswith(("atlas", "stages", "flows")) for part in parts):
        return False
    return name.rpartition(".")[0] in ("", "builtins", PLAIN[0])


def _calls_nothing(call: ast.Call, name: str, imports: dict[str, tuple[str, str]], defined: set[str]) -> bool:
    """Return whether everything that a value-making function calls in turn makes values, too."""
    if name not in CALLING:
        return True
    named = {key.arg: key.value for key in call.keywords}
    if None in named or any(isinstance(one, ast.Starred) for one in call.args[:1]):
        return False
    given = call.args[0] if CALLING[name] == 0 and call.args else named.get("key")
    called = "" if given is None else dotted(given, imports, defined)
    return given is None or (called in VALUES and called not in CALLING)


def _decorated(
    node: ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef, imports: dict[str, tuple[str, str]], defined: set[str]
) -> str:
    for one in node.decorator_list:
        called = one.func if isinstance(one, ast.Call) else one
        if dotted(called, imports, defined) not in DECORATORS:
            return f"line {one.lineno}: the decorator {ast.unparse(called)} may keep what it is given"
        if isinstance(one, ast.Call) and (
            found := _values([*one.args, *(key.value for key in one.keywords)], imports, defined)
        ):
            return found
    return ""


def _lookup(node: ast.Name | ast.Attribute, imports: dict[str, tuple[str, str]]) -> str:
    """Return the name by which this node looks code up dynamically, if it does."""
    name = dotted(node, imports, set())
    if isinstance(node, ast.Name) and node.id in LOOKUPS:
        return node.id
    if isinstance(node, ast.Attribute) and node.attr in LOOKUP_ATTRIBUTES:
        return node.attr
    if name in LOOKUP_NAMES:
        return name
    if name.rpartition(".")[2] in LOOKUP_PASSED_ON and "." in name:
        return name
    imported = isinstance(node, ast.Name) and node.id in imports and not name.startswith("importlib.metadata")
    return name if imported and name.partition(".")[0] in LOOKUP_MODULES else ""


def _spelled(value: object, *known: Container[str]) -> str:
    """Return what a text spells that looks code up by name: an attribute, or a name of the module (pandas: '@name')."""
    words = re.findall(r"__\w+|@\w+", value) if isinstance(value, str) and ("__" in value or "@" in value) else []
    return next((one for one in words if one in LOOKUP_ATTRIBUTES or any(one[1:] in names for names in known)), "")


def _asks_attribute(node: ast.expr, imports: dict[str, tuple[str, str]]) -> bool:
    asks = ("builtins.getattr", "operator.attrgetter", "operator.methodcaller")
    return isinstance(node, ast.Name | ast.Attribute) and dotted(node, imports, set()) in asks


def _spells(call: ast.Call) -> bool:
    """Return whether the attribute that a call of getattr, attrgetter or methodcaller asks for is spelled."""
    asked = call.args[1:2] if isinstance(call.func, ast.Name) and call.func.id == "getattr" else call.args
    return bool(asked) and all(isinstance(one, ast.Constant) for one in asked)


def _is_record(node: ast.stmt, imports: dict[str, tuple[str, str]]) -> bool:
    """Return whether a statement defines a NamedTuple whose construction has no other effect."""
    if not isinstance(node, ast.ClassDef) or node.decorator_list:
        return False
    if any(isinstance(one, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda) for one in nodes(node)):
        return False
    return [dotted(base, imports, set()) for base in node.bases] == ["typing.NamedTuple"]


def _plain(tree: ast.Module, known: dict[str, tuple[str, str]]) -> set[str]:
    """Return the names of a module's values that contain no class or function of this project."""
    inner = {name for node in tree.body if isinstance(node, ast.ClassDef) for one in node.body for name in bound(one)}
    parts: dict[str, set[str]] = {}
    for node in tree.body:
        value = node.value if isinstance(node, ast.Assign | ast.AnnAssign) else node
        used = {one.id for one in nodes(value) if isinstance(one, ast.Name)} if value else set()
        strange = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)
        strange = strange or any(isinstance(one, ast.Lambda) for one in nodes(node))
        for name in bound(node):
            parts.setdefault(name, set()).update({name} if strange else used)
    foreign = {name for name, origin in known.items() if origin[0].partition(".")[0] in ("atlas", "stages", "flows")}
    mixed = foreign | inner | {name for name, used in parts.items() if name in used}
    while more := {name for name, used in parts.items() if used & mixed} - mixed:
        mixed |= more
    return set(parts) - mixed


def _properties(node: ast.ClassDef, imports: dict[str, tuple[str, str]]) -> dict[str, tuple[str, str]]:
    """Return the names in a class that are properties and nothing else, as if they were imported."""
    found: dict[str, bool] = {}
    for one in node.body:
        made = isinstance(one, ast.FunctionDef) and [ast.unparse(decorator) for decorator in one.decorator_list]
        for name in (*bound(one), *_imported(one)):
            accessors = [[f"{name}.{part}"] for part in ("setter", "getter", "deleter")]
            found[name] = (made == ["property"] and found.get(name, True)) or (
                found.get(name, False) and made in accessors
            )
    if "property" in found or "property" in imports:
        return {}
    return {name: PROPERTY for name, sound in found.items() if sound}


def _imported(node: ast.stmt) -> list[str]:
    """Return the names that a statement binds, if it is an import."""
    if not isinstance(node, ast.Import | ast.ImportFrom):
        return []
    return [alias.asname or alias.name.partition(".")[0] for alias in node.names]


def _never(test: ast.expr, imports: dict[str, tuple[str, str]]) -> bool:
    """Return whether a condition is TYPE_CHECKING or `__name__ == "__main__"`: false when the module is imported."""
    if dotted(test, imports, set()) == "typing.TYPE_CHECKING":
        return True
    return ast.unparse(test) == "__name__ == '__main__'"
