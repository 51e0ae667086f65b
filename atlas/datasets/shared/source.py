"""The return type of a dataset's function: its pictures, not decoded yet, and the names of its classes."""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple

import numpy as np


class Picture(NamedTuple):
    """Where one picture is, and what is known of it.

    An image is an encoded file, or an array `channel y x` of bytes, or a function that returns such an array or the
    content of an encoded file. Boxes are half-open `x0 y0 x1 y1` in pixels of the source picture, turned upright unless
    `turned` is False, one row per object of the label's class. A mask marks these objects, `y x`, at the source
    picture's size: an encoded file in which everything but 0 is object (in a lossy format, everything from 128), or an
    array of booleans or of 0 and 1, or a function that returns one. None if it is unknown.
    """

    id: str  # unique in the dataset
    label: str | int  # a class's name, or its number among `classes`
    split: str  # train, or test, which is held out; all are test if nothing is trained
    image: Path | np.ndarray | Callable[[], np.ndarray | bytes]
    boxes: np.ndarray | None = None
    mask: Path | np.ndarray | Callable[[], np.ndarray] | None = None
    turned: bool = True  # whether its EXIF orientation is applied


class Source(NamedTuple):
    """All pictures of a dataset, in their order.

    `classes` names the labels; None means that the labels, sorted, are the names. `pictures` may be a generator.
    `left_out` lists files, or ids, that are known to be unusable before anything is decoded, with reasons.
    """

    classes: list[str] | None
    pictures: Iterable[Picture]
    left_out: list[tuple[str, str]] = []  # noqa: RUF012 - a tuple's default that is never added to
