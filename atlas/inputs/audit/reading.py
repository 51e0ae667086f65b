"""Keep what a running call may read, and hide the modules that it may not use."""

import os
import sys
import threading
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

from atlas.inputs.audit.places import is_own
from atlas.study.errors import Fault
from atlas.study.schema.settings import Entry

# Packages with the functions that params.yaml names.
NAMED = ("atlas.methods.", "atlas.metrics.", "atlas.networks.")
# Threads that do the reading of others, such as zarr's.
SERVING = ("zarr", "asyncio", "ThreadPoolExecutor", "fsspec")


# Files of users' own networks that were built in this process; the keys of their classifiers hold them.
OF_NETWORKS: set[str] = set()


class Held(NamedTuple):
    """What the keys of a call's rows hold of the project, and what its code depends on that no key can hold."""

    modules: frozenset[str]
    names: frozenset[tuple[str, str]]  # the name is '*' for a whole module
    files: frozenset[Path]
    uncovered: tuple[str, ...]


class Reading:
    """What one call may read, and its faults so far.

    Args:
        bound: The entry whose function is called.
        held: What the keys of its rows hold.
    """

    def __init__(self, bound: Entry, held: Held):
        self.bound, self.modules, self.names = bound, held.modules, held.names
        self.files = {str(file) for file in held.files}
        self.faults = [*held.uncovered]
        self.within: list[Fault] = []  # faults of the call and of the calls within it
        self.written: set[str] = set()
        self.hidden: list[tuple[str, ModuleType, dict, str]] = []
        self.packages = _packages()
        threads: Any = threading
        others = [number for number, one in [*threads._active.items()] if not one.name.startswith(SERVING)]
        self.own = threading.get_ident()
        self.others = {*others} - {self.own}
        self.checking: set[int] = set()  # threads in which an event is being checked

    def hide(self) -> None:
        """Hide modules that the keys do not hold: importing one again is an audit event, finding it is not."""
        for name in _own_modules():
            if name not in self.modules and name in sys.modules:
                parent, _, child = name.rpartition(".")
                place = vars(sys.modules[parent]) if parent in sys.modules else {}
                module = sys.modules.pop(name)
                self.hidden.append((name, module, place if place.get(child) is module else {}, child))
        for _, _, place, child in self.hidden:
            place.pop(child, None)

    def show(self) -> None:
        """Put the hidden modules back."""
        for name, module, place, child in self.hidden:
            sys.modules[name] = place[child] = module
        self.hidden.clear()

    @property
    def imported(self) -> bool:
        """Return whether packages were imported since the call began: imports change some state of the process."""
        return _packages() != self.packages


# The loaded modules of this project and its users, by the number of loaded modules and the last one (a cache).
OWN: dict[tuple[int, str], list[str]] = {}
# Whether a module is one of them, by name and identity (a cache).
KINDS: dict[tuple[str, int], bool] = {}


def _own_modules() -> list[str]:
    """Return the loaded modules that are neither Python's nor a package's."""
    place = len(sys.modules), next(reversed(sys.modules))
    if place not in OWN:
        if len(OWN) > 8:  # a call hides modules and shows them again: a few places take turns
            OWN.clear()
        OWN[place] = [name for name, module in [*sys.modules.items()] if _is_own_module(name, module)]
    return OWN[place]


def _is_own_module(name: str, module: object) -> bool:
    known = KINDS.get((name, id(module)))
    if known is None:
        file = getattr(module, "__file__", None) or ""
        # Some modules have no file, and a name in its place that is no path.
        known = KINDS[name, id(module)] = name != "__main__" and os.path.isabs(file) and is_own(file)
    return known


def _packages() -> int:
    return len(sys.modules) - len(_own_modules())
