"""Find the code outside this project that a network's entry names; its classifier's key holds it."""

import ast
import os
import sys
from pathlib import Path
from typing import Any

from atlas.cache.fingerprint import packages
from atlas.cache.fingerprint.modules import is_project
from atlas.study import unedited
from atlas.study.errors import UserError


def placed(settings: dict[str, Any], root: Path) -> dict[str, Any]:
    """Return a network's settings with the paths among them (`folder`, and `call` of a file) relative to the study."""
    found = dict(settings)
    call = settings.get("call")
    if isinstance(call, str) and call.rpartition(":")[0].endswith(".py"):
        found["call"] = str(root / call)
    if isinstance(settings.get("folder"), str):
        found["folder"] = str(root / settings["folder"])
    return found


def import_folders(file: Path) -> list[Path]:
    """Return the folders in which a network's file finds its imports: its own and, for a link, the target's folder."""
    target = file.resolve().parent
    return [file.parent] if target == file.parent.resolve() else [file.parent, target]


def files(settings: dict[str, Any]) -> list[Path]:
    """Return the files that define a network: the named file and its imports beside it, or the files of a folder.

    Args:
        settings: The network's settings, with paths already resolved by `placed`.
    """
    if "folder" in settings:
        return _within(Path(settings["folder"]), (".py", ".json"))
    file = Path(settings.get("call", "").rpartition(":")[0])
    return _with_imports(file) if file.suffix == ".py" and file.is_file() else []


def content(settings: dict[str, Any], root: Path) -> dict[str, Any]:
    """Return by name what a network depends on besides its settings and the code of this project.

    Returns:
        The bytes of files as hexadecimal digits, by their path as written in the settings, each with the index of the
        folder in which it was found; the versions of the packages that are imported or named, and of all that they
        require.
    """
    root = root.resolve()
    call = settings.get("call", "").rpartition(":")[0]
    place = Path(settings.get("folder", call)).parent
    own = files(placed(settings, root))
    starts = [root / settings["folder"]] if "folder" in settings else import_folders(root / call)
    # What lies beside the target of a link is named as if it lay beside the link.
    bases = [root / place] if "folder" in settings else starts
    found: dict[str, list[str]] = {}
    for file in own:
        # Links are not resolved here: files of linked folders keep their distinct names, on every machine.
        base = max((one for one in bases if file.is_relative_to(one)), key=lambda one: len(one.parts))
        name = (place / os.path.relpath(file, base)).as_posix()
        try:
            found.setdefault(name, []).append(f"{bases.index(base)} {unedited.read(file).hex()}")
        except OSError as error:
            raise UserError(f"{file}: cannot be read ({error.strerror})") from None
    asked = {name for file in own if file.suffix == ".py" for name in _outside(file, starts)}
    if call and not call.endswith(".py"):
        asked |= {call.partition(".")[0]}
    # Names that are not installed: whether one is on Python's path depends on the machine.
    absent = {name: packages.ABSENT for name in sorted(asked) if not packages.distributions(name)}
    contents = {name: " ".join(sorted(held)) for name, held in found.items()}
    return contents | absent | packages.versions(asked - set(absent))


def _within(folder: Path, suffixes: tuple[str, ...], above: tuple[Path, ...] = ()) -> list[Path]:
    """Return the files of a folder and its subfolders; links to folders are followed unless they lead back."""
    full = folder.resolve()
    if full in above or not folder.is_dir():
        return []
    found: list[Path] = []
    for one in sorted(folder.iterdir()):
        found += _within(one, suffixes, (*above, full))
        found += [one] if one.suffix in suffixes and one.is_file() else []
    return found


def _with_imports(file: Path) -> list[Path]:
    """Return a file and what it imports beside it, directly or not; a folder of modules counts whole."""
    found, waiting, starts = set(), [file], import_folders(file)
    while waiting:
        at = waiting.pop()
        if at not in found:
            found.add(at)
            waiting += [one for name in _imported(at) for one in _modules(starts, name)]
    return sorted(found)


def _modules(starts: list[Path], name: str) -> list[Path]:
    """Return the files that an import of a name may refer to in the folders; a package needs no `__init__.py`."""
    found: list[Path] = []
    for start in starts:
        file = start / f"{name}.py"
        found += [*([file] if file.is_file() else []), *_within(start / name, (".py",))]
        if stands(start, name):
            break
    return found


def stands(start: Path, name: str) -> bool:
    """Return whether the folder's module takes precedence over all others: a file, or a folder with `__init__.py`."""
    return any(one.is_file() for one in (start / f"{name}.py", start / name / "__init__.py"))


def _outside(file: Path, starts: list[Path]) -> set[str]:
    """Name the packages that a file imports and that are not found in the folders searched for its imports."""
    names = {name for name in _imported(file) if not is_project((name, ""))} - sys.stdlib_module_names
    return {name for name in names if not _modules(starts, name) or _gives_way(starts, name)}


def _gives_way(starts: list[Path], name: str) -> bool:
    """Return whether an installed package is imported instead of a folder of that name without `__init__.py`."""
    return not any(stands(start, name) for start in starts) and bool(packages.distributions(name))


def _imported(file: Path) -> set[str]:
    """Name the packages and modules that a file imports, by the first part of their names."""
    try:
        tree = ast.parse(file.read_text())
    except (SyntaxError, UnicodeDecodeError, OSError):
        return set()  # reported when the network is built
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and not node.level:
            found.add((node.module or "").partition(".")[0])
    return found
