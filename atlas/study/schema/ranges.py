"""The values between which the numbers of params.yaml lie.

One table for all of them: a number is looked up as `function.setting`, then as `setting`, then by its type. What
depends on more than the number itself (other settings, the images) is checked where that is known.
"""

from math import isfinite
from typing import NamedTuple

GREATEST_WHOLE = 2**31 - 1
GREATEST_SEED = 2**63 - 1  # what torch's generators take
GREATEST = 1e9  # single precision holds its square, and its inverse's
SMALLEST = 1e-12  # above 0, and so is its square in single precision


class Range(NamedTuple):
    """From least to most; each is in the range unless it is open there."""

    least: int | float
    most: int | float
    open_below: bool = False
    open_above: bool = False


WHOLE = Range(0, GREATEST_WHOLE)
COUNT = Range(1, GREATEST_WHOLE)
NUMBER = Range(-GREATEST, GREATEST)
NOT_NEGATIVE = Range(0, GREATEST)
POSITIVE = Range(SMALLEST, GREATEST)
SHARE = Range(0, 1)
SOME_SHARE = Range(0, 1, open_below=True)
PART = Range(0, 1, open_below=True, open_above=True)

RANGES = {
    "accuracy": SHARE,
    "adversarial_start": SHARE,
    "alpha": PART,
    "area_weight": NOT_NEGATIVE,
    "areas": PART,
    "background": WHOLE,
    "baselines": COUNT,
    "batch": COUNT,
    "blocks": COUNT,
    "box_area_at_most": SHARE,
    "cells": COUNT,
    "chroma": Range(0, 0.8),
    "compactness": POSITIVE,
    "confidence_at_least": SHARE,
    "count": COUNT,
    "weight_decay": NOT_NEGATIVE,
    "deviation": NOT_NEGATIVE,
    "epochs": COUNT,
    "epsilon": POSITIVE,
    "effective_complexity.epsilon": Range(0, 1, open_above=True),
    "perturbation.epsilon": Range(1, 255),
    "floor": POSITIVE,
    "fraction": SHARE,
    "grain": SHARE,
    "interval": Range(0.01, 1),
    "iou": SHARE,
    "iterations": COUNT,
    "k": COUNT,
    "large": SHARE,
    "large_side": SOME_SHARE,
    "aggregate.level": PART,
    "levels": COUNT,
    "dauc.levels": Range(2, GREATEST_WHOLE),
    "iauc.levels": Range(2, GREATEST_WHOLE),
    "votes.levels": Range(1, 99),
    "lower": PART,
    "masks": COUNT,
    "max_distance": SHARE,
    "max_sigma": POSITIVE,
    "meaningful_perturbation.cells": Range(2, GREATEST_WHOLE),
    "min_pixels": COUNT,
    "noise": NOT_NEGATIVE,
    "pair": SHARE,
    "pair_side": Range(0, 0.45, open_below=True),
    "parts": COUNT,
    "patch": COUNT,
    "percentile": Range(0, 100),
    "pixels": COUNT,
    "power": Range(1, GREATEST),
    "probability": SOME_SHARE,
    "rate": POSITIVE,
    "learning_rate": POSITIVE,
    "remain": SHARE,
    "resamples": COUNT,
    "resize": COUNT,
    "samples": COUNT,
    "scale": POSITIVE,
    "expected_gradcam.scale": NOT_NEGATIVE,
    "seed": Range(0, GREATEST_SEED),
    "shapes.side": SOME_SHARE,
    "shard_rows": COUNT,
    "shares": PART,
    "sigma": POSITIVE,
    "canny.sigma": NOT_NEGATIVE,
    "irof.sigma": NOT_NEGATIVE,
    "lime.sigma": NOT_NEGATIVE,
    "shapes.size": Range(16, 4096),
    "size": COUNT,
    "smoothing": NOT_NEGATIVE,
    "spread": NOT_NEGATIVE,
    "std": POSITIVE,
    "step": COUNT,
    "step_size": POSITIVE,
    "steps": COUNT,
    "stride": COUNT,
    "superpixels": COUNT,
    "swap": SHARE,
    "tau": Range(0.5, 1, open_above=True),
    "texture": SHARE,
    "threads": Range(1, 1024),
    "threshold": SHARE,
    "thresholds": COUNT,
    "tiles_per_side": COUNT,
    "turn": Range(0, 180),
    "sanity_threshold": Range(-1, 1),
    "vargrad.samples": Range(2, GREATEST_WHOLE),
    "variation_weight": NOT_NEGATIVE,
    "width": POSITIVE,
    "widths": COUNT,
    "window": COUNT,
}
# How many numbers a list holds, at least and at most; others may be empty.
LENGTHS = {
    "areas": COUNT,
    "fitted.size": Range(2, 2),
    "large_side": Range(2, 2),
    "pair_side": Range(2, 2),
    "shapes.side": Range(2, 2),
    "shares": COUNT,
    "tau": COUNT,
    "votes.levels": COUNT,
    "widths": COUNT,
}
RISING = ("large_side", "pair_side", "side")


def fault(function: str, setting: str, value: object) -> str | None:
    """Return what is wrong with the numbers of a setting of the right type, None where nothing is.

    Args:
        function: That takes it, or the section's name.
        setting: Its name.
        value: A number, a list of such, or what holds none.
    """
    numbers = value if isinstance(value, list) else [value]
    for number in numbers:
        if isinstance(number, int | float) and not isinstance(number, bool):
            known = _found(RANGES, function, setting) or (WHOLE if isinstance(number, int) else NUMBER)
            if not _within(number, known):
                each = "each " if isinstance(value, list) else ""
                return f"'{setting}' = {value!r:.100}: expected {each}{_spelled(known, number)}"
    length = _found(LENGTHS, function, setting)
    if isinstance(value, list) and length and not length.least <= len(value) <= length.most:
        due = f"{length.least:g} numbers" if length.least == length.most else f"at least {length.least:g}"
        return f"'{setting}' = {value!r}: expected a list of {due}"
    if setting in RISING and isinstance(value, list) and value != sorted(value):
        return f"'{setting}' = {value!r}: expected the least, then the greatest"
    return None


def _spelled(known: Range, number: int | float) -> str:
    """Spell a range; a bound that only keeps computers from overflowing is named where it is passed."""
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


def _found(table: dict[str, Range], function: str, setting: str) -> Range | None:
    return table.get(f"{function}.{setting}", table.get(setting))


def _within(number: int | float, known: Range) -> bool:
    if isinstance(number, float) and not isfinite(number):
        return False
    above = number > known.least if known.open_below else number >= known.least
    return above and (number < known.most if known.open_above else number <= known.most)
