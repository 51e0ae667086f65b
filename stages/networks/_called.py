"""Find what an entry of params.yaml names by module and attribute, and call it with its settings."""

import importlib
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.machinery import PathFinder
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import Any

from torch import nn

from stages.networks._made import made
from stages.study.problem import Problem

SHOWN = 12  # names in a message
PROJECT = {"stages", "flows"}  # which are imported as they are, wherever a file lies


def called(family: str, call: str, settings: dict[str, Any]) -> nn.Module:
    """Call what 'package.module:Name.attribute', or 'path/to/file.py:Name', names.

    Raises:
        Problem: there is no such module or attribute, it does not take the settings, or it gives no network.
    """
    place, _, name = call.rpartition(":")
    told = f"{family}: call = {call!r}"
    if not place or not name:
        raise Problem(f"{told}: expected 'package.module:Name', or 'path/to/file.py:Name'")
    if not place.endswith(".py"):
        return made(f"{told}:", _attribute(_package(place, told), name, told), settings)
    file = Path(place)
    if not file.is_file():
        raise Problem(f"{told}: there is no file {file}")
    with _reachable(file.parent):
        return made(f"{told}:", _attribute(_loaded(file, told), name, told), settings)


def _package(name: str, told: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise Problem(f"{told}: the module {name} cannot be imported ({error}); is its package installed?") from None


def _loaded(file: Path, told: str) -> ModuleType:
    spec = spec_from_file_location(file.stem, file)
    module = module_from_spec(spec)
    sys.modules[file.stem] = module
    try:
        spec.loader.exec_module(module)
    except Problem:
        raise
    except Exception as error:
        said = " ".join(str(error).split())
        raise Problem(f"{told}: it cannot be imported: {type(error).__name__}: {said:.300}") from None
    return module


def _attribute(found: Any, path: str, told: str) -> Any:
    for name in path.split("."):
        if not hasattr(found, name):
            owner = getattr(found, "__name__", type(found).__name__)
            public = [one for one, value in vars(found).items() if not one.startswith("_") and callable(value)]
            more = f" and {len(public) - SHOWN} more" if len(public) > SHOWN else ""
            known = ", ".join(public[:SHOWN]) or "nothing that can be called"
            raise Problem(f"{told}: {owner} has no '{name}'; it has: {known}{more}")
        found = getattr(found, name)
    if not callable(found):
        raise Problem(f"{told}: '{path}' is a {type(found).__name__}, expected a class or a function")
    return found


@contextmanager
def _reachable(folder: Path) -> Iterator[None]:
    """Let a file import what lies beside it, and only while it is asked for: another's file may have like names."""
    names: set[str] = set()

    def taken() -> dict[str, ModuleType]:
        there = [name for name in sys.modules if name.partition(".")[0] in names]
        return {name: sys.modules.pop(name) for name in there}

    start = str(folder.resolve())
    sys.path.insert(0, start)
    importlib.invalidate_caches()
    for one in folder.iterdir():
        if one.suffix == ".py" or one.is_dir():  # an installed package is taken instead of a folder without __init__.py
            found = PathFinder.find_spec(one.stem)
            ours = found is not None and (found.origin is None or found.origin.startswith(start + os.sep))
            names |= {one.stem} - PROJECT if ours else set()
    before = taken()
    try:
        yield
    finally:
        sys.path.remove(start)
        taken()
        sys.modules.update(before)
