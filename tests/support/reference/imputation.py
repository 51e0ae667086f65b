"""Write noisy linear imputation a second time, slowly: the system assembled in loops and solved by SciPy."""

import numpy as np
from scipy.sparse import lil_matrix
from scipy.sparse.linalg import spsolve

from atlas.study.seeds import normal
from tests.support.reference.metrics import order

WEIGHTS = {(y, x): 1 / 6 if y * x == 0 else 1 / 12 for y in (-1, 0, 1) for x in (-1, 0, 1) if (y, x) != (0, 0)}


def imputed(image, removed):
    channels, height, width = image.shape
    unknown = {(y, x): index for index, (y, x) in enumerate(zip(*np.nonzero(removed), strict=True))}
    matrix, right = lil_matrix((len(unknown), len(unknown))), np.zeros((len(unknown), channels))
    for (y, x), index in unknown.items():
        for (down, across), weight in WEIGHTS.items():
            place = (y + down, x + across)
            if not (0 <= place[0] < height and 0 <= place[1] < width):
                continue
            matrix[index, index] += weight
            if place in unknown:
                matrix[index, unknown[place]] -= weight
            else:
                right[index] += weight * image[:, *place]
    solution = spsolve(matrix.tocsc(), right).reshape(len(unknown), channels)
    filled = image.astype(float)
    for place, index in unknown.items():
        filled[:, *place] = solution[index]
    return filled


def without(positions, count, one, image, seed, witness, noise):
    removed = np.zeros(one.shape, bool)
    for position in positions[:count]:
        removed[divmod(position, one.shape[1])] = True
    filled = imputed(image, removed)
    drawn = normal([seed], "road", count, image.shape)[0].numpy()
    filled[:, removed] += (noise * witness.std[:, None, None] * drawn)[:, removed]
    return witness.probability(filled.astype(np.float32))


def road_morf(one, image, seed, witness, shares, noise):
    counts = [round(share * one.size) for share in shares]
    return np.mean([without(order(one, seed), count, one, image, seed, witness, noise) for count in counts])


def road_lerf(one, image, seed, witness, shares, noise):
    counts = [round(share * one.size) for share in shares]
    return np.mean([without(order(one, seed)[::-1], count, one, image, seed, witness, noise) for count in counts])


def road(one, image, seed, witness, shares, noise):
    return (
        road_lerf(one, image, seed, witness, shares, noise) - road_morf(one, image, seed, witness, shares, noise)
    ) / 2
