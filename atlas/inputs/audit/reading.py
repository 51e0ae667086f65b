"""Know of a call under way what it may read, and keep the modules that it may not out of its reach."""

import os
import sys
import threading
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

from atlas.inputs.audit.places import is_own
from atlas.study.errors import Fault
from atlas.study.schema.settings import Entry

# Modules of functions that params.yaml names.
NAMED = ("atlas.methods.", "atlas.metrics.", "atlas.networks.")
# Threads that others' reading is done on.
SERVING = ("zarr", "asyncio", "ThreadPoolExecutor", "fsspec")


# Files of users' own networks that were built in this process: the keys of their classifiers hold them.
OF_NETWORKS: set[str] = set()


class Held(NamedTuple):
    """What the keys of a call's rows hold of the project, and what its code asks that none can hold."""

    modules: frozenset[str]
    names: frozenset[tuple[str, str]]  # of a whole module '*'
    files: frozenset[Path]
    unheld: tuple[str, ...]


class Reading:
    """What one call may read, and what it has read beyond that.

    Args:
        bound: Whose function is called.
        held: What its rows' keys hold.
    """

    def __init__(self, bound: Entry, held: Held):
        self.bound, self.modules, self.names = bound, held.modules, held.names
        self.files = {str(file) for file in held.files}
        self.faults = [*held.unheld]
        self.within: list[Fault] = []  # its own, and those of calls within it
        self.written: set[str] = set()
        self.hidden: list[tuple[str, ModuleType, dict, str]] = []
        self.packages = _packages()
        others = [number for number, one in [*threading._active.items()] if not one.name.startswith(SERVING)]
        self.own = threading.get_ident()
        self.others = {*others} - {self.own}
        self.judging: set[int] = set()  # threads in which an event is being judged

    def hide(self) -> None:
        """Take modules out of reach that the keys do not hold: to import one again is an event, to find it is not."""
        for name in _own_modules():
            if name not in self.modules and name in sys.modules:
                parent, _, child = name.rpartition(".")
                place = vars(sys.modules[parent]) if parent in sys.modules else {}
                module = sys.modules.pop(name)
                self.hidden.append((name, module, place if place.get(child) is module else {}, child))
        for _, _, place, child in self.hidden:
            place.pop(child, None)

    def show(self) -> None:
        """Put them back."""
        for name, module, place, child in self.hidden:
            sys.modules[name] = place[child] = module
        self.hidden.clear()

    @property
    def imported(self) -> bool:
        """Return whether packages have been imported since it began, which change some things of the process."""
        return _packages() != self.packages


# By how many modules there are: those of this project.
OWN: dict[int, list[str]] = {}


def _own_modules() -> list[str]:
    """List the modules that are neither Python's nor a package's."""
    if len(sys.modules) not in OWN:
        OWN.clear()
        files = {name: getattr(module, "__file__", None) or "" for name, module in [*sys.modules.items()]}
        # Some stand for no file, and give a name that is no path.
        own = [name for name, file in files.items() if os.path.isabs(file) and is_own(file)]
        OWN[len(sys.modules)] = [name for name in own if name != "__main__"]
    return OWN[len(sys.modules)]


def _packages() -> int:
    return len(sys.modules) - len(_own_modules())
