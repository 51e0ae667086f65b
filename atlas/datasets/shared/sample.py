"""Make one row of a dataset's store from a picture, and check it."""

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from atlas.datasets.shared import pictures
from atlas.datasets.shared.fit import channels_first, fitted
from atlas.datasets.shared.source import Picture
from atlas.study.errors import UserError


class Sample(NamedTuple):
    """What the store holds of one picture."""

    pixels: np.ndarray  # bytes, `channel y x`
    boxes: np.ndarray  # half-open `x0 y0 x1 y1`, 64-bit integers inside the image, one row per object
    mask: np.ndarray | None  # booleans, `y x`; None where the objects' places are unknown
    known: frozenset[str]  # which of boxes and mask the source has; the other is derived from it


def checked(given: object) -> Picture:
    """Check a picture's record before it is decoded.

    Raises:
        UserError: with what was given and what is accepted; the caller adds the dataset's name.
    """
    if not isinstance(given, Picture):
        raise UserError(f"yields {_shown(given)}; expected a Picture of atlas/datasets/shared/source.py")
    name = given.id
    if not isinstance(name, str) or not name.strip() or not name.isprintable():
        raise UserError(f"an image has the id {name!r}; expected printable text that is not empty")
    if not isinstance(given.split, str) or given.split not in ("train", "test"):
        raise UserError(f"image {name}: split = {given.split!r}; expected 'train' or 'test'")
    return given


def number(picture: Picture, classes: list[str] | None, numbers: dict[str, int]) -> int:
    """Return the number of a picture's label.

    Args:
        picture: The picture.
        classes: The names of classes; None if labels are the names.
        numbers: Numbers of labels by name; if there are no classes, new labels are added.

    Raises:
        UserError: the label is not one of the classes.
    """
    given: Any = picture.label
    whole = isinstance(given, int | np.integer) and not isinstance(given, bool)
    if classes is None and (whole or isinstance(given, str)) and str(given).strip():
        return numbers.setdefault(str(given), len(numbers))
    if classes is not None and whole and 0 <= given < len(classes):
        return int(given)
    if isinstance(given, str) and given in numbers:
        return numbers[given]
    if classes is None:
        expected = "expected a name, or a whole number"
    else:
        expected = f"expected one of the {len(classes)} classes, or a whole number, 0 to {len(classes) - 1}"
    raise UserError(f"image {picture.id}: label = {given!r:.80}; {expected}")


def to_sample(picture: Picture, channels: str, fit: dict[str, Any] | None) -> Sample | str:
    """Decode a picture and its mask, check both, and fit them; return the reason instead if it must be left out.

    Arrays are never rescaled or rounded: a wrong dtype or range means that the source got something wrong. If a box
    lies entirely outside a picture from a file, the picture is left out, as for a mask of another size; for pixels from
    an array, whose size the source knows, it is an error of the source.

    Raises:
        UserError: pixels, mask or boxes are not as specified in atlas/datasets/shared/source.py.
    """
    try:
        given = _called(picture.image)
        is_file = isinstance(given, Path | bytes)
        image = pictures.picture(given, channels, picture.turned) if is_file else _array(given, picture.id)
        height, width = image.shape[1:] if isinstance(image, np.ndarray) else image.size[::-1]
        mask = None if picture.mask is None else _mask(picture, (height, width))
    except pictures.Unusable as reason:
        return str(reason)
    boxes = None
    if picture.boxes is not None:
        boxes = _boxes(picture.boxes, picture.id)
        if outside := _outside(boxes, width, height):
            if is_file:
                return outside
            raise UserError(f"image {picture.id}: {outside}")
        boxes = boxes.clip(0, np.array([width, height, width, height], "int64"))
    if fit is None:
        pixels = channels_first(image)
    else:
        pixels, boxes, mask = fitted(image, boxes, mask, **fit)
    known = frozenset(name for name, one in (("boxes", boxes), ("mask", mask)) if one is not None)
    if mask is None and boxes is not None:
        mask = np.zeros(pixels.shape[1:], bool)
        for x0, y0, x1, y1 in boxes:
            mask[y0:y1, x0:x1] = True
    if boxes is None:
        boxes = np.empty((0, 4), "int64") if mask is None else _around(mask)
    return Sample(pixels, boxes, mask, known)


def _array(given: object, name: str) -> np.ndarray:
    if not isinstance(given, np.ndarray) or given.dtype != np.uint8 or given.ndim != 3 or not given.size:
        expected = "expected bytes, uint8 from 0 to 255, 'channel y x'"
        raise UserError(f"image {name}: pixels are {_shown(given)}; {expected}")
    return given


def _mask(picture: Picture, side: tuple[int, int]) -> np.ndarray:
    given, name = picture.mask, picture.id
    if isinstance(given, Path):
        try:
            found = pictures.mask(given, picture.turned)
        except pictures.Unusable as reason:
            raise pictures.Unusable(f"its mask {given.name}: {reason}") from None
        if found.shape != side:
            raise pictures.Unusable(f"its mask {given.name} has {_spelled(found.shape)} pixels, it {_spelled(side)}")
        return found
    found = _called(given)
    if callable(given) and isinstance(found, np.ndarray) and found.ndim == 2 and found.shape != side:
        raise pictures.Unusable(f"its mask has {_spelled(found.shape)} pixels, it {_spelled(side)}")
    fits = isinstance(found, np.ndarray) and found.dtype.kind in "biu" and found.shape == side
    if not fits or found.min() < 0 or found.max() > 1:
        expected = f"expected booleans, or integers 0 and 1, 'y x', of the image's {_spelled(side)}"
        raise UserError(f"image {name}: mask is {_shown(found)}; {expected}")
    return found.astype(bool)


def _called(given: object) -> Any:
    return given() if callable(given) else given


def _boxes(given: object, name: str) -> np.ndarray:
    if not isinstance(given, np.ndarray) or given.dtype.kind not in "iu" or given.ndim != 2 or given.shape[1] != 4:
        expected = "expected integers, 'box corner', four corners x0 y0 x1 y1 a row"
        raise UserError(f"image {name}: boxes are {_shown(given)}; {expected}")
    for x0, y0, x1, y1 in given.tolist():
        where = f"image {name}: a box is {[x0, y0, x1, y1]}"
        if not (x0 < x1 and y0 < y1):
            raise UserError(f"{where}; expected x0 y0 x1 y1 with x0 < x1 and y0 < y1")
        if max(map(abs, (x0, y0, x1, y1))) > np.iinfo("int32").max:
            raise UserError(f"{where}; expected pixels")
    return given.astype("int64")


def _outside(boxes: np.ndarray, width: int, height: int) -> str:
    """Return a message about boxes outside of their image; empty if there are none."""
    for x0, y0, x1, y1 in boxes.tolist():
        if x1 <= 0 or y1 <= 0 or x0 >= width or y0 >= height:
            expected = f"expected x 0 to {width}, y 0 to {height}"
            return f"a box is {[x0, y0, x1, y1]}, all of it outside the image; {expected}"
    return ""


def _around(mask: np.ndarray) -> np.ndarray:
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if not len(rows):
        return np.empty((0, 4), "int64")
    return np.stack([columns[[0]], rows[[0]], columns[[-1]] + 1, rows[[-1]] + 1], axis=1)


def _shown(given: object) -> str:
    if not isinstance(given, np.ndarray):
        return f"{' '.join(repr(given).split()):.60} ({type(given).__name__})"
    if not given.size or given.dtype.kind not in "biuf":
        return f"{given.dtype} of shape {_spelled(given.shape)}"
    return f"{given.dtype} of shape {_spelled(given.shape)} from {given.min()} to {given.max()}"


def _spelled(shape: tuple[int, ...]) -> str:
    return " × ".join(map(str, shape)) or "()"
