"""Pictures of certified maps: one level's labels, all levels overlaid, the smoothed map.

The colors are those of anani2025pixel.
"""

import numpy as np
from jaxtyping import Float, Int8, UInt8

from atlas.inputs.certification import ABSTAINED, IMPORTANT, Votes
from atlas.report.images.pictures import Picture, gray, indexed

# From little to much importance.
ANCHORS = ("#f1c232", "#ec6060", "#842e6a", "#271c48", "#000000")
WHITE = (255, 255, 255)
GRAY = (217, 217, 217)  # 0.85


def colors(number: int) -> UInt8[np.ndarray, "level 3"]:
    """Return each level's color, from the largest level to the smallest, which is black."""
    anchors = np.array([[int(color[at : at + 2], 16) for at in (1, 3, 5)] for color in ANCHORS])
    places = np.linspace(len(ANCHORS) - 1, 0, number)[::-1]
    channels = [np.interp(places, np.arange(len(ANCHORS)), channel) for channel in anchors.T]
    return np.stack(channels, axis=-1).round().astype(np.uint8)


def formatted(color: tuple[int, ...] | np.ndarray) -> str:
    """Format a color for a style sheet."""
    return "#" + "".join(f"{int(value):02x}" for value in color)


def labelled(labels: Int8[np.ndarray, "y x"]) -> UInt8[np.ndarray, "y x"]:
    """Return color indices of one level's labels: unimportant 0 (white), important 1, abstained 2 (gray)."""
    return np.where(labels == ABSTAINED, 2, labels == IMPORTANT).astype(np.uint8)


def overlaid(labels: Int8[np.ndarray, "level y x"]) -> UInt8[np.ndarray, "y x"]:
    """Return for each pixel 1 + the index of the smallest level at which it is certified important; 0 if there is none.

    Args:
        labels: Labels by level, levels falling.
    """
    found = np.zeros(labels.shape[1:], np.uint8)
    for place, one in enumerate(labels):
        found[one == IMPORTANT] = place + 1
    return found


def smoothed(votes: Votes, row: int, level: int) -> Float[np.ndarray, "y x"]:
    """Return the smoothed sparsified map: the share of all noisy samples in whose map a pixel is at the top.

    (counts0 + counts) / (n0 + n)

    Args:
        votes: Votes on some images.
        row: Index of the image.
        level: Index of the level in the votes.
    """
    both = votes.counts0[row, level].astype(np.float64) + votes.counts[row, level]
    return both / (votes.n0 + votes.n)


def panel(labels: Int8[np.ndarray, "level y x"], place: int, alt: str, *, side: int) -> Picture:
    """Show one level: certified important in the level's color, certified unimportant white, abstained gray."""
    return indexed(labelled(labels[place]), three(len(labels), place), alt, side=side)


def overlay(labels: Int8[np.ndarray, "level y x"], alt: str, *, side: int) -> Picture:
    """Show the pixels certified important at all levels, each in its color over the larger ones; the rest is white."""
    return indexed(overlaid(labels), palette(len(labels)), alt, side=side)


def average(votes: Votes, row: int, level: int, alt: str, *, side: int) -> Picture:
    """Show the smoothed sparsified map, from black (never at the top) to white (always)."""
    return gray(smoothed(votes, row, level), alt, side=side)


def palette(number: int) -> UInt8[np.ndarray, "color 3"]:
    """Return the colors of an overlay: white, then those of the levels."""
    return np.concatenate([np.array([WHITE], np.uint8), colors(number)])


def three(number: int, place: int) -> UInt8[np.ndarray, "color 3"]:
    """Return the colors of one of several levels: unimportant, important, abstained."""
    return np.array([WHITE, colors(number)[place], GRAY], np.uint8)
