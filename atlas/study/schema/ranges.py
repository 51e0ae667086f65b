"""Check the numbers of params.yaml against the ranges of their types, and describe what a type accepts.

Conditions that involve more than the number itself (other settings, the images) are checked where these are known.
"""

from functools import reduce
from math import isfinite
from operator import or_
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from atlas.study.schema.types import GREATEST, GREATEST_SEED, GREATEST_WHOLE, SMALLEST, Items, Range

# The range of whole numbers of a plain type.
WHOLE = Range(0, GREATEST_WHOLE)
NUMBER = Range(-GREATEST, GREATEST)


def bare(kind: Any) -> Any:
    """Return a type without ranges and descriptions."""
    origin, parts = get_origin(kind), get_args(kind)
    if origin is Annotated:
        return bare(parts[0])
    if origin in (Union, UnionType):
        return reduce(or_, map(bare, parts))
    return origin[tuple(map(bare, parts))] if origin in (list, dict) else kind


def fault(setting: str, value: object, kind: Any) -> str | None:
    """Return what is wrong with the numbers of a setting of the right type; None if nothing is.

    Args:
        setting: Its name.
        value: A number, a list of numbers, or something without numbers.
        kind: Its type; numbers in and outside of lists have the same range.
    """
    numbers = value if isinstance(value, list) else [value]
    ranges, lengths = _marks(kind, Range), _marks(kind, Items)
    for number in numbers:
        if isinstance(number, int | float) and not isinstance(number, bool):
            known = ranges[0] if ranges else WHOLE if isinstance(number, int) else NUMBER
            if not _within(number, known):
                each = "each " if isinstance(value, list) else ""
                return f"'{setting}' = {value!r:.100}: expected {each}{_spelled(known, number)}"
    for length in lengths if isinstance(value, list) else []:
        if not length.least <= len(numbers) <= length.most:
            return f"'{setting}' = {value!r}: expected a list of {_length(length)}"
        if length.rising and numbers != sorted(numbers):
            return f"'{setting}' = {value!r}: expected the least, then the greatest"
    return None


def accepted(kind: Any) -> str:
    """Return which values a type accepts, in words: `at least 1`, `logit, probability, loss`."""
    origin, parts = get_origin(kind), get_args(kind)
    if origin is Annotated:
        for one in parts[1:]:
            if isinstance(one, Range):
                return f"{'whole number, ' if parts[0] is int else ''}{_spelled(one, 0)}"
            if isinstance(one, Items):
                each = accepted(get_args(parts[0])[0])
                return f"list of {_length(one)}, each {each}{', least first' if one.rising else ''}"
        return accepted(parts[0])
    if origin is Literal:
        return ", ".join(map(str, parts))
    if origin in (Union, UnionType):
        return " or ".join("null" if one is type(None) else accepted(one) for one in parts)
    if origin is list:
        return f"list, each {accepted(parts[0])}"
    if origin is dict:
        return f"mapping of {accepted(parts[0])} to {accepted(parts[1])}"
    plain = {int: "whole number, at least 0", float: "number", bool: "true, false", str: "text", dict: "mapping"}
    return plain.get(kind, str(kind))


def description(kind: Any) -> str:
    """Return a type's description of its settings; empty if it has none."""
    return next((one for one in getattr(kind, "__metadata__", ()) if isinstance(one, str)), "")


def _marks(kind: Any, of: type) -> list[Any]:
    """Return the metadata of a class in a type and its parts."""
    own = [one for one in getattr(kind, "__metadata__", ()) if isinstance(one, of)]
    # For an annotated type, the other arguments are its own metadata.
    parts = get_args(kind)[:1] if get_origin(kind) is Annotated else get_args(kind)
    return own + [mark for part in parts for mark in _marks(part, of)]


def _length(length: Items) -> str:
    return f"{length.least:g} numbers" if length.least == length.most else f"at least {length.least:g}"


def _spelled(known: Range, number: int | float) -> str:
    """Describe a range; a bound that only prevents overflow is mentioned only if it is exceeded."""
    least = f"{'more than' if known.open_below else 'at least'} {known.least:g}"
    if known.least == SMALLEST and not 0 < number < SMALLEST:
        least = "more than 0"
    if known.most in (GREATEST, GREATEST_WHOLE, GREATEST_SEED):
        if number > known.most and isfinite(number):
            return f"at most {int(known.most)}"
        if not isfinite(number):
            return "a finite number" + ("" if known.least == -GREATEST else f", {least}")
        return least
    return f"{least} and {'less than' if known.open_above else 'at most'} {known.most:g}"


def _within(number: int | float, known: Range) -> bool:
    if isinstance(number, float) and not isfinite(number):
        return False
    above = number > known.least if known.open_below else number >= known.least
    return above and (number < known.most if known.open_above else number <= known.most)
