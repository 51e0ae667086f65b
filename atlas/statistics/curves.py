"""Summaries of a curve: its area, its monotonicity, its smoothness, the best of its thresholds."""

from typing import Literal

import numpy as np
from jaxtyping import Float


def area(
    curves: Float[np.ndarray, "*cell fraction"], fraction: Float[np.ndarray, " fraction"]
) -> Float[np.ndarray, "*cell"]:
    """Integrate over the fraction by the trapezoid rule.

        Σₖ (xₖ₊₁ − xₖ) · (sₖ + sₖ₊₁) / 2

    Args:
        curves: Scores along the fraction.
        fraction: Share of the changed pixels, increasing.

    Returns:
        In the units of the scores; the area of a curve that is 1 throughout is 1. NaN where any point is NaN.

    Reference: petsiuk2018rise.
    """
    return np.trapezoid(curves.astype(np.float64), fraction, axis=-1)


def monotonicity(
    curves: Float[np.ndarray, "*cell fraction"], *, better: Literal["higher", "lower"]
) -> Float[np.ndarray, "*cell"]:
    """Return the share of steps that do not go the wrong way.

        #{k : sₖ₊₁ ≥ sₖ} / (n − 1), with ≤ if lower areas are better

    Args:
        curves: Scores along the fraction.
        better: Which areas are better, and so the direction in which the curve should go.

    Returns:
        0 to 1, higher is better; a flat curve has 1. NaN where any point is NaN.

    Reference: nieradzik2024reliable.
    """
    # In float64 the difference of two float32 numbers always has the right sign, however small it is.
    steps = np.diff(curves.astype(np.float64), axis=-1)
    right = steps >= 0 if better == "higher" else steps <= 0
    return np.where(np.isnan(curves).any(axis=-1), np.nan, right.mean(axis=-1))


def smoothness(curves: Float[np.ndarray, "*cell fraction"]) -> Float[np.ndarray, "*cell"]:
    """Measure how uneven the steps of a curve are.

        √(Σₖ (dₖ − d̄)²) / (n − 1), where dₖ = sₖ₊₁ − sₖ

    Returns:
        At least 0, lower is better; 0 for a straight line. NaN where any point is NaN.

    Reference: nieradzik2024reliable. As there, n − 1 divides outside the root, so this is not a standard deviation. The
    paper sums to n, though there are n − 1 differences, and prints numbers about a thousand times larger without
    stating the factor; compare ratios.
    """
    steps = np.diff(curves.astype(np.float64), axis=-1)
    uneven = steps - steps.mean(axis=-1, keepdims=True)
    return np.sqrt((uneven**2).sum(axis=-1)) / steps.shape[-1]


def best_threshold(
    hits: Float[np.ndarray, "image threshold"],
) -> tuple[Float[np.ndarray, " image"], int]:
    """Return the hits at the threshold with the highest share of hits.

    Args:
        hits: 1 for a hit, 0 for a miss, NaN where undefined.

    Returns:
        The hits at the threshold with the highest mean over the images where it is defined (the lowest such
        threshold if several are equal), and the threshold's index. If nothing is defined: index 0 and its NaN.

    The threshold is chosen on the same images, so the mean is optimistic; intervals computed from these hits do not
    account for the choice.

    Reference: choe2020evaluating (maximal box accuracy).
    """
    defined = ~np.isnan(hits)
    number = defined.sum(axis=0)
    mean = np.where(number > 0, np.where(defined, hits, 0).sum(axis=0) / np.maximum(number, 1), -np.inf)
    best = int(np.argmax(mean))
    return hits[:, best], best
