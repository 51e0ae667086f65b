"""Write relevance mass, the losses against masks and effective complexity a second time, slowly."""

import math

import numpy as np


def relevance_mass(one, mask, sign):
    inside = total = 0.0
    for place in np.ndindex(*one.shape):
        value = float(one[place])
        if value < 0 and sign == "positive":
            continue
        total += value
        inside += value if mask[place] else 0
    return inside / total if mask.any() and total > 0 else math.nan


def scaled(one):
    """The values between 0 and 1, or none for a constant map."""
    low, high = float(one.min()), float(one.max())
    return {place: (float(one[place]) - low) / (high - low) for place in np.ndindex(*one.shape)} if high > low else {}


def log_cosh_dice(one, mask):
    found = scaled(one)
    if not found or not mask.any():
        return math.nan
    both = sum(value for place, value in found.items() if mask[place])
    dice = (2 * both + 1) / (sum(found.values()) + int(mask.sum()) + 1)
    return math.log(math.cosh(1 - dice))


def mae(one, mask):
    found = scaled(one)
    if not found or not mask.any():
        return math.nan
    return sum(1 - value if mask[place] else value for place, value in found.items()) / one.size


def sqrt_mae(one, mask):
    return mae(one, mask) ** 0.5


def effective_complexity(one, epsilon):
    highest = max(abs(float(value)) for value in one.flat)
    return float(sum(abs(float(value)) > epsilon * highest for value in one.flat)) if highest else math.nan
