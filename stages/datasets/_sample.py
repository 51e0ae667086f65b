"""Name what a dataset yields, and check it."""

from typing import Literal, NamedTuple

import numpy as np

from stages.study.problem import Problem


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


def checked(sample: object, shape: tuple[int, ...] | None, classes: list[str]) -> Sample:
    """Check one sample against the contract, and clip boxes that are partly outside its image.

    Nothing is rescaled or rounded: what has another type or range than the contract's was meant otherwise.

    Args:
        sample: What a dataset yielded.
        shape: Of the dataset's first image, `channel y x`; None for that one itself.
        classes: Names of the labels.

    Returns:
        The sample with boxes of 64-bit integers inside the image and a boolean mask.

    Raises:
        Problem: with what was given and what is accepted; the caller knows the dataset's name.
    """
    if not isinstance(sample, Sample):
        raise Problem(f"yields {_shown(sample)}; expected a Sample of stages/datasets/_sample.py")
    name = sample.id
    if not isinstance(name, str) or not name.strip() or not name.isprintable():
        raise Problem(f"an image has the id {name!r}; expected printable text that is not empty")
    faults = (_split(sample.split), _label(sample.label, classes), _pixels(sample.pixels, shape))
    if fault := next(filter(None, faults), None):
        raise Problem(f"image {name}: {fault}")
    height, width = sample.pixels.shape[1:]
    if fault := _mask(sample.mask, (height, width)) or _boxes(sample.boxes, width, height):
        raise Problem(f"image {name}: {fault}")
    limits = np.array([width, height, width, height], "int64")
    boxes = sample.boxes.astype("int64").clip(0, limits)
    return Sample(str(name), sample.split, int(sample.label), sample.pixels, boxes, sample.mask.astype(bool))


def _split(given: object) -> str | None:
    if isinstance(given, str) and given in ("train", "test"):
        return None
    return f"split = {given!r}; expected 'train' or 'test'"


def _label(given: object, classes: list[str]) -> str | None:
    if isinstance(given, int | np.integer) and not isinstance(given, bool) and 0 <= given < len(classes):
        return None
    return f"label = {given!r}; expected a whole number, 0 to {len(classes) - 1}, as there are {len(classes)} classes"


def _pixels(given: object, shape: tuple[int, ...] | None) -> str | None:
    if not isinstance(given, np.ndarray) or given.dtype != np.uint8 or given.ndim != 3 or not given.size:
        return f"pixels are {_shown(given)}; expected bytes, uint8 from 0 to 255, 'channel y x'"
    if shape is not None and given.shape != shape:
        return f"pixels are {_shown(given)}; expected those of the dataset's first image, {_spelled(shape)}"
    return None


def _mask(given: object, side: tuple[int, int]) -> str | None:
    due = f"expected booleans, or integers 0 and 1, 'y x', of the image's {_spelled(side)}"
    if not isinstance(given, np.ndarray) or given.dtype.kind not in "biu" or given.shape != side:
        return f"mask is {_shown(given)}; {due}"
    return None if given.min() >= 0 and given.max() <= 1 else f"mask is {_shown(given)}; {due}"


def _boxes(given: object, width: int, height: int) -> str | None:
    if not isinstance(given, np.ndarray) or given.dtype.kind not in "iu" or given.ndim != 2 or given.shape[1] != 4:
        return f"boxes are {_shown(given)}; expected integers, 'box corner', four corners x0 y0 x1 y1 a row"
    for x0, y0, x1, y1 in given.tolist():
        if not (x0 < x1 and y0 < y1):
            return f"a box is {[x0, y0, x1, y1]}; expected x0 y0 x1 y1 with x0 < x1 and y0 < y1"
        if x1 <= 0 or y1 <= 0 or x0 >= width or y0 >= height:
            return f"a box is {[x0, y0, x1, y1]}, all of it outside the image; expected x 0 to {width}, y 0 to {height}"
        if max(map(abs, (x0, y0, x1, y1))) > np.iinfo("int32").max:
            return f"a box is {[x0, y0, x1, y1]}; expected pixels"
    return None


def _shown(given: object) -> str:
    if not isinstance(given, np.ndarray):
        return f"{' '.join(repr(given).split()):.60} ({type(given).__name__})"
    if not given.size or given.dtype.kind not in "biuf":
        return f"{given.dtype} of shape {_spelled(given.shape)}"
    return f"{given.dtype} of shape {_spelled(given.shape)} from {given.min()} to {given.max()}"


def _spelled(shape: tuple[int, ...]) -> str:
    return " × ".join(map(str, shape)) or "()"
