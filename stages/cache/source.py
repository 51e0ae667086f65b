"""Read off the source what code a function runs: every definition of this project that it reaches.

Definitions are told apart where that is sound: where a module holds nothing but imports, constants, functions and
classes that refer to each other by name. What else a module may do (fill a registry when it is imported, look a name
up while it runs, change itself) cannot be followed by reading; then the whole text of every module that can be
reached is taken. While rows are computed `stages.inputs.calls` looks whether anything was missed.
"""

import ast
from functools import cache
from pathlib import Path
from symtable import symtable
from sys import stdlib_module_names
from typing import NamedTuple

from stages.cache.inert import bound, dynamic, impure
from stages.study import unedited
from stages.study.problem import Problem
from stages.study.signatures import HOUSE

PROJECT = ("stages", "flows")
# Its whole text is part of every key: it decides how all other modules are loaded.
FIRST = "stages"
# What they look up by name, or evaluate, is the text of functions that their callers give among the roots.
KNOWN = {("stages.study.params", "find"), ("stages.study.signatures", "_annotation")}


class Reach(NamedTuple):
    """What code a function reaches: texts by module and name, modules, packages outside, declared data files."""

    texts: dict[tuple[str, str], str]
    modules: frozenset[str]
    packages: frozenset[str]
    files: frozenset[Path]
    whole: str  # why whole modules were taken; empty where definitions were


class Source(NamedTuple):
    """A module taken apart: what it defines, what it imports, what keeps it from being read by definition."""

    definitions: dict[str, list[ast.stmt]]
    imports: dict[str, tuple[str, str]]
    modules: frozenset[str]  # of this project, imported at its top level
    unused: frozenset[str]  # packages outside that are imported for what their import does
    impure: str


def reach(*roots: tuple[str, str]) -> Reach:
    """Walk from (module, name) pairs to all code of this project that they reach.

    Raises:
        Problem: a module or a declared file is not there, or code reads the environment.
    """
    return _reach(tuple(sorted(set(roots))))


@cache
def _reach(roots: tuple[tuple[str, str], ...]) -> Reach:
    texts: dict[tuple[str, str], str] = {}
    packages: set[str] = set()
    modules: set[str] = set()
    why = ""
    waiting = list(roots)
    while waiting:
        at = waiting.pop()
        if at in texts:
            continue
        found = _definition(*at)
        texts[at] = found.text
        waiting += found.reached
        packages |= found.packages
        modules |= {at[0], *found.modules}
        why = why or found.whole
    modules = _imported(modules, everywhere=False)
    why = why or next((why for name in sorted(modules) if (why := read(name).impure) and name != FIRST), "")
    if why:
        modules = _imported(modules, everywhere=True)
        texts = {(name, "*"): text(name) for name in modules}
        packages |= {package for name in modules for package in _all_imports(name)[1]}
    else:
        texts |= {(FIRST, "*"): text(FIRST)} if FIRST in modules else {}
        packages |= {package for name in modules for package in read(name).unused}
    files = frozenset(file for name in modules for file in declared(name))
    return Reach(texts, frozenset(modules), frozenset(packages), files, why)


class Definition(NamedTuple):
    """One definition: its text, what it refers to, and why it cannot be followed by reading, if so."""

    text: str
    reached: list[tuple[str, str]]
    packages: frozenset[str]
    modules: frozenset[str]
    whole: str


@cache
def _definition(module: str, name: str) -> Definition:
    source = read(module)
    packages: set[str] = set()
    modules: set[str] = set()
    reached: list[tuple[str, str]] = []
    why = ""
    if name in source.imports:
        reached += _target(source.imports[name], packages, modules)
    nodes = source.definitions.get(name, [])
    for node in nodes:
        reached += _names(node, module, source, packages, modules)
        if (module, name) not in KNOWN:
            why = why or dynamic(node, {**source.imports, **_imports_in(node, module)}, set(source.definitions))
    if not nodes and name not in source.imports:
        if _is_module((module, name)):
            reached += _target((module, name), packages, modules)
        else:
            why = f"'{name}' is not defined at its top level"
    spelled = f"{module}:{name}=" + ";".join(map(ast.dump, nodes))
    return Definition(spelled, reached, frozenset(packages), frozenset(modules), why and f"{module}: {why}")


@cache
def read(module: str) -> Source:
    """Take a module of this project apart."""
    definitions: dict[str, list[ast.stmt]] = {}
    imports: dict[str, tuple[str, str]] = {}
    bare = _bare(tree(module))
    for node in bare.body:
        if isinstance(node, ast.Import | ast.ImportFrom):
            imports.update(_imports(node, module))
        for name in bound(node):
            definitions.setdefault(name, []).append(node)
    why = impure(bare, imports)
    used = {node.id for node in ast.walk(bare) if isinstance(node, ast.Name)}
    modules: set[str] = set()
    unused: set[str] = set()
    for name, imported in imports.items():
        modules |= _modules_of(imported)
        unused |= set() if name in used else _outside(imported)
    return Source(definitions, imports, frozenset(modules), frozenset(unused), why and f"{module}: {why}")


@cache
def text(module: str) -> str:
    """Read a module's source; from then on an edit of it is noticed."""
    try:
        return unedited.read(file(module)).decode()
    except OSError as error:
        raise Problem(f"{file(module)}: cannot be read ({error.strerror}): code imports {module}") from None


def tree(module: str) -> ast.Module:
    """Parse a module."""
    try:
        return ast.parse(text(module), str(file(module)))
    except SyntaxError as error:
        raise Problem(f"{file(module)}: line {error.lineno}: {error.msg}") from None


@cache
def file(module: str) -> Path:
    """Say in which file a module of this project stands."""
    parts = HOUSE.parent.joinpath(*module.split("."))
    return parts / "__init__.py" if parts.is_dir() else parts.with_suffix(".py")


@cache
def declared(module: str) -> list[Path]:
    """Give the data files that a module says it reads: `FILES = ["palette.npy"]`, beside the module.

    Raises:
        Problem: it is no literal list, or a file is not there, or lies outside of `stages/`.
    """
    for node in tree(module).body:
        if "FILES" not in bound(node):
            continue
        where = f"{file(module).relative_to(HOUSE.parent)}: FILES"
        try:
            names = ast.literal_eval(node.value)  # type: ignore[attr-defined]
            found = [(file(module).parent / name).resolve() for name in names]
        except (ValueError, TypeError):
            raise Problem(f"{where} = {ast.unparse(node.value)}: expected a literal list of file names") from None
        for name, one in zip(names, found, strict=True):
            if not one.is_file() or HOUSE.resolve() not in one.parents:
                raise Problem(f"{where} names '{name}': expected a file beside the module, in a folder of stages/")
        return found
    return []


def _names(node: ast.stmt, module: str, source: Source, packages: set[str], modules: set[str]) -> list[tuple[str, str]]:
    """List what a definition refers to: names of its module that it does not bind itself, and its own imports."""
    uses: dict[str, list[ast.Name]] = {}
    taken: dict[int, str] = {}  # attributes, by what they are taken of
    for inner in ast.walk(node):
        if isinstance(inner, ast.Name):
            uses.setdefault(inner.id, []).append(inner)
        elif isinstance(inner, ast.Attribute):
            taken[id(inner.value)] = inner.attr
    own, free = _imports_in(node, module), _free(node)
    for imported in own.values():
        modules |= _modules_of(imported)
    # A name that is bound both by its module and by the definition itself is followed both ways.
    found = [(module, name) for name in sorted(free) if name in source.definitions]
    listed = [(name, source.imports[name]) for name in sorted(free & set(source.imports))]
    for name, imported in [*listed, *own.items()]:
        used = [id(use) for use in uses.get(name, [])]
        if not _is_module(imported) or any(use not in taken for use in used):
            found += _target(imported, packages, modules)
        else:  # of a module of this project, what is taken of it
            found += [(".".join(part for part in imported if part), taken[use]) for use in used]
    return found


def _free(node: ast.stmt) -> set[str]:
    """Give the names that a statement may take from its module, or from Python: no argument, local or attribute.

    The body of a class takes a name from its module until it has bound it itself.
    """
    found = set()
    top = symtable(ast.unparse(node), "definition", "exec")
    waiting = [top]
    while waiting:
        table = waiting.pop()
        waiting += table.get_children()
        loose = table is top or table.get_type() == "class"
        for symbol in table.get_symbols():
            if symbol.is_referenced() and (loose or symbol.is_global()):
                found.add(symbol.get_name())
    return found


def _target(imported: tuple[str, str], packages: set[str], modules: set[str]) -> list[tuple[str, str]]:
    """Turn an import into what it reaches: a definition, a whole module, or a package outside."""
    packages |= _outside(imported)
    modules |= _modules_of(imported)
    if not _is_project(imported):
        return []
    if not _is_module(imported):
        return [imported]
    whole = ".".join(part for part in imported if part)
    return [(whole, defined) for defined in read(whole).definitions]


def _imported(modules: set[str], *, everywhere: bool) -> set[str]:
    """Add to modules those that they import, at their top level or everywhere, and the packages they lie in."""
    found: set[str] = set()
    waiting = list(modules)
    while waiting:
        name = waiting.pop()
        if name not in found:
            found.add(name)
            waiting += [name.rpartition(".")[0]] if "." in name else []
            waiting += _all_imports(name)[0] if everywhere else read(name).modules
    return found


@cache
def _all_imports(module: str) -> tuple[frozenset[str], frozenset[str]]:
    """Give the project's modules, and the packages outside, that a module imports anywhere in its text."""
    modules: set[str] = set()
    packages: set[str] = set()
    for imported in _imports_in(tree(module), module, every=True).values():
        modules |= _modules_of(imported)
        packages |= _outside(imported)
    return frozenset(modules), frozenset(packages)


def _imports_in(node: ast.AST, module: str, *, every: bool = False) -> dict[str, tuple[str, str]]:
    """Give the imports anywhere in a syntax tree, by the name that they bind; or each under a key of its own."""
    found: dict[str, tuple[str, str]] = {}
    for inner in ast.walk(node):
        if isinstance(inner, ast.Import | ast.ImportFrom):
            bound_here = _imports(inner, module)
            found |= {f"{inner.lineno} {name}": one for name, one in bound_here.items()} if every else bound_here
    return found


def _imports(node: ast.Import | ast.ImportFrom, module: str) -> dict[str, tuple[str, str]]:
    """Give (module, name) by the name that an import binds; a module's own name is empty."""
    if isinstance(node, ast.Import):
        # `import a.b` binds a and imports a.b, `import a.b as c` binds a.b.
        return {alias.asname or alias.name: (alias.name, "") for alias in node.names} | {
            alias.name.partition(".")[0]: (alias.name.partition(".")[0], "") for alias in node.names if not alias.asname
        }
    origin = node.module or ""
    if node.level:
        package = module.split(".") if file(module).name == "__init__.py" else module.split(".")[:-1]
        base = package[: len(package) - node.level + 1]
        origin = ".".join([*base, origin] if origin else base)
    return {alias.asname or alias.name: (origin, "" if alias.name == "*" else alias.name) for alias in node.names}


def _is_project(imported: tuple[str, str]) -> bool:
    return imported[0].split(".")[0] in PROJECT


def _is_module(imported: tuple[str, str]) -> bool:
    origin, name = imported
    return _is_project(imported) and (not name or file(f"{origin}.{name}").is_file())


def _modules_of(imported: tuple[str, str]) -> set[str]:
    """Name the project's modules that an import imports."""
    if not _is_project(imported):
        return set()
    found = {imported[0], ".".join(part for part in imported if part)}
    return {name for name in found if file(name).is_file()}


def _outside(imported: tuple[str, str]) -> set[str]:
    """Name the package outside that an import imports."""
    return set() if _is_project(imported) else {imported[0].split(".")[0]} - stdlib_module_names


def _bare(tree: ast.Module) -> ast.Module:
    """Strip docstrings, of fields too; comments are not in a syntax tree."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            node.body = [one for one in node.body if not _text(one)] or [ast.Pass()]
    return tree


def _text(node: ast.stmt) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)


def forget() -> None:
    """Forget what was read: for tests, which edit code that is imported nowhere."""
    for remembered in (_reach, _definition, read, text, file, declared, _all_imports):
        remembered.cache_clear()
