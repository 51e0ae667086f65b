"""Name what a dataset yields."""

from typing import Literal, NamedTuple

import numpy as np


class Sample(NamedTuple):
    """Hold one image with everything known of it.

    Pixels are bytes, `channel y x`. Boxes are half-open `x0 y0 x1 y1` in pixels, one row per object of the label's
    class; the mask is where these objects are, `y x`, boolean.
    """

    id: str
    split: Literal["train", "test"]
    label: int
    pixels: np.ndarray
    boxes: np.ndarray
    mask: np.ndarray
