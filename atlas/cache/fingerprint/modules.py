"""The modules of this project as text: where each stands, what it imports, which data files it declares."""

import ast
from functools import cache
from pathlib import Path
from sys import stdlib_module_names

from atlas.cache.fingerprint.inert import bound
from atlas.study import unedited
from atlas.study.errors import UserError
from atlas.study.schema.signatures import HOUSE

PROJECT = ("atlas", "stages", "flows")


@cache
def text(module: str) -> str:
    """Read a module's source; from then on an edit of it is noticed."""
    try:
        return unedited.read(file(module)).decode()
    except OSError as error:
        raise UserError(f"{file(module)}: cannot be read ({error.strerror}): code imports {module}") from None


def tree(module: str) -> ast.Module:
    """Parse a module."""
    try:
        return ast.parse(text(module), str(file(module)))
    except SyntaxError as error:
        raise UserError(f"{file(module)}: line {error.lineno}: {error.msg}") from None


@cache
def file(module: str) -> Path:
    """Return in which file a module of this project stands."""
    parts = HOUSE.parent.joinpath(*module.split("."))
    return parts / "__init__.py" if parts.is_dir() else parts.with_suffix(".py")


@cache
def declared(module: str) -> list[Path]:
    """Return the data files that a module says it reads: `FILES = ["palette.npy"]`, beside the module.

    Raises:
        UserError: it is no literal list, or a file is not there, or lies outside of `atlas/`.
    """
    for node in tree(module).body:
        if "FILES" not in bound(node):
            continue
        where = f"{file(module).relative_to(HOUSE.parent)}: FILES"
        try:
            names = ast.literal_eval(node.value)  # type: ignore[attr-defined]
            found = [(file(module).parent / name).resolve() for name in names]
        except (ValueError, TypeError):
            raise UserError(f"{where} = {ast.unparse(node.value)}: expected a literal list of file names") from None
        for name, one in zip(names, found, strict=True):
            if not one.is_file() or HOUSE.resolve() not in one.parents:
                raise UserError(f"{where} names '{name}': expected a file beside the module, in a folder of atlas/")
        return found
    return []


def with_imports(modules: set[str], *, everywhere: bool = True) -> set[str]:
    """Add to modules those that they import, anywhere or at their top level alone, and the packages they lie in."""
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
    """Name the packages outside that modules import anywhere in their texts."""
    return {package for name in modules for package in _imports_of(name, everywhere=True)[1]}


@cache
def _imports_of(module: str, *, everywhere: bool) -> tuple[frozenset[str], frozenset[str]]:
    """Return the project's modules, and the packages outside, that a module imports."""
    modules: set[str] = set()
    packages: set[str] = set()
    top = tree(module)
    for node in ast.walk(top) if everywhere else top.body:
        if isinstance(node, ast.Import | ast.ImportFrom):
            for imported in bindings(node, module).values():
                modules |= modules_of(imported)
                packages |= outside(imported)
    return frozenset(modules), frozenset(packages)


def imports_in(node: ast.AST, module: str) -> list[tuple[str, tuple[str, str]]]:
    """Return the imports anywhere in a syntax tree, each with the name that it binds; several may bind one name."""
    inner = [one for one in ast.walk(node) if isinstance(one, ast.Import | ast.ImportFrom)]
    return [pair for one in inner for pair in bindings(one, module).items()]


def bindings(node: ast.Import | ast.ImportFrom, module: str) -> dict[str, tuple[str, str]]:
    """Return (module, name) by the name that an import binds; a module's own name is empty."""
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
    """Return whether what is imported is of this project."""
    return imported[0].split(".")[0] in PROJECT


def is_module(imported: tuple[str, str]) -> bool:
    """Return whether what is imported is a module of this project, not a name of one."""
    origin, name = imported
    return is_project(imported) and (not name or file(f"{origin}.{name}").is_file())


def modules_of(imported: tuple[str, str]) -> set[str]:
    """Name the project's modules that an import imports."""
    if not is_project(imported):
        return set()
    found = {imported[0], ".".join(part for part in imported if part)}
    return {name for name in found if file(name).is_file()}


def outside(imported: tuple[str, str]) -> set[str]:
    """Name the package outside that an import imports."""
    return set() if is_project(imported) else {imported[0].split(".")[0]} - stdlib_module_names


def forget() -> None:
    """Forget what was read: for tests, which edit code that is imported nowhere."""
    for remembered in (text, file, declared, _imports_of):
        remembered.cache_clear()
