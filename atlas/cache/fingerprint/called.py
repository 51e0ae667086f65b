"""Find the code of a user's own, or of a package, that a network's entry names: its classifier's key holds it."""

import ast
import os
import sys
from pathlib import Path
from typing import Any

from atlas.cache.fingerprint import packages
from atlas.cache.fingerprint.modules import is_project
from atlas.study import unedited
from atlas.study.errors import UserError


def placed(settings: dict[str, Any], study: Path) -> dict[str, Any]:
    """Return a network's settings, the paths among them, `call` of a file and `folder`, behind the study's."""
    found = dict(settings)
    call = settings.get("call")
    if isinstance(call, str) and call.rpartition(":")[0].endswith(".py"):
        found["call"] = str(study / call)
    if isinstance(settings.get("folder"), str):
        found["folder"] = str(study / settings["folder"])
    return found


def beside(file: Path) -> list[Path]:
    """Return the folders where a network's file finds what it imports: its own; of a link, then that of its target."""
    target = file.resolve().parent
    return [file.parent] if target == file.parent.resolve() else [file.parent, target]


def files(settings: dict[str, Any]) -> list[Path]:
    """Return the files that make a network: the one that is named and what it imports beside it, or those of a folder.

    Args:
        settings: Of the network, their paths in place.
    """
    if "folder" in settings:
        return _within(Path(settings["folder"]), (".py", ".json"))
    file = Path(settings.get("call", "").rpartition(":")[0])
    return _with_imports(file) if file.suffix == ".py" and file.is_file() else []


def content(settings: dict[str, Any], study: Path) -> dict[str, Any]:
    """Return what a network depends on beside its settings and code of this project, by name.

    Returns:
        The bytes of files, in hexadecimal digits, by their path as the settings have it, each with the place where it
        is found among those that are looked at; the versions of the packages that these import, or that are named, and
        of those that they require.
    """
    study = study.resolve()
    call = settings.get("call", "").rpartition(":")[0]
    place = Path(settings.get("folder", call)).parent
    own = files(placed(settings, study))
    starts = [study / settings["folder"]] if "folder" in settings else beside(study / call)
    # What lies beside the target of a link is named as if it lay beside the link.
    bases = [study / place] if "folder" in settings else starts
    found: dict[str, list[str]] = {}
    for file in own:
        # No link is followed: files of linked folders keep the names by which they differ, on every machine.
        base = max((one for one in bases if file.is_relative_to(one)), key=lambda one: len(one.parts))
        name = (place / os.path.relpath(file, base)).as_posix()
        try:
            found.setdefault(name, []).append(f"{bases.index(base)} {unedited.read(file).hex()}")
        except OSError as error:
            raise UserError(f"{file}: cannot be read ({error.strerror})") from None
    asked = {name for file in own if file.suffix == ".py" for name in _outside(file, starts)}
    if call and not call.endswith(".py"):
        asked |= {call.partition(".")[0]}
    # Of those that are not installed, whether one lies on Python's path is the machine's to say.
    absent = {name: packages.ABSENT for name in sorted(asked) if not packages.distributions(name)}
    contents = {name: " ".join(sorted(held)) for name, held in found.items()}
    return contents | absent | packages.versions(asked - set(absent))


def _within(folder: Path, suffixes: tuple[str, ...], above: tuple[Path, ...] = ()) -> list[Path]:
    """Return the files of a folder and of those in it, links to folders followed but where they lead back."""
    full = folder.resolve()
    if full in above or not folder.is_dir():
        return []
    found: list[Path] = []
    for one in sorted(folder.iterdir()):
        found += _within(one, suffixes, (*above, full))
        found += [one] if one.suffix in suffixes and one.is_file() else []
    return found


def _with_imports(file: Path) -> list[Path]:
    """Return a file and those beside it that it imports, and that these do; of a folder of modules all that is in
    it."""
    found, waiting, starts = set(), [file], beside(file)
    while waiting:
        at = waiting.pop()
        if at not in found:
            found.add(at)
            waiting += [one for name in _imported(at) for one in _modules(starts, name)]
    return sorted(found)


def _modules(starts: list[Path], name: str) -> list[Path]:
    """Return the files in some folders that an import of a name may take: a folder of modules needs no
    `__init__.py`."""
    found: list[Path] = []
    for start in starts:
        file = start / f"{name}.py"
        found += [*([file] if file.is_file() else []), *_within(start / name, (".py",))]
        if stands(start, name):
            break
    return found


def stands(start: Path, name: str) -> bool:
    """Return whether a folder has a module that is taken before any other: a file, or a folder with `__init__.py`."""
    return any(one.is_file() for one in (start / f"{name}.py", start / name / "__init__.py"))


def _outside(file: Path, starts: list[Path]) -> set[str]:
    """Name the packages that a file imports and that do not lie in the folders where its imports are looked for."""
    names = {name for name in _imported(file) if not is_project((name, ""))} - sys.stdlib_module_names
    return {name for name in names if not _modules(starts, name) or _gives_way(starts, name)}


def _gives_way(starts: list[Path], name: str) -> bool:
    """Return whether an installed package is taken instead of what lies in the folders: one without `__init__.py`."""
    return not any(stands(start, name) for start in starts) and bool(packages.distributions(name))


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
