"""Checks of every signature: those that jaxtyping has beartype make, in a fraction of the time.

jaxtyping calls two functions beside each one that it checks, and keeps account of dimensions for all of them. Here
beartype checks the function itself, and account is kept only for functions that name dimensions.
"""

import inspect
from collections.abc import Callable
from functools import partial, update_wrapper, wraps
from types import CodeType, FunctionType
from typing import Any, NamedTuple, get_args

import jaxtyping
from beartype import BeartypeConf, beartype
from jaxtyping import AbstractArray, TypeCheckError, _decorator
from jaxtyping._storage import pop_shape_memo, push_shape_memo

FUNCTION = "__beartype_func"  # among the defaults of beartype's wrapper: what it calls
CHECKING = (__name__, _decorator.__name__)
_by_jaxtyping = _decorator.jaxtyped
_by_beartype = beartype(conf=BeartypeConf(violation_type=TypeCheckError))


class Checked(NamedTuple):
    """A function with its checks.

    function: The function.
    wrapper: The function with beartype's checks; the function itself, if its signature has nothing to check.
    dimensions: Whether it names dimensions of arrays.
    """

    function: FunctionType
    wrapper: FunctionType
    dimensions: bool


# Functions that are defined inside others, again and again: as they were the first time.
_inner: dict[CodeType, Checked | None] = {}


def install() -> None:
    """Have the functions of modules that are imported from now on checked so."""
    jaxtyping.jaxtyped = _decorator.jaxtyped = _jaxtyped


def unchecked(function: FunctionType) -> FunctionType:
    """Return the function that a wrapper checks; any other as it is."""
    wrapper = FUNCTION in (function.__kwdefaults__ or ()) or function.__globals__.get("__name__") in CHECKING
    return inspect.unwrap(function) if wrapper else function


def _jaxtyped(function: Any = None, *, typechecker: Callable) -> Any:
    if function is None:
        return partial(_jaxtyped, typechecker=typechecker)
    if not isinstance(function, FunctionType):  # of classes, methods and properties it comes back with their functions
        return _by_jaxtyping(function, typechecker=typechecker)
    if not function.__annotations__:
        return function
    checked = _checked(function) if "<locals>" not in function.__qualname__ else _checked_inner(function)
    if checked is None:
        return _by_jaxtyping(function, typechecker=typechecker)
    return _with_dimensions(checked.wrapper) if checked.dimensions else checked.wrapper


def _checked(function: FunctionType) -> Checked | None:
    """Return a function with its checks; None for a generator."""
    if inspect.isgeneratorfunction(function):
        return None
    written = function.__annotations__
    found = {name: _decorator._destring_annotation(hint, function.__globals__) for name, hint in written.items()}
    function.__annotations__ = found  # what cannot be found yet is `Any`, as jaxtyping has it
    try:
        wrapper = _by_beartype(function)
    finally:
        function.__annotations__ = written
    return Checked(function, wrapper, any(map(_has_dimensions, found.values())))


def _has_dimensions(hint: Any) -> bool:
    return (isinstance(hint, type) and issubclass(hint, AbstractArray)) or any(map(_has_dimensions, get_args(hint)))


def _checked_inner(function: FunctionType) -> Checked | None:
    code = function.__code__
    if code not in _inner:
        _inner[code] = _checked(function)
        return _inner[code]
    known = _inner[code]
    if known is None or known.wrapper is known.function:
        return known and known._replace(wrapper=function)
    first, wrapper, dimensions = known
    if first.__globals__ is not function.__globals__ or first.__annotations__ != function.__annotations__:
        return _checked(function)
    same = FunctionType(wrapper.__code__, wrapper.__globals__, closure=wrapper.__closure__)
    same.__kwdefaults__ = {**wrapper.__kwdefaults__, FUNCTION: function}
    same.__dict__.update(wrapper.__dict__)
    return Checked(function, update_wrapper(same, function), dimensions)


def _with_dimensions(wrapper: FunctionType) -> Callable:
    """Have dimensions of one name be of one size within a call."""

    @wraps(wrapper)
    def wrapped(*args, **kwargs):
        __tracebackhide__ = True
        push_shape_memo({})
        try:
            return wrapper(*args, **kwargs)
        finally:
            pop_shape_memo()

    return wrapped
