"""Name what a dataset's function returns: its pictures, none of them decoded yet, and the names of its classes."""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np


class Picture(NamedTuple):
    """Hold where one picture is and what is known of it.

    An image is an encoded file, or an array `channel y x` of bytes, or a function that returns such an array or the
    content of an encoded file. Boxes are half-open `x0 y0 x1 y1` in pixels of the source picture, turned upright unless
    `turned` is False, one row per object of the label's class. A mask is where these objects are, `y x`, of the source
    picture's size: an encoded file in which all that is not 0 is object (of a lossy one, all that is at least 128), or
    an array of booleans or of 0 and 1, or a function that returns one. None where it is unknown.
    """

    id: str  # unique in the dataset
    label: str | int  # a class's name, or its number among `classes`
    split: Literal["train", "test"]  # test is held out; where nothing is trained all are test
    image: Path | np.ndarray | Callable[[], np.ndarray | bytes]
    boxes: np.ndarray | None = None
    mask: Path | np.ndarray | Callable[[], np.ndarray] | None = None
    turned: bool = True  # whether what its EXIF says of orientation is done


class Source(NamedTuple):
    """Hold all pictures of a dataset, in their order.

    `classes` names the labels; None says that they are the labels themselves, sorted. `pictures` may be a generator.
    `left_out` names files, or ids, that are known to be of no use before anything is decoded, and says why.
    """

    classes: list[str] | None
    pictures: Iterable[Picture]
    left_out: list[tuple[str, str]] = []  # noqa: RUF012 - a tuple's default that is never added to
