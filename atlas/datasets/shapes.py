"""Colorful shapes on gray mosaics: classes that differ only in form, with exact masks and boxes."""

from collections.abc import Iterator
from functools import lru_cache
from itertools import chain
from typing import Annotated

import numpy as np

from atlas.datasets.shared.source import Picture, Source
from atlas.study.errors import UserError
from atlas.study.schema.types import Items, Range, Seed, Share, Sizes
from atlas.study.seeds import image_seed, rng

# Bounds of mean red, green and blue: texture and grain then stay within a byte for almost all pixels.
DARKEST, LIGHTEST = 0.1, 0.9

CLASSES = ["disk", "square", "triangle", "star", "cross", "ring", "crescent", "heart", "arrow", "hourglass"]


def shapes(
    *,
    train: int,
    test: int,
    size: Annotated[int, Range(16, 4096)],
    seed: Seed,
    turn: Annotated[int, Range(0, 180)],
    side: Sizes,
    pair: Share,
    pair_side: Annotated[list[Annotated[float, Range(0, 0.45, open_below=True)]], Items(2, 2, rising=True)],
    large: Share,
    large_side: Sizes,
    cuts: int,
    chroma: Annotated[float, Range(0, 0.8)],
    texture: Share,
    grain: Share,
) -> Source:
    """Draw images of one object, or of two of the same class, in front of a mosaic.

    An object's colors, texture, size, rotation and position do not depend on its class, so only its form tells the
    class. Size is the geometric mean of the sides of the object's box. Labels cycle through the classes. An image
    depends only on the seed and its id: generating more images does not change the first ones.

    The design prevents maps that know nothing of the classifier from finding the object. An object is colorful and the
    mosaic gray, each of random brightness: an object is brighter than its surroundings as often as darker, in gray and
    in each color channel, and some piece of the mosaic is nearly always brighter still. The borders of the mosaic's
    pieces are edges like an object's, and longer. A single object of less than half of the image's side is mostly off
    center.

    Args:
        train: Images of the training split.
        test: Images of the held-out split.
        size: Side of an image in pixels.
        seed: Seed of the study.
        turn: Greatest rotation in either direction, in whole degrees.
        side: Least and greatest size of a single object, as a share of the image's side.
        pair: Share of the images with two objects.
        pair_side: Sizes of the objects of a pair; at most 0.45, as each has half of the image to itself.
        large: Share of the images with one large object.
        large_side: Sizes of a large object; from 0.75 on its box covers more than half of the image.
        cuts: Straight cuts through the background, from border to border; each piece gets its own gray.
        chroma: Least difference between the largest and the smallest of red, green and blue of an object's mean color,
            in intensity; at most 0.8.
        texture: Greatest distance between the two colors of a texture, in RGB in [0, 1].
        grain: Standard deviation of the noise on every pixel, in intensity in [0, 1].

    Returns:
        The training split, then the held-out one, drawn one image at a time. The mask is exactly what is painted; boxes
        are tight around it.
    """

    def drawn() -> Iterator[Picture]:
        counts = {"train": train, "test": test}
        for split, number in chain.from_iterable(((s, n) for n in range(count)) for s, count in counts.items()):
            image = f"{split}_{number:05d}"
            label = number % len(CLASSES)
            random = rng(image_seed(seed, image), "shapes")
            chance = random.random()
            if chance < pair:
                sides, regions = pair_side, _halves(random, size)
            elif chance < pair + large:
                sides, regions = large_side, [(0, 0, size, size)]
            else:
                sides, regions = side, [(0, 0, size, size)]
            objects = [_object(random, CLASSES[label], region, size, sides, turn) for region in regions]
            if not all(mask.any() for mask in objects):
                expected = "expected a larger size, or larger objects"
                raise UserError(f"an object of {image} covers no pixel of {size} a side; {expected}")
            pixels = _painted(random, objects, size, cuts, chroma, texture, grain)
            boxes = np.stack([_box(mask) for mask in objects])
            yield Picture(image, label, split, pixels, boxes, np.logical_or.reduce(objects))

    return Source(CLASSES, drawn())


def _halves(random: np.random.Generator, size: int) -> list[tuple[int, int, int, int]]:
    half = size // 2
    if random.random() < 0.5:
        return [(0, 0, half, size), (half, 0, size, size)]
    return [(0, 0, size, half), (0, half, size, size)]


def _object(
    random: np.random.Generator,
    form: str,
    region: tuple[int, int, int, int],
    size: int,
    sides: list[float],
    most: int,
) -> np.ndarray:
    """Draw the rotation, size and position of an object that stays inside a region; return the pixels it covers."""
    x0, y0, x1, y1 = region
    turn = int(random.integers(-most, most + 1))
    right, down, left, up = (_reach(form)[(direction - turn) % 360] for direction in (0, 90, 180, 270))
    width, height = right + left, down + up
    scale = random.uniform(sides[0], sides[1]) * size / np.sqrt(width * height)
    scale = min(scale, (x1 - x0) / width, (y1 - y0) / height)
    x = x0 + left * scale + random.random() * (x1 - x0 - width * scale)
    y = y0 + up * scale + random.random() * (y1 - y0 - height * scale)
    columns = (np.arange(size, dtype=np.float32) + np.float32(0.5 - x)) / np.float32(scale)
    rows = (np.arange(size, dtype=np.float32)[:, None] + np.float32(0.5 - y)) / np.float32(scale)
    cosine, sine = np.float32(np.cos(np.radians(turn))), np.float32(np.sin(np.radians(turn)))
    return FORMS[form](cosine * columns + sine * rows, cosine * rows - sine * columns)


def _box(mask: np.ndarray) -> np.ndarray:
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    return np.array([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1])


@lru_cache
def _reach(form: str) -> np.ndarray:
    """Return how far a form extends from its origin, in its own units, by direction in degrees."""
    line = np.linspace(-1.3, 1.3, 131)
    u, v = (axis.ravel() for axis in np.meshgrid(line, line))
    inside = FORMS[form](u, v)
    directions = np.radians(np.arange(360))[:, None]
    return (np.cos(directions) * u[inside] + np.sin(directions) * v[inside]).max(axis=1)


# Forms: which points (u, v) belong to them. The functions' names are the classes.


def _disk(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    return u * u + v * v <= 1


def _square(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    return np.maximum(abs(u), abs(v)) <= 1


def _triangle(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    return np.maximum(-v, np.sqrt(0.75) * abs(u) + 0.5 * v) <= 0.5


def _star(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    sector = np.pi / 5
    angle = abs((np.arctan2(v, u) + sector) % (2 * sector) - sector)
    radius = np.hypot(u, v)
    # The edge from the tip (1, 0) to the notch at radius 0.42, half a sector on.
    notch_u, notch_v = 0.42 * np.cos(sector), 0.42 * np.sin(sector)
    return notch_v * (radius * np.cos(angle) - 1) + (1 - notch_u) * radius * np.sin(angle) <= 0


def _cross(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    u, v = abs(u), abs(v)
    return (np.minimum(u, v) <= 0.3) & (np.maximum(u, v) <= 1)


def _ring(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    return abs(np.hypot(u, v) - 0.78) <= 0.22


def _crescent(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    return (u * u + v * v <= 1) & ((u - 0.55) ** 2 + v * v >= 0.64)


def _heart(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    round_part = u * u + v * v - 1
    return round_part * round_part * round_part <= u * u * v * v * v


def _arrow(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    head = (u >= 0) & (u + abs(v) <= 1)
    return head | ((u < 0) & (u >= -1) & (abs(v) <= 0.32))


def _hourglass(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    return (abs(u) <= 0.1 + 0.9 * abs(v)) & (abs(v) <= 1)


FORMS = {
    "disk": _disk,
    "square": _square,
    "triangle": _triangle,
    "star": _star,
    "cross": _cross,
    "ring": _ring,
    "crescent": _crescent,
    "heart": _heart,
    "arrow": _arrow,
    "hourglass": _hourglass,
}


def _painted(
    random: np.random.Generator,
    objects: list[np.ndarray],
    size: int,
    cuts: int,
    chroma: float,
    texture: float,
    grain: float,
) -> np.ndarray:
    """Paint the mosaic, then each object in its own colors; return bytes."""
    pieces = _pieces(random, size, cuts)
    grays = random.uniform(DARKEST, LIGHTEST, pieces.max() + 1).astype(np.float32)
    colors = grays[pieces] + _texture(random, size, texture)
    for mask in objects:
        surface = _color(random, chroma)[:, None, None] + _texture(random, size, texture)
        np.copyto(colors, surface, where=mask)
    colors += np.float32(grain) * random.standard_normal(colors.shape, dtype=np.float32)
    return (255 * colors.clip(0, 1) + np.float32(0.5)).astype(np.uint8)


def _pieces(random: np.random.Generator, size: int, cuts: int) -> np.ndarray:
    """Number the pieces of the image between straight cuts, each through a point drawn within the image."""
    sides = np.zeros((size, size))
    for _ in range(cuts):
        turn, place = random.random() * np.pi, random.uniform(-0.5, 0.5, 2) * size
        beyond = _waves(turn, size, 1.0) > place @ [np.cos(turn), np.sin(turn)]
        sides += random.random() * beyond  # equal sums mean that all sides are equal
    return np.unique(sides, return_inverse=True)[1].reshape(size, size)


def _color(random: np.random.Generator, chroma: float) -> np.ndarray:
    """Draw red, green and blue, in any order of size, with a minimum range between largest and smallest."""
    span = random.uniform(chroma, max(chroma, LIGHTEST - DARKEST))
    low = random.uniform(DARKEST, LIGHTEST - span)
    return random.permutation([low, random.uniform(low, low + span), low + span]).astype(np.float32)


def _texture(random: np.random.Generator, size: int, texture: float) -> np.ndarray:
    """Draw the deviation from a mean color: a random pattern along a random direction in color space."""
    direction = random.standard_normal(3)
    direction *= texture * random.random() / np.linalg.norm(direction)
    pattern = PATTERNS[random.integers(len(PATTERNS))](random, size)
    return direction.astype(np.float32)[:, None, None] * (pattern - np.float32(0.5))


# Patterns: values in [0, 1] over the image.


def _noise(random: np.random.Generator, size: int) -> np.ndarray:
    """Interpolate random numbers on a grid of 3 to 32 points per side: from clouds to fine grain."""
    points = int(random.choice([3, 5, 9, 17, 32]))
    weights = _interpolation(points, size)
    return weights @ random.random((points, points), dtype=np.float32) @ weights.T


@lru_cache
def _interpolation(points: int, size: int) -> np.ndarray:
    places = np.linspace(0, points - 1, size)[:, None]
    return np.maximum(0, 1 - abs(places - np.arange(points))).astype(np.float32)


def _gradient(random: np.random.Generator, size: int) -> np.ndarray:
    return 0.5 + _waves(random.random() * 2 * np.pi, size, 1 / (1.42 * size))


def _stripes(random: np.random.Generator, size: int) -> np.ndarray:
    waves = _waves(random.random() * np.pi, size, 2 * np.pi / random.uniform(4, 16))
    return 0.5 + 0.5 * np.sin(waves + np.float32(2 * np.pi * random.random()))


def _checks(random: np.random.Generator, size: int) -> np.ndarray:
    frequency = 2 / random.uniform(6, 20)
    turn = random.random() * np.pi
    first, second = (np.floor(_waves(turn + quarter, size, frequency)) for quarter in (0, np.pi / 2))
    return (first + second) % 2


def _waves(turn: float, size: int, frequency: float) -> np.ndarray:
    """Return the phase at every pixel of a wave in a given direction, 0 at the center of the image."""
    places = np.arange(size, dtype=np.float32) - np.float32(size / 2)
    return np.float32(frequency * np.cos(turn)) * places + np.float32(frequency * np.sin(turn)) * places[:, None]


PATTERNS = [_noise, _gradient, _stripes, _checks]
