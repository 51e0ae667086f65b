"""Draw masks in COCO's formats: polygons, and run lengths of columns, plain or compressed.

The result equals that of the authors' own code (`maskApi.c` of cocoapi): a polygon's border is traced in fifths of a
pixel, and each column is filled between the points where the border crosses its middle.
"""

import numpy as np

from atlas.datasets.shared.pictures import Unusable

FINE = 5  # steps per pixel


def drawn(segments: list, height: int, width: int) -> np.ndarray:
    """Draw the union of several annotations, `y x`.

    Args:
        segments: Each a list of polygons (`[x, y, x, y, ...]`), or `{size: [height, width], counts: ...}` with run
            lengths as a list or as compressed text.
        height, width: Size of the picture.

    Raises:
        Unusable: run lengths belong to another size.
    """
    flat = np.zeros(height * width, bool)
    for one in segments:
        if isinstance(one, dict):
            counts = one["counts"]
            flat |= runs(unpacked(counts) if isinstance(counts, str) else counts, height * width)
        else:
            for polygon in one:
                flat |= filled(np.array(polygon, "float64").reshape(-1, 2), height, width)
    return flat.reshape(width, height).T


def runs(counts: list[int], pixels: int) -> np.ndarray:
    """Draw run lengths: alternately of pixels outside and inside, beginning with outside."""
    if sum(counts) != pixels or min(counts, default=0) < 0:
        raise Unusable(f"its mask has runs of {sum(counts)} pixels in all; expected its own {pixels}")
    return np.repeat(np.arange(len(counts)) % 2 == 1, counts)


def unpacked(text: str) -> list[int]:
    """Decompress run lengths: groups of 5 bits with a continuation bit; from the third on, differences to the second
    last.

    Raises:
        Unusable: the text ends within a number, or has characters other than the 64 digits.
    """
    counts: list[int] = []
    value, shift = 0, 0
    for character in text:
        digit = ord(character) - 48
        if not 0 <= digit < 64:
            raise Unusable(f"its mask has the character {character!r} in its run lengths; expected '0' to 'o'")
        value |= (digit & 31) << shift
        shift += 5
        if not digit & 32:
            value -= (1 << shift) if digit & 16 else 0
            counts.append(value + (counts[-2] if len(counts) > 2 else 0))
            value, shift = 0, 0
    if shift:
        raise Unusable("its mask has run lengths that end within a number")
    return counts


def filled(corners: np.ndarray, height: int, width: int) -> np.ndarray:
    """Fill a polygon with corners x, y; return booleans by column."""
    at = np.trunc(FINE * corners + 0.5).astype("int64")
    sides = zip(at, np.roll(at, -1, axis=0), strict=True)
    x, y = np.concatenate([_side(start, end) for start, end in sides], axis=1)
    moved = x[1:] != x[:-1]
    middle = (np.minimum(x[1:], x[:-1])[moved] + 0.5) / FINE - 0.5
    crossed = np.ceil((np.minimum(y[1:], y[:-1])[moved] + 0.5) / FINE - 0.5)
    inside = (middle == np.floor(middle)) & (middle >= 0) & (middle <= width - 1)
    toggled = middle[inside].astype("int64") * height + crossed[inside].clip(0, height).astype("int64")
    return np.cumsum(np.bincount(toggled, minlength=height * width + 1)[: height * width]) % 2 == 1


def _side(start: np.ndarray, end: np.ndarray) -> np.ndarray:
    """Trace a side of a polygon along its longer extent, from its lower end, as rounding depends on the direction."""
    along = int(abs(end[1] - start[1]) > abs(end[0] - start[0]))
    steps = abs(end[along] - start[along])
    if steps == 0:
        return start[:, None]
    low, high = (end, start) if start[along] > end[along] else (start, end)
    step = np.arange(steps + 1)
    points = np.empty((2, steps + 1), "int64")
    points[along] = low[along] + step
    slope = (high[1 - along] - low[1 - along]) / steps
    points[1 - along] = np.trunc(low[1 - along] + slope * step + 0.5)
    return points[:, ::-1] if start[along] > end[along] else points
