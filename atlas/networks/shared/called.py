"""Find what an entry of params.yaml names by module and attribute, and call it with its settings."""

import importlib
import os
import sys
import sysconfig
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.machinery import PathFinder
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import Any

from torch import nn

from atlas.cache.fingerprint.called import files, import_folders, stands
from atlas.networks.shared.construct import construct
from atlas.study.errors import UserError

SHOWN = 12  # names in a message
PROJECT = {"atlas", "stages", "flows"}  # always imported as usual, wherever a user's file lies


def called(family: str, call: str, settings: dict[str, Any]) -> nn.Module:
    """Call what 'package.module:Name.attribute', or 'path/to/file.py:Name', names.

    Raises:
        UserError: there is no such module or attribute, it does not take the settings, or it returns no network.
    """
    place, _, name = call.rpartition(":")
    prefix = f"{family}: call = {call!r}"
    if not place or not name:
        raise UserError(f"{prefix}: expected 'package.module:Name', or 'path/to/file.py:Name'")
    if not place.endswith(".py"):
        return construct(f"{prefix}:", _attribute(_package(place, prefix), name, prefix), settings)
    file = Path(place)
    if not file.is_file():
        raise UserError(f"{prefix}: there is no file {file}")
    starts = import_folders(file)
    for one in files({"call": call}):
        start = next(start for start in starts if one.is_relative_to(start))
        module = one.relative_to(start).parts[0].removesuffix(".py")
        if stands(start, module) and (hidden := _hidden(module)):
            raise UserError(f"{prefix}: {one} has the name of {hidden}, which it would hide: give it another name")
    with _reachable(starts):
        return construct(f"{prefix}:", _attribute(_loaded(file, prefix), name, prefix), settings)


def _package(name: str, prefix: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise UserError(
            f"{prefix}: the module {name} cannot be imported ({error}); is its package installed?"
        ) from None


def _loaded(file: Path, prefix: str) -> ModuleType:
    spec = spec_from_file_location(file.stem, file)
    assert spec is not None  # as for any file with Python's suffix
    assert spec.loader is not None
    module = module_from_spec(spec)
    sys.modules[file.stem] = module
    try:
        spec.loader.exec_module(module)
    except UserError:
        raise
    except Exception as error:
        text = " ".join(str(error).split())
        raise UserError(f"{prefix}: it cannot be imported: {type(error).__name__}: {text:.300}") from None
    return module


def _hidden(name: str) -> str:
    """Return what a user's module of this name would hide; empty if the name is free."""
    if name in PROJECT:
        return "this project's code"
    if name in sys.stdlib_module_names:
        return "a standard module of Python"
    found = PathFinder.find_spec(name, [sysconfig.get_path(kind) for kind in ("purelib", "platlib")])
    return "an installed package" if found is not None and found.origin is not None else ""


def _attribute(found: Any, path: str, prefix: str) -> Any:
    for name in path.split("."):
        if not hasattr(found, name):
            owner = getattr(found, "__name__", type(found).__name__)
            public = [one for one, value in vars(found).items() if not one.startswith("_") and callable(value)]
            more = f" and {len(public) - SHOWN} more" if len(public) > SHOWN else ""
            known = ", ".join(public[:SHOWN]) or "nothing that can be called"
            raise UserError(f"{prefix}: {owner} has no '{name}'; it has: {known}{more}")
        found = getattr(found, name)
    if not callable(found):
        raise UserError(f"{prefix}: '{path}' is a {type(found).__name__}, expected a class or a function")
    return found


@contextmanager
def _reachable(folders: list[Path]) -> Iterator[None]:
    """Make modules in some folders importable inside the `with` block only: other files may import modules of equal
    names.

    Modules of the standard library that are loaded stay: a package may import them while the network is built.
    """
    names: set[str] = set()

    def there() -> dict[str, ModuleType]:
        return {name: module for name, module in [*sys.modules.items()] if name.partition(".")[0] in names}

    starts = [str(folder.resolve()) for folder in folders]
    own = tuple(start + os.sep for start in starts)
    sys.path[:0] = starts
    importlib.invalidate_caches()
    for one in (one for folder in folders for one in folder.iterdir()):
        if one.suffix == ".py" or one.is_dir():  # an installed package has priority over a folder without __init__.py
            found = PathFinder.find_spec(one.stem)
            ours = found is not None and (found.origin is None or found.origin.startswith(own))
            names |= {one.stem} - PROJECT if ours else set()
    before = there()
    for name in before:
        if name.partition(".")[0] not in sys.stdlib_module_names:
            del sys.modules[name]
    try:
        yield
    finally:
        for start in starts:
            sys.path.remove(start)
        for name in there():
            del sys.modules[name]
        sys.modules.update(before)
