"""Write the metrics that take regions away a second time, slowly: one image, NumPy and loops."""

import math
from itertools import pairwise

import numpy as np
from scipy.spatial.distance import pdist, squareform
from skimage.segmentation import slic

from atlas.study.seeds import uniform
from tests.support.reference.metrics import deletion, order


def correlation(one, other):
    one, other = [float(value) for value in one], [float(value) for value in other]
    if len(set(one)) == 1 or len(set(other)) == 1:
        return math.nan
    one, other = np.array(one) - np.mean(one), np.array(other) - np.mean(other)
    return (one * other).sum() / math.sqrt((one**2).sum() * (other**2).sum())


def color(witness, name, image):
    return np.zeros_like(image) + (witness.mean[:, None, None] if name == "mean" else 0)


def pixel_flipping(one, image, seed, witness, pixels, baseline):
    points = deletion(one, image, seed, witness, pixels, baseline, relative=False)[1:]
    return sum((left + right) / 2 for left, right in pairwise(points))


def faithfulness_estimate(one, image, seed, witness, pixels, baseline, output):
    if not np.isfinite(one).all():
        return math.nan
    look = getattr(witness, output)
    positions, absent = order(one, seed), color(witness, baseline, image)
    sums, losses = [], []
    for start in range(0, len(positions), pixels):
        block = positions[start : start + pixels]
        without = image.copy()
        for position in block:
            y, x = divmod(position, one.shape[1])
            without[:, y, x] = absent[:, y, x]
        sums.append(sum(float(one.flat[position]) for position in block))
        losses.append(look(image) - look(without))
    return correlation(sums, losses)


def irof(one, image, seed, witness, superpixels, compactness, sigma, form):
    if not np.isfinite(one).all():
        return math.nan
    pixels = image.transpose(1, 2, 0)
    cut = slic(pixels, n_segments=superpixels, compactness=compactness, sigma=sigma, start_label=0, channel_axis=-1)
    segments = [cut == label for label in sorted(set(cut.flat))]
    means = [math.fsum(map(float, one[segment])) / segment.sum() for segment in segments]
    keys = uniform([seed], "segments", 0, (len(segments),))[0].tolist()
    left = image.copy()
    ratios = [1.0]
    for index in sorted(range(len(segments)), key=lambda index: (-means[index], keys[index])):
        left[:, segments[index]] = witness.mean[:, None]
        ratios.append(witness.probability(left) / witness.probability(image))
    points = ratios if form == "share" else ratios[1:]
    area = sum((left + right) / 2 for left, right in pairwise(points))
    return 1 - area / len(segments) if form == "share" else len(segments) - area


def infidelity(one, image, seed, witness, patch, samples, baseline, output, scaled):
    if not np.isfinite(one).all():
        return math.nan
    look = getattr(witness, output)
    pairs = []
    for draw in range(samples):
        noise = uniform([seed], "infidelity", draw, image.shape)[0].numpy()
        other = noise if baseline == "uniform" else color(witness, baseline, image)
        for y in range(0, one.shape[0], patch):
            for x in range(0, one.shape[1], patch):
                here = (slice(None), slice(y, y + patch), slice(x, x + patch))
                replaced = image.copy()
                replaced[here] = other[here]
                said = (one * (image.astype(float) - replaced).sum(axis=0)).sum()
                pairs.append((look(image) - look(replaced), said))
    squares = sum(said**2 for _, said in pairs)
    factor = (sum(lost * said for lost, said in pairs) / squares if squares else 0) if scaled else 1
    return sum((lost - factor * said) ** 2 for lost, said in pairs) / len(pairs)


def infidelity_quantus(one, image, seed, witness, patch, samples, baseline):
    """Padding is put on and patches are placed as if it were not; np.dot of three axes by three."""
    mean, std = witness.mean[:, None, None], witness.std[:, None, None]
    clean = (image - mean) / std
    channels, height, width = image.shape
    wide, squares = np.repeat(one[None], channels, axis=0), []
    for draw in range(samples):
        noise = uniform([seed], "infidelity", draw, image.shape)[0].numpy()
        current = clean.copy()
        for y in range(0, height, patch):
            for x in range(0, width, patch):
                padded = np.pad(current, ((0, 0), (patch - 1, patch - 1), (patch - 1, patch - 1)), mode="edge")
                beside = np.pad(noise, ((0, 0), (patch - 1, patch - 1), (patch - 1, patch - 1)), mode="edge")
                here = (slice(None), slice(y, y + patch), slice(x, x + patch))
                padded[here] = beside[here] if baseline == "uniform" else padded.min()
                current = padded[:, patch - 1 : patch - 1 + height, patch - 1 : patch - 1 + width]
                lost = witness.logit(image) - witness.logit((current * std + mean).astype(np.float32))
                squares.append((lost - np.dot(wide, clean - current).sum()) ** 2)
    return np.mean(squares)


def sufficiency(maps, classes, threshold):
    flat = np.array([abs(one.astype(float)).flatten() / abs(one).max() for one in maps])
    flat = flat[:, flat.std(axis=0) > 0]
    distances = squareform(pdist(flat, "seuclidean"))
    distances /= distances.max()
    scores = []
    for row in range(len(maps)):
        near = [other for other in range(len(maps)) if other != row and distances[row, other] <= threshold]
        scores.append(np.mean([classes[other] == classes[row] for other in near]) if near else math.nan)
    return scores
