"""Write the metrics of Guided AbsoluteGrad a second time, slowly: one image, NumPy and loops."""

import math

import numpy as np


def unit(one):
    """Scale a map to [0, 1]; nothing where it is constant or broken."""
    if not np.isfinite(one).all() or one.min() == one.max():
        return None
    return (one - one.min()) / (one.max() - one.min())


def rcap(one, image, witness, lower, interval):
    """Band after band is pasted onto black, as the authors' code does it."""
    share = unit(one)
    if share is None:
        return math.nan
    values, rates = sorted(share.flat), []
    while round(lower + len(rates) * interval, 2) < 1:
        rates.append(round(lower + len(rates) * interval, 2))
    thresholds = [float(values[max(int(len(values) * rate) - 1, 0)]) for rate in reversed(rates)]
    if len(thresholds) > 1 and len(set(thresholds)) == len(thresholds) and thresholds[0] == 1:
        thresholds = thresholds[1:]
    canvas, upper, terms = np.zeros_like(image), 1, []
    for threshold in thresholds:
        threshold = threshold if threshold < 1 else 0
        for y, x in np.ndindex(*share.shape):
            if threshold < share[y, x] <= upper:
                canvas[:, y, x] = image[:, y, x]
        upper = threshold
        mass = sum(float(value) for value in share.flat if value > threshold)
        terms.append(mass / sum(map(float, share.flat)) * witness.probability(canvas))
    return sum(terms) / len(terms)


def exchanged(one, before, after, witness, levels):
    share = unit(one)
    if share is None:
        return [math.nan] * levels
    values, points = sorted(share.flat), []
    for level in range(levels):
        threshold = values[int(len(values) * ((levels - level) / levels)) - 1]
        points.append(witness.probability(np.where(share > threshold, after, before)))
    return points


def dauc(one, image, witness, levels):
    return exchanged(one, image, np.zeros_like(image) + witness.mean[:, None, None], witness, levels)


def iauc(one, image, witness, levels):
    return exchanged(one, blurred(image, witness.mean, witness.std), image, witness, levels)


def blurred(image, mean, std):
    """The normalized image in a window of 33 of a Gaussian of 16, mirrored at its edges, and back."""
    weights = np.array([[math.exp(-(y * y + x * x) / 512) for x in range(-16, 17)] for y in range(-16, 17)])
    weights /= weights.sum()
    normalized = (image - mean[:, None, None]) / std[:, None, None]
    wide = np.pad(normalized, ((0, 0), (16, 16), (16, 16)), mode="reflect")
    result = np.zeros_like(image)
    for channel, y, x in np.ndindex(*image.shape):
        result[channel, y, x] = (weights * wide[channel, y : y + 33, x : x + 33]).sum()
    return (result * std[:, None, None] + mean[:, None, None]).astype(np.float32)
