"""Write the metrics that make maps anew a second time, slowly: one image, NumPy and loops, as their formulas read.

The witness is the bare network, and the method under test is written out on it: `maps(image, seed)`.
"""

import math

import numpy as np

from atlas.study.seeds import normal, uniform


def noisy_samples(image, seed, std, samples, noise, low, high):
    """Noisy samples of an image; of Gaussian noise, `high` is the standard deviation."""
    for draw in range(samples):
        if noise == "uniform":
            drawn = low + (high - low) * uniform([seed], "stability", draw, image.shape)[0].numpy()
        else:
            drawn = high * normal([seed], "stability", draw, image.shape)[0].numpy()
        yield image + std[:, None, None] * drawn


def norm(values):
    return math.sqrt(sum(float(value) ** 2 for value in np.ravel(values)))


def sensitivities(one, image, seed, witness, samples, noise, scale):
    made = noisy_samples(image, seed, witness.std, samples, noise, -scale, scale)
    return [norm(one - witness.map(noisy, seed)) / norm(one) if one.any() else math.nan for noisy in made]


def max_sensitivity(*given, **settings):
    return max(sensitivities(*given, **settings))


def avg_sensitivity(*given, **settings):
    return sum(sensitivities(*given, **settings)) / settings["samples"]


def local_lipschitz(one, image, seed, witness, samples, noise, scale):
    if not one.any():
        return math.nan
    found = []
    for noisy in noisy_samples(image, seed, witness.std, samples, noise, -scale, scale):
        new = witness.map(noisy, seed)
        moved = norm((noisy - image) / witness.std[:, None, None])
        found.append(norm(one / abs(one).max() - new / abs(new).max()) / moved)
    return max(found)


def change(one, other, floor):
    """Root mean square of the relative change, pixel by pixel."""
    least = floor * max(abs(float(value)) for value in one.flat)
    total = 0.0
    for a, b in zip(one.flat, other.flat, strict=True):
        divisor = math.copysign(max(abs(float(a)), least), float(a))
        total += ((float(a) - float(b)) / divisor) ** 2
    return math.sqrt(total / one.size)


def worst(one, image, seed, witness, samples, noise, scale, floor, moved):
    found = []
    for noisy in noisy_samples(image, seed, witness.std, samples, noise, -scale, scale):
        if one.any() and witness.logits(noisy).argmax() == witness.logits(image).argmax():
            found.append(change(one, witness.map(noisy, seed), floor) / moved(noisy))
    return max(found, default=math.nan)


def relative_input_stability(one, image, seed, witness, floor, **noise):
    return worst(one, image, seed, witness, **noise, floor=floor, moved=lambda noisy: change(image, noisy, floor))


def relative_output_stability(one, image, seed, witness, floor, **noise):
    clean = witness.logits(image)
    return worst(one, image, seed, witness, **noise, floor=floor, moved=lambda x: norm(clean - witness.logits(x)))


def relative_representation_stability(one, image, seed, witness, floor, layer, **noise):
    assert layer == "final"
    clean = witness.features(image)
    moved = lambda noisy: change(clean, witness.features(noisy), floor)  # noqa: E731
    return worst(one, image, seed, witness, **noise, floor=floor, moved=moved)


def relative_input_stability_quantus(one, image, seed, witness, samples, low, high):
    def without_zeros(values):
        return np.where(values == 0, 1e-6, values)

    def normalized(values):
        return (values - witness.mean[:, None, None]) / witness.std[:, None, None]

    found, before = [], normalized(image)
    for noisy in noisy_samples(image, seed, witness.std, samples, "uniform", low, high):
        moved = norm((before - normalized(noisy)) / without_zeros(before)) or 1e-6
        found.append(norm((one - witness.map(noisy, seed)) / without_zeros(one)) / moved)
        if witness.logits(noisy).argmax() != witness.logits(image).argmax():
            return math.nan
    return max(found)


def local_lipschitz_quantus(ones, images, seeds, witnesses, samples, noise, scale):
    """Of all images at once."""
    made = [
        list(noisy_samples(image, seed, witness.std, samples, noise, -scale, scale))
        for image, seed, witness in zip(images, seeds, witnesses, strict=True)
    ]
    found = np.full(len(ones), -math.inf)
    for draw in range(samples):
        new = [witness.map(of[draw], seed) for of, seed, witness in zip(made, seeds, witnesses, strict=True)]
        largest = max(abs(one).max() for one in new)
        for row, one in enumerate(ones):
            moved = norm((made[row][draw] - images[row]) / witnesses[row].std[:, None, None])
            if not one.any():
                found[row] = math.nan
                continue
            apart = norm(one / abs(one).max() - new[row] / largest)
            found[row] = max(found[row], apart / (moved + 1e-10))
    return found


def ranks(one):
    """Ranks from 1, equal values having the mean of theirs."""
    values = [float(value) for value in one.flat]
    return [sum(b < a for b in values) + (sum(b == a for b in values) + 1) / 2 for a in values]


def spearman(one, other):
    a, b = (np.array(ranks(values)) for values in (one, other))
    a, b = a - a.mean(), b - b.mean()
    return float((a * b).sum() / (norm(a) * norm(b))) if a.any() and b.any() else math.nan


def absolute_spearman(one, other):
    return spearman(abs(one), abs(other))


def ssim(one, other):
    """Structural similarity, window by window, where the window lies inside."""
    if one.max() == one.min() or other.max() == other.min():
        return math.nan
    x, y = ((part - part.min()) / (part.max() - part.min()) for part in (np.float64(one), np.float64(other)))
    line = np.exp(-(np.arange(-5, 6) ** 2) / (2 * 1.5**2))
    window = np.outer(line, line) / line.sum() ** 2
    found = []
    for top, left in np.ndindex(one.shape[0] - 10, one.shape[1] - 10):
        a, b = (part[top : top + 11, left : left + 11] for part in (x, y))
        mean_a, mean_b = (window * a).sum(), (window * b).sum()
        var_a, var_b = (window * (a - mean_a) ** 2).sum(), (window * (b - mean_b) ** 2).sum()
        both = (window * (a - mean_a) * (b - mean_b)).sum()
        likeness = (2 * mean_a * mean_b + 0.01**2) * (2 * both + 0.03**2)
        found.append(likeness / ((mean_a**2 + mean_b**2 + 0.01**2) * (var_a + var_b + 0.03**2)))
    return float(np.mean(found))
