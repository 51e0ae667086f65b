"""Check that a call leaves the process unchanged, and restore it: torch, NumPy, Python, random states."""

import builtins
import math
import os
import random
import sys
import time
from collections.abc import Iterable
from functools import cache
from operator import is_
from typing import Any

import numpy as np

from atlas.inputs.audit.parts import Part, of_numpy, of_python, of_torch
from atlas.inputs.audit.places import PROJECT

# Modules of classes that are not watched as layers' classes; torch.nn.Module itself always is.
OTHERS = (*PROJECT, "builtins", "torch.fx", "torch.nn.modules.module")
CACHED = "__slotnames__"  # what Python adds to a class when an object of it is first copied


class Names:
    """The contents of a module or class, by name; equal to another's as long as nothing was replaced.

    Additions to a module do not count: packages add names to themselves when submodules are imported.
    """

    def __init__(self, owner: object):
        self.held = _held(owner)
        self._grows = not isinstance(owner, type)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Names) and not self.replaced(other)

    __hash__ = None  # type: ignore[assignment]

    def are_of(self, owner: object) -> bool:
        """Return whether an owner still holds these objects and no others."""
        held = vars(owner)
        if CACHED in held:
            held = _held(owner)
        return len(held) == len(self.held) and all(map(is_, held.values(), self.held.values()))

    def replaced(self, before: "Names") -> list[str]:
        """Return the names whose objects were replaced or removed, or added to a class."""
        held = self.held
        if len(held) == len(before.held) and all(map(is_, held.values(), before.held.values())):
            return []
        added = [] if self._grows else [name for name in held if name not in before.held]
        return added + [name for name, value in before.held.items() if held.get(name, before) is not value]

    def is_own(self, before: "Names") -> bool:
        """Return whether an object of this project replaced one of the originals."""
        kinds = [getattr(self.held.get(name), "__module__", None) for name in self.replaced(before)]
        return any(str(kind).partition(".")[0] in PROJECT for kind in kinds)


def _held(owner: object) -> dict[str, object]:
    held = dict(vars(owner))
    held.pop(CACHED, None)
    return held


State = dict[tuple[str, int], Any]


def state() -> State:
    """Read all parts of the state."""
    return {(part.what, part.owner): _look(part) for part in (*_parts(), *_kernel())}


def restored(before: State, imported: bool) -> list[str]:
    """Restore the state, and return the names of the parts that had changed.

    Args:
        before: The earlier state.
        imported: Whether other packages have been imported since.
    """
    known = [(part, before[place]) for part in (*_parts(), *_kernel()) if (place := (part.what, part.owner)) in before]
    changed = [(part, now, was) for part, was in known if not _same(now := _look(part), was)]
    for part, _, was in changed:
        part.set(was)
    return [part.what for part, now, was in changed if not (imported and part.by_imports) or _is_own(now, was)]


@cache
def _parts() -> list[Part]:
    owners = [builtins, math, os, random, time, np, np.linalg, np.random]
    if (torch := sys.modules.get("torch")) is None:
        return [*of_python(), *of_numpy(), *map(_of_owner, owners)]
    owners += [torch, torch.nn.functional, torch.nn.Module, torch.Tensor, torch.fft, torch.linalg]
    return [*of_python(), *of_numpy(), *of_torch(), *map(_of_owner, owners)]


# Modules whose functions methods and metrics may call, by the numbers of loaded modules and classes (a cache).
KERNEL: dict[tuple[int, int], list[Part]] = {}
# The classes of packages that the layers of classifiers' networks are of, bases included.
LAYERS: set[type] = set()


def watch_layers(kinds: Iterable[type]) -> None:
    """From now on, watch the classes of a network's layers: all networks with such layers would run what is put there.

    Classes of this project's networks are watched with their modules (`kept`); torch.fx makes one for each graph.
    """
    LAYERS.update(base for kind in kinds for base in kind.__mro__ if not base.__module__.startswith(OTHERS))


def _kernel() -> list[Part]:
    place = len(sys.modules), len(LAYERS)
    if place not in KERNEL:
        KERNEL.clear()
        names = [name for name in sys.modules if name.startswith(("atlas.model.", "atlas.inputs."))]
        owners: list[Any] = [sys.modules[name] for name in names]
        if classifier := sys.modules.get("atlas.model.classifier"):
            owners.append(classifier.Classifier)
        parts = [*map(_of_owner, owners), *map(_of_layer, LAYERS)]
        KERNEL[place] = [part._replace(by_imports=False) for part in parts]
    return KERNEL[place]


def _look(part: Part) -> Any:
    try:
        return part.get()
    except (RuntimeError, OSError) as error:  # contradicting flags, or a deleted working folder
        return repr(error)


def _same(one: Any, other: Any) -> bool:
    if isinstance(one, list) and one and hasattr(one[0], "numel"):
        torch = sys.modules["torch"]
        return len(one) == len(other) and all(map(torch.equal, one, other))
    return one is other or one == other


def _is_own(now: Any, before: Any) -> bool:
    return isinstance(now, Names) and now.is_own(before)


def _of_owner(owner: Any) -> Part:
    def put(known: Names) -> None:
        for name in Names(owner).replaced(known):
            if name in known.held:
                setattr(owner, name, known.held[name])
            else:
                delattr(owner, name)

    last: list[Names] = []

    def get() -> Names:
        if not last or not last[0].are_of(owner):  # a copy takes longer than a comparison
            last[:] = [Names(owner)]
        return last[0]

    return Part(f"what {owner.__name__} holds", get, put, True)


def forget_layers() -> None:
    """Watch no classes of layers any more; for when networks are loaded anew."""
    LAYERS.clear()
    KERNEL.clear()


def _of_layer(kind: type) -> Part:
    return _of_owner(kind)._replace(what=f"what {kind.__module__}.{kind.__qualname__} holds", owner=id(kind))
