"""Check whether functions keep state between calls: in their modules, their classes or their own defaults.

The next call could find such state, so that its value would depend on earlier calls. What functions cache by their
arguments (`functools.cache`, `atlas.model.batch_cache.shared`) is not checked.
"""

import random
import sys
from collections import deque
from collections.abc import Iterable, Iterator
from contextvars import ContextVar
from functools import partial
from itertools import count
from types import CellType, FunctionType, GeneratorType, MappingProxyType, ModuleType
from typing import Any

import numpy as np

from atlas.inputs.audit import watched
from atlas.inputs.audit.reading import NAMED

DEEP, LONG = 5, 1000  # how deep nested values are compared, and how many values of a collection
STEPPING = ("builtins", "itertools")  # modules of iterators whose remaining items can be compared
REMEMBERING = "atlas.model.batch_cache"


def state(modules: Iterable[str]) -> dict[str, object]:
    """Return comparable states of the contents of method, metric and network modules, by module and name."""
    found: dict[str, object] = {}
    for module in modules:
        if module.startswith(NAMED) and module in sys.modules:
            held = vars(sys.modules[module])
            found |= {
                f"{module}.{name}": _value(held[name], DEEP)
                for name in [*held]
                if not name.startswith("__") and f"{module}.{name}" not in sys.modules
            }
    return found


def changed(before: dict[str, object], modules: Iterable[str]) -> Iterator[str]:
    """Yield the names that were changed or added in modules that were there before."""
    known = {name.rpartition(".")[0] for name in before}
    for name, value in state(set(modules) & known).items():
        if name not in before or before[name] != value:
            yield name


def _value(value: Any, deep: int) -> object:
    kind = type(value)
    if kind is FunctionType:
        return (id(value), _function(value, deep - 1)) if deep and _is_own(value) else id(value)
    if kind is ModuleType:
        return None
    if kind in (str, int, bool, bytes, type(None)):
        return value
    if isinstance(value, int | float | str | complex):
        return repr(value)  # NaN is not equal to itself
    if not deep:
        return id(value)
    if isinstance(value, list | tuple | set | frozenset | deque):
        inner = [*value][:LONG]
        return id(type(value)), len(value), [_value(one, deep - 1) for one in inner]
    if isinstance(value, dict | MappingProxyType):
        listed = [*value.items()][:LONG]
        return len(value), [(_value(name, 1), _value(one, deep - 1)) for name, one in listed]
    if isinstance(value, np.ndarray) or watched.is_tensor(value):
        return watched.state(value)
    return id(value), _inside(value, deep - 1)


def _inside(value: Any, deep: int) -> object:
    """Return the state of an object: what a generator or iterator yields next, otherwise the attributes."""
    kind = type(value)
    if isinstance(value, random.Random):
        return value.getstate()
    if isinstance(value, np.random.Generator):
        return repr(value.bit_generator.state)
    if isinstance(value, np.random.RandomState):
        return repr(value.get_state(legacy=False))
    if isinstance(value, sys.modules["torch"].Generator):
        return value.get_state().numpy().tobytes()
    if isinstance(value, ContextVar):
        return _value(value.get(None), deep)
    if isinstance(value, GeneratorType):
        return value.gi_frame and value.gi_frame.f_lasti
    if isinstance(value, type):
        held = {name: one for name, one in vars(value).items() if not name.startswith("__")}
        return _value(held, deep) if _is_own(value) else None
    if isinstance(value, count | partial) or (kind.__module__ in STEPPING and hasattr(value, "__next__")):
        return _value(value.__reduce__(), deep)
    return _value(vars(value), deep) if _is_own(kind) and hasattr(value, "__dict__") else None


def _function(function: FunctionType, deep: int) -> object:
    if not (function.__defaults__ or function.__kwdefaults__ or function.__closure__ or function.__dict__):
        return None
    if function.__globals__.get("__name__") == REMEMBERING:
        return None
    parts = (function.__defaults__, function.__kwdefaults__, vars(function))
    return [*(_value(part, deep) for part in parts), *(_cell(one, deep) for one in function.__closure__ or ())]


def _cell(cell: CellType, deep: int) -> object:
    try:
        return _value(cell.cell_contents, deep)
    except ValueError:  # it is empty
        return None


def _is_own(value: Any) -> bool:
    return str(getattr(value, "__module__", "")).startswith(NAMED)
