"""The modules of this project as text: their files, their imports and the data files that they declare."""

import ast
from functools import cache
from pathlib import Path
from sys import stdlib_module_names

from atlas.cache.fingerprint.inert import bound
from atlas.cache.fingerprint.syntax import nodes, parse
from atlas.study import unedited
from atlas.study.errors import UserError
from atlas.study.schema.signatures import HOUSE

PROJECT = ("atlas", "stages", "flows")


@cache
def text(module: str) -> str:
    """Read a module's source; later edits of the file are detected."""
    try:
        return unedited.read(file(module)).decode()
    except OSError as error:
        raise UserError(f"{file(module)}: cannot be read ({error.strerror}): code imports {module}") from None


@cache
def tree(module: str) -> ast.Module:
    """Parse a module, without docstrings."""
    try:
        return parse(text(module), str(file(module)))
    except SyntaxError as error:
        raise UserError(f"{file(module)}: line {error.lineno}: {error.msg}") from None


@cache
def file(module: str) -> Path:
    """Return the file of a module of this project."""
    parts = HOUSE.parent.joinpath(*module.split("."))
    return parts / "__init__.py" if parts.is_dir() else parts.with_suffix(".py")


@cache
def declared(module: str) -> list[Path]:
    """Return the data files that a module declares: `FILES = ["palette.npy"]`, relative to the module.

    Raises:
        UserError: FILES is not a literal list, or a file does not exist or lies outside `atlas/`.
    """
    for node in tree(module).body:
        if "FILES" not in bound(node):
            continue
        where = f"{file(module).relative_to(HOUSE.parent)}: FILES"
        value: ast.AST = getattr(node, "value", node)
        try:
            names = ast.literal_eval(value)
            found = [(file(module).parent / name).resolve() for name in names]
        except (ValueError, TypeError):
            raise UserError(f"{where} = {ast.unparse(value)}: expected a literal list of file names") from None
        for name, one in zip(names, found, strict=True):
            if not one.is_file() or HOUSE.resolve() not in one.parents:
                raise UserError(f"{where} names '{name}': expected a file beside the module, in a folder of atlas/")
        return found
    return []


def with_imports(modules: set[str], *, everywhere: bool = True) -> set[str]:
    """Return modules with all they import (anywhere, or only at top level) and the packages around them."""
    found: set[str] = set()
    waiting = list(modules)
    while waiting:
        name = waiting.pop()
        if name not in found:
            found.add(name)
            package = name.rpartition(".")[0]  # which may have no __init__.py
            waiting += [package] if package and file(package).is_file() else []
            waiting += _imports_of(name, everywhere=everywhere)[0]
    return found


def packages_of(modules: set[str]) -> set[str]:
    """Return the third-party packages that modules import anywhere in their source."""
    return {package for name in modules for package in _imports_of(name, everywhere=True)[1]}


@cache
def _imports_of(module: str, *, everywhere: bool) -> tuple[frozenset[str], frozenset[str]]:
    """Return the project modules and the third-party packages that a module imports."""
    modules: set[str] = set()
    packages: set[str] = set()
    top = tree(module)
    for node in nodes(top) if everywhere else top.body:
        if isinstance(node, ast.Import | ast.ImportFrom):
            for imported in bindings(node, module).values():
                modules |= modules_of(imported)
                packages |= outside(imported)
    return frozenset(modules), frozenset(packages)


def imports_in(node: ast.AST, module: str) -> list[tuple[str, tuple[str, str]]]:
    """Return the imports anywhere in a syntax tree, each with the name it binds; names may occur twice."""
    inner = [one for one in nodes(node) if isinstance(one, ast.Import | ast.ImportFrom)]
    return [pair for one in inner for pair in bindings(one, module).items()]


def bindings(node: ast.Import | ast.ImportFrom, module: str) -> dict[str, tuple[str, str]]:
    """Return (module, name) for each name that an import binds; for a module itself, the second part is empty."""
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


def is_project(imported: tuple[str, str]) -> bool:
    """Return whether an import is of this project."""
    return imported[0].split(".")[0] in PROJECT


def is_module(imported: tuple[str, str]) -> bool:
    """Return whether an import is a module of this project rather than a name in one."""
    origin, name = imported
    return is_project(imported) and (not name or file(f"{origin}.{name}").is_file())


def modules_of(imported: tuple[str, str]) -> set[str]:
    """Return the project modules that an import loads."""
    if not is_project(imported):
        return set()
    found = {imported[0], ".".join(part for part in imported if part)}
    return {name for name in found if file(name).is_file()}


def outside(imported: tuple[str, str]) -> set[str]:
    """Return the third-party package that an import loads."""
    return set() if is_project(imported) else {imported[0].split(".")[0]} - stdlib_module_names


def forget() -> None:
    """Clear the caches; for tests that edit source files."""
    for remembered in (text, tree, file, declared, _imports_of):
        remembered.cache_clear()
