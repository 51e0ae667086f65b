"""Write every metric a second time, slowly: one image, NumPy and loops, as its formula reads."""

import math

import cv2
import numpy as np
from scipy.ndimage import gaussian_filter

from atlas.study.seeds import uniform


def order(one, seed):
    """Positions by (-h, random key)."""
    keys = uniform([seed], "ties", 0, (one.size,))[0].tolist()
    return sorted(range(one.size), key=lambda position: (-one.flat[position], keys[position]))


def curve(probability, one, before, after, seed, pixels):
    """Probability of the target while pixels of `before` become those of `after`."""
    positions = order(one, seed)
    points = [probability(before)]
    image = before.copy()
    while positions:
        for position in positions[:pixels]:
            y, x = divmod(position, one.shape[1])
            image[:, y, x] = after[:, y, x]
        positions = positions[pixels:]
        points.append(probability(image))
    return points


def baseline_of(image, baseline, witness):
    if baseline == "blur":
        return blurred(image, witness.mean, witness.std)
    return np.zeros_like(image) + (witness.mean[:, None, None] if baseline == "mean" else 0)


def deletion(one, image, seed, witness, pixels, baseline, relative):
    points = curve(witness.probability, one, image, baseline_of(image, baseline, witness), seed, pixels)
    return [point / (points[0] if relative else 1) for point in points]


def insertion(one, image, seed, witness, pixels, baseline, relative):
    points = curve(witness.probability, one, baseline_of(image, baseline, witness), image, seed, pixels)
    return [point / (points[-1] if relative else 1) for point in points]


def ins_minus_del(one, image, seed, witness, pixels, inserted_into, deleted_to, relative):
    def area(points):
        shares = [min(step * pixels, one.size) / one.size for step in range(len(points))]
        pairs = zip(points, points[1:], shares, shares[1:], strict=False)
        return sum((left + right) / 2 * (end - start) for left, right, start, end in pairs)

    up = insertion(one, image, seed, witness, pixels, inserted_into, relative)
    return area(up) - area(deletion(one, image, seed, witness, pixels, deleted_to, relative))


def blurred(image, mean, std):
    """RISE: normalize, convolve with the filtered delta, zeros beyond the edge, and back."""
    delta = np.zeros((11, 11))
    delta[5, 5] = 1
    kernel = gaussian_filter(delta, 5, mode="reflect")
    normalized = (image - mean[:, None, None]) / std[:, None, None]
    channels, height, width = image.shape
    result = np.zeros_like(image)
    for channel, y, x in np.ndindex(channels, height, width):
        for down, across in np.ndindex(11, 11):
            row, column = y + down - 5, x + across - 5
            if 0 <= row < height and 0 <= column < width:
                result[channel, y, x] += kernel[down, across] * normalized[channel, row, column]
    return (result * std[:, None, None] + mean[:, None, None]).astype(np.float32)


def perturbation(one, image, seed, witness, pixels, epsilon, iterations, step):
    clean = np.rint(image * 255).astype(int)
    attacked = clean.copy()

    def grey(levels):
        return np.float32(levels) / np.float32(255)

    for _ in range(iterations):
        if witness.predicted(grey(attacked)) != witness.predicted(grey(clean)):
            break
        gradient = witness.loss_gradient(grey(attacked))
        for place in np.ndindex(*image.shape):
            moved = attacked[place] + step * int(np.sign(gradient[place]))
            moved = min(max(moved, clean[place] - epsilon), clean[place] + epsilon)
            attacked[place] = min(max(moved, 0), 255)
    if witness.predicted(grey(attacked)) == witness.predicted(grey(clean)):
        return [math.nan] * (math.ceil(one.size / pixels) + 1)
    return curve(witness.probability, one, grey(attacked), grey(clean), seed, pixels)


def pixels(box):
    return {(y, x) for y in range(box[1], box[3]) for x in range(box[0], box[2])}


def pointing_game(one, boxes, tolerance):
    objects = set().union(*(pixels(box) for box in boxes))
    if not objects:
        return math.nan
    best, point = -math.inf, None
    for place in np.ndindex(*one.shape):
        if one[place] > best:
            best, point = one[place], place
    squares = [(y - point[0]) ** 2 + (x - point[1]) ** 2 for y, x in objects]
    return float(point in objects or any(square < tolerance**2 for square in squares))


def wsl(one, boxes, thresholds, iou):
    objects = [pixels(box) for box in boxes if pixels(box)]
    if not objects:
        return [math.nan] * thresholds
    scaled = one - one.min()
    scaled = scaled / scaled.max() if scaled.max() else scaled
    grey = np.floor(scaled * 255).astype(np.uint8)
    hits = []
    for threshold in (index / thresholds for index in range(thresholds)):
        _, binary = cv2.threshold(grey, int(threshold * grey.max()), 255, cv2.THRESH_BINARY)
        contours, _ = cv2.findContours(binary, cv2.RETR_TREE, cv2.CHAIN_APPROX_SIMPLE)
        box = (0, 0, 1, 1)
        if contours:
            x, y, width, height = cv2.boundingRect(max(contours, key=cv2.contourArea))
            box = (x, y, min(x + width, one.shape[1] - 1) + 1, min(y + height, one.shape[0] - 1) + 1)
        estimated = pixels(box)
        overlaps = [len(estimated & object) / len(estimated | object) for object in objects]
        hits.append(float(max(overlaps) >= iou))
    return hits


def attribution_localization(one, mask):
    inside = sum(abs(float(one[place])) for place in np.ndindex(*one.shape) if mask[place])
    total = sum(abs(float(one[place])) for place in np.ndindex(*one.shape))
    return inside / total if mask.any() and total else math.nan


def relevance_rank(one, mask, seed):
    return top_k_intersection(one, mask, seed, int(mask.sum())) if mask.any() else math.nan


def top_k_intersection(one, mask, seed, k):
    inside = sum(bool(mask.flat[position]) for position in order(one, seed)[:k])
    return inside / k if mask.any() else math.nan


def grid_pointing_game(one, tile):
    inside = sum(max(float(one[place]), 0) for place in np.ndindex(*one.shape) if tile[place])
    total = sum(max(float(one[place]), 0) for place in np.ndindex(*one.shape))
    return inside / total if total > 1e-7 else 0.0


def kept_share(one, image, witness):
    logit = witness.logit(image)
    return sum(map(float, one.flat)) / logit if logit and np.isfinite(one).all() else math.nan


def complexity(one):
    total = sum(abs(float(value)) for value in one.flat)
    if not total:
        return math.nan
    return -sum(abs(value) / total * math.log(abs(value) / total) for value in map(float, one.flat) if value)


def sparseness(one):
    """The Gini index as the mean difference between all pairs."""
    highest = max(abs(float(value)) for value in one.flat)
    if not highest:
        return math.nan
    sizes = [abs(float(value)) / highest + 1e-7 for value in one.flat]
    differences = sum(abs(a - b) for a in sizes for b in sizes)
    return differences / (2 * len(sizes) * sum(sizes))
