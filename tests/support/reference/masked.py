"""Write the metrics that look through the map a second time, slowly: one image, NumPy and loops."""

import math

import numpy as np

from tests.support.reference.recovery import unit
from tests.support.reference.regions import color, correlation


def through(one, image, witness, fill):
    """Mix each pixel with what lies behind it."""
    mixed, behind, share = np.empty_like(image), color(witness, fill, image), unit(one)
    for channel, y, x in np.ndindex(*image.shape):
        mixed[channel, y, x] = share[y, x] * image[channel, y, x] + (1 - share[y, x]) * behind[channel, y, x]
    return mixed


def average_drop(one, image, witness, fill):
    if unit(one) is None:
        return math.nan
    before, after = witness.probability(image), witness.probability(through(one, image, witness, fill))
    return max(0, before - after) / before


def increase_in_confidence(one, image, witness, fill):
    if unit(one) is None:
        return math.nan
    return float(witness.probability(through(one, image, witness, fill)) > witness.probability(image))


def coherency(one, again):
    return (1 + correlation(one.flat, again.flat)) / 2


def adcc(one, again, image, witness, fill):
    parts = [coherency(one, again), 1 - unit(one).mean(), 1 - average_drop(one, image, witness, fill)]
    return len(parts) / sum(1 / part for part in parts) if min(parts) > 0 else 0.0
