"""Classify files by location: this project's and its users' own, or those of Python, packages and the system."""

import os
import sys
import sysconfig
import tempfile
from functools import cache
from pathlib import Path

from atlas.study.schema.signatures import HOUSE

ROOT = HOUSE.parent
PROJECT = ("atlas", "stages", "flows")
# What Python and its packages read of their own accord.
SYSTEM = ("/dev", "/etc", "/lib", "/lib64", "/proc", "/sys", "/usr", "/Library", "/System")


@cache
def is_own(file: str) -> bool:
    """Return whether a file belongs to the project or a user, and not to a package, Python or the system."""
    if not file or file.startswith("<"):
        return False
    full = os.path.realpath(file)
    if within(full, _packages()):
        return False
    return within(full, (str(ROOT),)) or not within(full, (*SYSTEM, *_prefixes())) or full.startswith("/dev/shm/")


@cache
def _packages() -> tuple[str, ...]:
    known = {sysconfig.get_path(name) for name in ("purelib", "platlib", "stdlib", "platstdlib")}
    known |= {str(Path(os.__file__).parent), *(path for path in sys.path if path.endswith(("site-packages", ".zip")))}
    return tuple(os.path.realpath(path) for path in known if path)


@cache
def _prefixes() -> tuple[str, ...]:
    known = {os.path.realpath(path) for path in (sys.prefix, sys.base_prefix, sys.exec_prefix)}
    return tuple(path for path in known if not within(str(ROOT), (path,)))


def is_scratch(full: str) -> bool:
    """Return whether a file is in a cache of packages or a temporary folder."""
    return within(full, _scratch()) and not within(full, (str(ROOT),))


@cache
def _scratch() -> tuple[str, ...]:
    home = os.path.realpath(os.path.expanduser("~"))
    return tuple(map(os.path.realpath, (tempfile.gettempdir(), f"{home}/.cache", f"{home}/.config")))


def prepare() -> None:
    """Find all these folders before calls are watched.

    Python finds them under locks that the watched call may hold itself.
    """
    _packages(), _prefixes(), _scratch()


def within(path: str, folders: tuple[str, ...]) -> bool:
    """Return whether a path is one of some folders, or lies in one."""
    return any(path == folder or path.startswith(folder + os.sep) for folder in folders)


def module_of(full: str) -> str:
    """Return the module of this project whose source or bytecode a file is."""
    path = Path(full)
    if path.suffix == ".pyc" and path.parent.name == "__pycache__":
        path = path.parents[1] / f"{path.name.partition('.')[0]}.py"
    if path.suffix != ".py" or not within(str(path), tuple(f"{ROOT}/{name}" for name in PROJECT)):
        return ""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def relative(full: str) -> str:
    """Return a path relative to the project, if it lies within it."""
    return os.path.relpath(full, ROOT) if within(full, (str(ROOT),)) else full
