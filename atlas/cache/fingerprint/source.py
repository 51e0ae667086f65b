"""Determine from source what code a function runs: every definition of this project that it reaches.

Single definitions are used where that is sound: where a module holds nothing but imports, constants, functions and
classes that refer to each other by name. Anything else that a module may do (fill a registry when it is imported, look
a name up at run time, change itself) cannot be followed by reading; then the whole text of every reachable module is
used. While rows are computed, `atlas.inputs.calls` checks that nothing was missed.
"""

import ast
import hashlib
import json
from collections import deque
from functools import cache
from pathlib import Path
from symtable import symtable
from typing import NamedTuple

from atlas.cache.fingerprint.inert import bound, dynamic, impure
from atlas.cache.fingerprint.modules import (
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
from atlas.cache.fingerprint.packages import ANY
from atlas.cache.fingerprint.placeless import asks_place, placeless
from atlas.cache.fingerprint.syntax import nodes
from atlas.cache.fingerprint.typed import types_in, without_ranges
from atlas.cache.fingerprint.uncovered import uncovered
from atlas.study import unedited

# The whole text of this module is part of every key: it decides how all other modules are loaded.
FIRST = "atlas.importing"
# It imports names lazily and defines none of them: code that uses one is digested by whole modules.
PUBLIC = ("atlas", ("__dir__", "__getattr__"))
# What these look up by name, or evaluate, is covered elsewhere: callers pass the functions among the roots, or
# `atlas.cache.fingerprint.called` digests what a network's settings name. The last one unpickles tensors alone.
KNOWN = {
    ("atlas.study.params", "find"),
    ("atlas.study.schema.signatures", "_annotation"),
    ("atlas.classifiers.weights", "_content"),
} | {("atlas.networks.shared.called", name) for name in ("_package", "_hidden", "_loaded", "_attribute", "_reachable")}
# These take attributes by names made while they run: of the C library, of torch, of paths, of a network, of themselves.
ASKING = {
    ("atlas.datasets.shared.lists", "files"),
    ("atlas.inputs.explain", "Explainer"),
    ("atlas.methods.shared.relevance.graph", "Steps"),
    ("atlas.methods.shared.relevance.graph", "_kind"),
    ("atlas.model.graph.rewriting", "_own_tensor"),
    ("atlas.model.runtime", "_c_library"),
}

# Audits a function and returns nothing: what it does affects no value.
AUDIT = ("atlas.inputs.audit.building", "building")

# What a name in a definition refers to: a (module, name) of this project, or the full name of something third-party.
Target = tuple[str, str] | str


class Reach(NamedTuple):
    """The code that a function reaches: texts by module and name, modules, third-party packages, declared data files.

    Texts are in the order in which they are reached and name no module of this project: what the names in a definition
    refer to is recorded as the numbers of the targets. So moving or renaming a module changes no text.
    """

    texts: dict[tuple[str, str], str]
    modules: frozenset[str]
    packages: frozenset[str]
    files: frozenset[Path]
    uncovered: tuple[str, ...]  # reads of definitions that no key can hold: the clock, entropy
    whole: str  # why whole modules are used; empty where single definitions are
    placed: bool  # whether a definition asks where a module lies


class Source(NamedTuple):
    """A parsed module: what it defines, what it imports, and what prevents reading it by single definitions."""

    definitions: dict[str, list[ast.stmt]]
    imports: dict[str, tuple[str, str]]
    unused: frozenset[str]  # third-party packages imported for their side effects
    impure: str


def reach(*roots: tuple[str, str]) -> Reach:
    """Collect all code of this project that (module, name) pairs reach.

    Raises:
        UserError: a module or a declared file does not exist.
    """
    return _reach(tuple(dict.fromkeys(roots)))


@cache
def _reach(roots: tuple[tuple[str, str], ...]) -> Reach:
    texts: dict[tuple[str, str], str] = {}
    numbers = {root: number for number, root in enumerate(roots)}
    packages: set[str] = set()
    modules: set[str] = set()
    asked: set[str] = set()
    why, placed = "", False
    waiting = deque(roots)
    while waiting:
        at = waiting.popleft()
        found = _definition(*at)
        targets = []
        for name, target in found.targets:
            if isinstance(target, tuple) and target not in numbers:
                numbers[target] = len(numbers)
                waiting += [] if target == AUDIT else [target]
            targets.append([name, target if isinstance(target, str) else numbers[target]])
        texts[at] = f"{found.text};{json.dumps(targets)}"
        packages |= found.packages
        asked |= {f"{message}, in {at[0]}" for message in found.uncovered}
        modules |= {at[0], *found.modules}
        why, placed = why or found.whole, placed or found.placed
    modules = with_imports(modules, everywhere=False)
    why = why or next((why for name in sorted(modules) if (why := read(name).impure) and name != FIRST), "")
    if why:
        modules = with_imports(modules)
        texts = {(name, "*"): text(name) for name in sorted(modules)}
        packages |= packages_of(modules) | {ANY}  # a lookup by name may reach any of them
    else:
        texts |= {(FIRST, "*"): text(FIRST)} if FIRST in modules else {}
        packages |= {package for name in modules for package in read(name).unused}
    files = frozenset(file for name in modules for file in declared(name))
    return Reach(texts, frozenset(modules), frozenset(packages), files, tuple(sorted(asked)), why, placed)


class Definition(NamedTuple):
    """One definition: its text, what its names refer to, what it reads, and why it cannot be followed, if so."""

    text: str
    targets: list[tuple[str, Target]]
    packages: frozenset[str]
    modules: frozenset[str]
    uncovered: tuple[str, ...]
    whole: str
    placed: bool


@cache
def _definition(module: str, name: str) -> Definition:
    source = read(module)
    packages: set[str] = set()
    modules: set[str] = set()
    targets: list[tuple[str, Target]] = []
    why = ""
    if name in source.imports:
        targets += _target(name, source.imports[name], packages, modules)
    statements = source.definitions.get(name, [])
    texts = []
    asked: list[str] = []
    for node in statements:
        known = source.imports | dict(imports_in(node, module))
        asked += uncovered(node, known, set(source.definitions))
        held = without_ranges(node, known)
        targets += _names(held, module, source, packages, modules)
        texts.append(placeless(held, module, known))
        if (module, name) not in KNOWN:
            why = why or dynamic(node, known, set(source.definitions), (module, name) in ASKING)
    if not statements and name not in source.imports:
        if is_module((module, name)):
            targets += _target(name, (module, name), packages, modules)
        else:
            why = f"'{name}' is not defined at its top level"
    if statements:
        targets += [(one.name, f"file {hashlib.sha256(unedited.read(one)).hexdigest()}") for one in declared(module)]
    message = why and f"{module}: {why}"
    placed = any(asks_place((module, name), node) for node in statements)
    return Definition(";".join(texts), targets, frozenset(packages), frozenset(modules), tuple(asked), message, placed)


@cache
def read(module: str) -> Source:
    """Parse a module of this project."""
    definitions: dict[str, list[ast.stmt]] = {}
    imports: dict[str, tuple[str, str]] = {}
    twice = ""
    top = tree(module)
    if module == PUBLIC[0]:
        top = ast.Module([node for node in top.body if not set(bound(node)) & set(PUBLIC[1])], [])
    for node in top.body:
        if isinstance(node, ast.Import | ast.ImportFrom):
            fresh = bindings(node, module)
            again = [name for name, imported in fresh.items() if imports.get(name, imported) != imported]
            twice = twice or (f"line {node.lineno}: imports another {again[0]}" if again else "")
            imports.update(fresh)
        for name in bound(node):
            definitions.setdefault(name, []).append(node)
    why = twice or impure(top, imports)
    used = {inner.id for node in top.body for inner in nodes(node) if isinstance(inner, ast.Name)}
    unused = {package for name, imported in imports.items() if name not in used for package in outside(imported)}
    return Source(definitions, imports, frozenset(unused), why and f"{module}: {why}")


def _names(
    node: ast.stmt, module: str, source: Source, packages: set[str], modules: set[str]
) -> list[tuple[str, Target]]:
    """Return what the names of a definition refer to: names of its module that it does not bind, and its own imports.

    For a module of this project these are the attributes used, one by one; the local name of the module is left out.
    """
    uses: dict[str, list[ast.Name]] = {}
    taken: dict[int, str] = {}  # attributes, by the object they belong to
    for inner in nodes(node):
        if isinstance(inner, ast.Name):
            uses.setdefault(inner.id, []).append(inner)
        elif isinstance(inner, ast.Attribute):
            taken[id(inner.value)] = inner.attr
    own, free = imports_in(node, module), _free(node)
    for _, imported in own:
        modules |= modules_of(imported)
    # A name bound both by the module and by the definition itself is followed both ways.
    found: list[tuple[str, Target]] = [(name, (module, name)) for name in sorted(free) if name in source.definitions]
    parts: dict[int, list[tuple[str, Target]]] = {}
    types = types_in(node, source.imports | dict(own))
    for name, imported in [*((name, source.imports[name]) for name in sorted(free & set(source.imports))), *own]:
        used = [id(use) for use in uses.get(name, [])]
        if name in types:
            found.append((name, f"type {types[name]}"))
        # Without a name that stands for the module itself (a.b.c, an import in a class), the whole module is used.
        elif not is_module(imported) or not used or any(use not in taken for use in used):
            found += _target(name, imported, packages, modules)
        else:
            for use in used:
                parts.setdefault(use, []).append((taken[use], (".".join(filter(None, imported)), taken[use])))
    return found + [part for inner in nodes(node) for part in parts.get(id(inner), [])]


def _free(node: ast.stmt) -> set[str]:
    """Return the names that a statement may take from its module or the builtins: no argument, local or attribute.

    In the body of a class, a name refers to the module until the class binds it.
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


def _target(name: str, imported: tuple[str, str], packages: set[str], modules: set[str]) -> list[tuple[str, Target]]:
    """Resolve an imported name: to a definition, a whole module, or something third-party."""
    packages |= outside(imported)
    modules |= modules_of(imported)
    whole = ".".join(filter(None, imported))
    if not is_project(imported):
        return [(name, whole)]
    if not is_module(imported):
        return [(name, imported)]
    return [(f"{name}.{one}", (whole, one)) for one in (*read(whole).definitions, *read(whole).imports)]


def forget() -> None:
    """Clear the caches; for tests that edit source files."""
    for remembered in (_reach, _definition, read):
        remembered.cache_clear()
