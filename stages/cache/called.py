"""Tell what code of a user's own, or of a package, a network's entry names: what its classifier's key is to hold."""

import ast
import importlib.util
import sys
from pathlib import Path
from typing import Any

from stages.cache import packages
from stages.cache.modules import is_project
from stages.study import unedited
from stages.study.problem import Problem


def placed(settings: dict[str, Any], study: Path) -> dict[str, Any]:
    """Return a network's settings, the paths among them, `call` of a file and `folder`, behind the study's."""
    found = dict(settings)
    call = settings.get("call")
    if isinstance(call, str) and call.rpartition(":")[0].endswith(".py"):
        found["call"] = str(study / call)
    if isinstance(settings.get("folder"), str):
        found["folder"] = str(study / settings["folder"])
    return found


def files(settings: dict[str, Any]) -> list[Path]:
    """Give the files that make a network: the one that is named and what it imports beside it, or those of a folder.

    Args:
        settings: Of the network, their paths in place.
    """
    if "folder" in settings:
        folder = Path(settings["folder"])
        return sorted(one for one in folder.rglob("*") if one.suffix in (".py", ".json") and one.is_file())
    file = Path(settings.get("call", "").rpartition(":")[0])
    return _with_imports(file) if file.suffix == ".py" and file.is_file() else []


def content(settings: dict[str, Any], study: Path) -> dict[str, Any]:
    """Give what a network depends on beside its settings and code of this project, by name.

    Returns:
        The bytes of files, in hexadecimal digits, by their path in the study; the versions of the packages that these
        import, or that are named, and of those that they require.
    """
    settings = placed(settings, study)
    own = files(settings)
    found: dict[str, Any] = {}
    for file in own:
        try:
            found[_name(file, study)] = unedited.read(file).hex()
        except OSError as error:
            raise Problem(f"{file}: cannot be read ({error.strerror})") from None
    asked = {name for file in own if file.suffix == ".py" for name in _outside(file)}
    call = settings.get("call", "").rpartition(":")[0]
    if call and not call.endswith(".py"):
        asked |= {call.partition(".")[0]}
    known = {name for name in asked if importlib.util.find_spec(name) is None or packages.distributions(name)}
    return found | packages.versions(known)


def _name(file: Path, study: Path) -> str:
    full, start = file.resolve(), study.resolve()
    return str(full.relative_to(start)) if full.is_relative_to(start) else file.name


def _with_imports(file: Path) -> list[Path]:
    """Give a file and those beside it that it imports, and that these do; of a package all that is in it."""
    found, waiting = set(), [file]
    while waiting:
        at = waiting.pop()
        if at in found:
            continue
        found.add(at)
        for name in _imported(at):
            place = file.parent / name
            waiting += [place.with_suffix(".py")] if place.with_suffix(".py").is_file() else []
            waiting += place.rglob("*.py") if (place / "__init__.py").is_file() else []
    return sorted(found)


def _outside(file: Path) -> set[str]:
    beside = {one.stem for one in file.parent.iterdir()}
    names = {name for name in _imported(file) if not is_project((name, ""))}
    return names - beside - sys.stdlib_module_names


def _imported(file: Path) -> set[str]:
    """Name the packages and modules that a file imports, by the first part of their names."""
    try:
        tree = ast.parse(file.read_text())
    except (SyntaxError, UnicodeDecodeError, OSError):
        return set()  # it will be told when the network is built
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and not node.level:
            found.add((node.module or "").partition(".")[0])
    return found
