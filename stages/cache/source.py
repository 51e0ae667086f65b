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
from typing import NamedTuple

from stages.cache.inert import bound, dynamic, impure
from stages.cache.modules import (
    bindings,
    declared,
    imports_in,
    is_module,
    is_project,
    modules_of,
    outside,
    packages_of,
    text,
    tree,
    with_imports,
)
from stages.cache.packages import ANY
from stages.cache.unheld import unheld

# Its whole text is part of every key: it decides how all other modules are loaded.
FIRST = "stages"
# What they look up by name, or evaluate, is the text of functions that their callers give among the roots, or what
# `stages.cache.called` has of a network's settings.
KNOWN = {("stages.study.params", "find"), ("stages.study.signatures", "_annotation")} | {
    ("stages.networks._called", name) for name in ("_package", "_hidden", "_loaded", "_attribute", "_reachable")
}


class Reach(NamedTuple):
    """What code a function reaches: texts by module and name, modules, packages outside, declared data files."""

    texts: dict[tuple[str, str], str]
    modules: frozenset[str]
    packages: frozenset[str]
    files: frozenset[Path]
    unheld: tuple[str, ...]  # what definitions ask that no key can hold
    whole: str  # why whole modules were taken; empty where definitions were


class Source(NamedTuple):
    """A module taken apart: what it defines, what it imports, what keeps it from being read by definition."""

    definitions: dict[str, list[ast.stmt]]
    imports: dict[str, tuple[str, str]]
    unused: frozenset[str]  # packages outside that are imported for what their import does
    impure: str


def reach(*roots: tuple[str, str]) -> Reach:
    """Walk from (module, name) pairs to all code of this project that they reach.

    Raises:
        Problem: a module or a declared file is not there.
    """
    return _reach(tuple(sorted(set(roots))))


@cache
def _reach(roots: tuple[tuple[str, str], ...]) -> Reach:
    texts: dict[tuple[str, str], str] = {}
    packages: set[str] = set()
    modules: set[str] = set()
    asked: set[str] = set()
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
        asked |= {f"{told}, in {at[0]}" for told in found.unheld}
        modules |= {at[0], *found.modules}
        why = why or found.whole
    modules = with_imports(modules, everywhere=False)
    why = why or next((why for name in sorted(modules) if (why := read(name).impure) and name != FIRST), "")
    if why:
        modules = with_imports(modules)
        texts = {(name, "*"): text(name) for name in modules}
        packages |= packages_of(modules) | {ANY}  # what is found by name may be in any
    else:
        texts |= {(FIRST, "*"): text(FIRST)} if FIRST in modules else {}
        packages |= {package for name in modules for package in read(name).unused}
    files = frozenset(file for name in modules for file in declared(name))
    return Reach(texts, frozenset(modules), frozenset(packages), files, tuple(sorted(asked)), why)


class Definition(NamedTuple):
    """One definition: its text, what it refers to and asks, and why it cannot be followed by reading, if so."""

    text: str
    reached: list[tuple[str, str]]
    packages: frozenset[str]
    modules: frozenset[str]
    unheld: tuple[str, ...]
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
    asked: list[str] = []
    for node in nodes:
        known = source.imports | dict(imports_in(node, module))
        asked += unheld(node, known, set(source.definitions))
        reached += _names(node, module, source, packages, modules)
        if (module, name) not in KNOWN:
            why = why or dynamic(node, known, set(source.definitions))
    if not nodes and name not in source.imports:
        if is_module((module, name)):
            reached += _target((module, name), packages, modules)
        else:
            why = f"'{name}' is not defined at its top level"
    spelled = f"{module}:{name}=" + ";".join(map(ast.dump, nodes))
    told = why and f"{module}: {why}"
    return Definition(spelled, reached, frozenset(packages), frozenset(modules), tuple(asked), told)


@cache
def read(module: str) -> Source:
    """Take a module of this project apart."""
    definitions: dict[str, list[ast.stmt]] = {}
    imports: dict[str, tuple[str, str]] = {}
    twice = ""
    bare = _bare(tree(module))
    for node in bare.body:
        if isinstance(node, ast.Import | ast.ImportFrom):
            fresh = bindings(node, module)
            again = [name for name, imported in fresh.items() if imports.get(name, imported) != imported]
            twice = twice or (f"line {node.lineno}: imports another {again[0]}" if again else "")
            imports.update(fresh)
        for name in bound(node):
            definitions.setdefault(name, []).append(node)
    why = twice or impure(bare, imports)
    used = {node.id for node in ast.walk(bare) if isinstance(node, ast.Name)}
    unused = {package for name, imported in imports.items() if name not in used for package in outside(imported)}
    return Source(definitions, imports, frozenset(unused), why and f"{module}: {why}")


def _names(node: ast.stmt, module: str, source: Source, packages: set[str], modules: set[str]) -> list[tuple[str, str]]:
    """List what a definition refers to: names of its module that it does not bind itself, and its own imports."""
    uses: dict[str, list[ast.Name]] = {}
    taken: dict[int, str] = {}  # attributes, by what they are taken of
    for inner in ast.walk(node):
        if isinstance(inner, ast.Name):
            uses.setdefault(inner.id, []).append(inner)
        elif isinstance(inner, ast.Attribute):
            taken[id(inner.value)] = inner.attr
    own, free = imports_in(node, module), _free(node)
    for _, imported in own:
        modules |= modules_of(imported)
    # A name that is bound both by its module and by the definition itself is followed both ways.
    found = [(module, name) for name in sorted(free) if name in source.definitions]
    listed = [(name, source.imports[name]) for name in sorted(free & set(source.imports))]
    for name, imported in [*listed, *own]:
        used = [id(use) for use in uses.get(name, [])]
        # Of a module that no name here stands for, all is taken: a.b.c, or what a class imports.
        if not is_module(imported) or not used or any(use not in taken for use in used):
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
    packages |= outside(imported)
    modules |= modules_of(imported)
    if not is_project(imported):
        return []
    if not is_module(imported):
        return [imported]
    whole = ".".join(part for part in imported if part)
    return [(whole, name) for name in (*read(whole).definitions, *read(whole).imports)]


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
    for remembered in (_reach, _definition, read):
        remembered.cache_clear()
