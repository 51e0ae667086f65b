"""Digest everything a row's value depends on, from params.yaml, stores and source text alone.

Code is digested definition by definition: the function and every definition of this project that it reaches, as
syntax trees without docstrings and comments, and the versions of the packages that this code imports. So a better
comment, or another function in the same file, changes no key.
"""

import ast
import hashlib
import sys
from functools import cache
from importlib import metadata
from pathlib import Path
from symtable import symtable
from typing import NamedTuple

from stages.study import cards
from stages.study.params import CHOOSING, network, path
from stages.study.problem import Problem
from stages.study.settings import Entry, canonical
from stages.study.signatures import HOUSE

SIZE = 16  # bytes of a key: 128 bits
HIDING = {"eval", "exec", "__import__", "importlib", "find"}
NOUNS = ("stages.methods.", "stages.metrics.", "stages.networks.", "stages.datasets.")
# Imported under another name than they are installed under; others are looked up, which takes longer.
INSTALLED = {"cv2": "opencv-python-headless", "skimage": "scikit-image", "yaml": "pyyaml"}


def _stamps() -> dict[Path, tuple[int, int]]:
    """Note every source file's time and size."""
    return {file: (file.stat().st_mtime_ns, file.stat().st_size) for file in HOUSE.rglob("*.py")}


# As this process began: what it runs is what it imported, and a key must not speak of a later text.
BEGAN = _stamps()


def digest(*parts: object) -> bytes:
    """Digest bytes, text and settings, each told apart from its neighbours by its length."""
    total = hashlib.blake2b(digest_size=SIZE)
    for part in parts:
        data = part if isinstance(part, bytes) else canonical(part).encode()
        total.update(len(data).to_bytes(8, "little"))
        total.update(data)
    return total.digest()


def entry(bound: Entry, params: dict, *parts: tuple[str, str]) -> bytes:
    """Digest what all rows of an entry share: settings, code of the function and the verb's parts, engine, dtype.

    The entry's name is not in it: a renamed entry finds its rows. Options that leave values alone are not in it either.
    """
    shaping = {name: value for name, value in bound.options.items() if name not in CHOOSING}
    reached = code(
        (f"stages.{bound.kind}.{bound.family}", bound.function), ("stages.inputs.evidence", "tensors"), *parts
    )
    return digest(bound.settings, shaping, reached, params["engine"], params["stores"]["dtype"])


def classifier(study: Path, params: dict, name: str) -> bytes:
    """Digest a trained classifier: its weights, normalization, form, network settings and network code."""
    folder = path(study, "classifiers", name)
    weights = hashlib.blake2b(cards.weights(folder), digest_size=SIZE).digest()
    bound = network(params, name)
    loading = [
        ("stages.model.loading", "load"),
        ("stages.model.engine", "start"),
        ("stages.model.classifier", "Classifier"),
    ]
    reached = code((f"stages.networks.{bound.family}", bound.function), *loading)
    return digest(weights, cards.computing(folder), bound.settings, reached)


def code(*roots: tuple[str, str]) -> bytes:
    """Digest the definitions that (module, name) pairs reach, and the packages they import."""
    definitions, packages = closure(roots)
    return digest(sorted(definitions.values()), {name: version(name) for name in packages})


def closure(roots: tuple[tuple[str, str], ...]) -> tuple[dict[tuple[str, str], str], set[str]]:
    """Walk from names to every definition of this project they reach; give these, and the packages imported."""
    definitions: dict[tuple[str, str], str] = {}
    packages: set[str] = set()
    waiting = list(roots)
    while waiting:
        at = waiting.pop()
        if at not in definitions:
            definitions[at], reached, imported = _definition(*at)
            waiting += reached
            packages |= imported
    return definitions, packages


@cache
def _definition(module: str, name: str) -> tuple[str, list[tuple[str, str]], set[str]]:
    """Spell one definition, with what its module does on import, and list what it refers to."""
    source = read(module)
    packages: set[str] = set()
    nodes: list[ast.stmt] = []
    reached: list[tuple[str, str]] = []
    if name in source.imports:
        reached += _reach(source.imports[name], packages)
    if name in source.definitions:
        nodes = [*source.definitions[name], *source.effects]
        reached += [at for node in nodes for at in _names(node, module, source, packages)]
    elif name not in source.imports:
        raise ValueError(f"{module} does not define '{name}' at its top level: what it does cannot be told")
    return f"{module}:{name}=" + ";".join(map(ast.dump, nodes)), reached, packages


def unchanged(*files: Path) -> None:
    """Check that source files, or all of this project, are as they were when this process began.

    Raises:
        Problem: one was edited, so that what runs may not be what its text says.
    """
    for one in files or BEGAN:
        stat = one.stat() if one.is_file() else None
        now = stat and (stat.st_mtime_ns, stat.st_size)
        if BEGAN.get(one, now) != now:
            raise Problem(
                f"{one.relative_to(HOUSE.parent)} was edited while this was running; nothing is lost: run again"
            )


class Source(NamedTuple):
    """A module taken apart: what it defines, what it imports, what it does when imported."""

    definitions: dict[str, list[ast.stmt]]
    imports: dict[str, tuple[str, str]]
    effects: list[ast.stmt]


@cache
def read(module: str) -> Source:
    """Take a module of this project apart.

    Raises:
        Problem: its file was edited after this process began, so that what runs may not be what the file says.
    """
    unchanged(file(module))
    definitions: dict[str, list[ast.stmt]] = {}
    imports: dict[str, tuple[str, str]] = {}
    effects = []
    for node in _bare(ast.parse(file(module).read_text())).body:
        if isinstance(node, ast.Import | ast.ImportFrom):
            imports.update(_imports(node, module))
        elif names := _defined(node):
            for name in names:
                definitions.setdefault(name, []).append(node)
        elif not _idle(node):
            effects.append(node)
            for inner in ast.walk(node):
                if isinstance(inner, ast.Import | ast.ImportFrom):
                    imports.update(_imports(inner, module))
    return Source(definitions, imports, effects)


def file(module: str) -> Path:
    """Say in which file a module of this project stands."""
    parts = HOUSE.parent.joinpath(*module.split("."))
    return parts / "__init__.py" if parts.is_dir() else parts.with_suffix(".py")


@cache
def version(package: str) -> str:
    """Give the version of an imported package, whatever its distribution is called."""
    try:
        return metadata.version(INSTALLED.get(package, package))
    except metadata.PackageNotFoundError:
        found = _distributions().get(package, [])
        if not found:
            raise ValueError(
                f"the package '{package}' is imported and not installed: its version cannot be told"
            ) from None
        return ",".join(f"{name}={metadata.version(name)}" for name in sorted(set(found)))


@cache
def _distributions() -> dict[str, list[str]]:
    return dict(metadata.packages_distributions())


def _names(node: ast.stmt, module: str, source: Source, packages: set[str]) -> list[tuple[str, str]]:
    """List what a definition refers to: names of its module that it does not bind itself, and its own imports."""
    own: dict[str, tuple[str, str]] = {}
    uses: dict[str, list[ast.Name]] = {}
    taken: dict[int, str] = {}  # attributes, by what they are taken of
    for inner in ast.walk(node):
        if isinstance(inner, ast.Import | ast.ImportFrom):
            own.update(_imports(inner, module))
        elif isinstance(inner, ast.Name):
            uses.setdefault(inner.id, []).append(inner)
        elif isinstance(inner, ast.Attribute):
            taken[id(inner.value)] = inner.attr
    free = _free(node)
    if module.startswith(NOUNS) and free & HIDING:
        hidden = ", ".join(sorted(free & HIDING))
        raise ValueError(f"{module} uses {hidden}: what is looked up by name while it runs cannot be told; import it")
    # A name that is bound both by its module and by the definition itself is followed both ways.
    found = [(module, name) for name in sorted(free) if name in source.definitions]
    for name, imported in [
        *((name, source.imports[name]) for name in sorted(free & set(source.imports))),
        *own.items(),
    ]:
        used = [id(use) for use in uses.get(name, [])]
        if not _is_module(imported) or any(use not in taken for use in used):
            found += _reach(imported, packages)
        else:  # of a module of this project, what is taken of it
            found += [(".".join(part for part in imported if part), taken[use]) for use in used]
    return found


def _free(node: ast.stmt) -> set[str]:
    """Give the names that a statement takes from its module, or from Python: no argument, local or attribute."""
    found = set()
    waiting = [symtable(ast.unparse(node), "definition", "exec")]
    top = waiting[0]
    while waiting:
        table = waiting.pop()
        waiting += table.get_children()
        for symbol in table.get_symbols():
            if symbol.is_referenced() and (table is top or symbol.is_global()):
                found.add(symbol.get_name())
    return found


def _reach(imported: tuple[str, str], packages: set[str]) -> list[tuple[str, str]]:
    """Turn an import into what it reaches: a definition, a whole module, or a package outside."""
    origin, name = imported
    top = origin.split(".")[0]
    if top not in ("stages", "flows"):
        packages.update({top} - set(sys.stdlib_module_names))
        return []
    if not _is_module(imported):
        return [(origin, name)]
    whole = f"{origin}.{name}" if name else origin
    return [(whole, defined) for defined in read(whole).definitions]


def _is_module(imported: tuple[str, str]) -> bool:
    origin, name = imported
    return origin.split(".")[0] in ("stages", "flows") and (not name or file(f"{origin}.{name}").is_file())


def _imports(node: ast.Import | ast.ImportFrom, module: str) -> dict[str, tuple[str, str]]:
    if isinstance(node, ast.Import):
        for alias in node.names:
            if alias.name.startswith(("stages.", "flows.")) and not alias.asname:
                raise ValueError(
                    f"{module} says 'import {alias.name}': say 'from ... import ...', which can be followed"
                )
        # `import a.b` binds a, `import a.b as c` binds a.b.
        return {
            alias.asname or alias.name.split(".")[0]: (alias.name if alias.asname else alias.name.split(".")[0], "")
            for alias in node.names
        }
    origin = node.module or ""
    if node.level:
        base = module.split(".")[: -node.level]
        origin = ".".join([*base, origin] if origin else base)
    if any(alias.name == "*" for alias in node.names):
        raise ValueError(f"{module} imports * from {origin}: what it uses cannot be told")
    return {alias.asname or alias.name: (origin, alias.name) for alias in node.names}


def _defined(node: ast.stmt) -> list[str]:
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        return [node.name]
    if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
        return [node.target.id]
    if isinstance(node, ast.Assign):
        targets = [inner for target in node.targets for inner in ast.walk(target)]
        if all(isinstance(inner, ast.Name | ast.Tuple | ast.List | ast.Store) for inner in targets):
            return [inner.id for inner in targets if isinstance(inner, ast.Name)]
    return []


def _idle(node: ast.stmt) -> bool:
    """Tell docstrings and the guards `if __name__ == ...` and `if TYPE_CHECKING`, which do nothing on import."""
    if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
        return True
    guards = {"__name__", "TYPE_CHECKING"}
    return isinstance(node, ast.If) and any(
        isinstance(inner, ast.Name) and inner.id in guards for inner in ast.walk(node.test)
    )


def _bare(tree: ast.Module) -> ast.Module:
    """Strip docstrings, of fields too; comments are not in a syntax tree."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            node.body = [one for one in node.body if not _text(one)] or [ast.Pass()]
    return tree


def _text(node: ast.stmt) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
