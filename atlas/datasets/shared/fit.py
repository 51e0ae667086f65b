"""Bring pictures of any size to one size: pixels, boxes and masks alike.

Pixels are resized like torchvision's `v2.Resize` with antialiasing, and cropped like its `CenterCrop`, channel by
channel and for any number of channels. Bilinear and bicubic results equal torchvision's on Pillow pictures bit for bit,
for reduction and enlargement. torchvision's own result on byte tensors is within one gray level of that (two where the
bicubic filter enlarges; more where it overshoots black or white, which the two clip at different steps). `nearest`
takes the source pixel that contains the middle of the new pixel (torchvision's NEAREST_EXACT); on a border of two, the
second. A mask's pixel is object if at least half of the source pixels with their middle in it are.
A box becomes the smallest box of whole pixels that contains it, and is clipped; a box that is cropped away entirely is
dropped.
"""

from typing import Annotated, Literal, NamedTuple

import numpy as np
from PIL import Image

from atlas.study.schema.types import Count, Items

FILTERS = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}


class Placement(NamedTuple):
    """The size to which a source of `height, width` is resized, and the part of it that is kept."""

    source: tuple[int, int]
    resized: tuple[int, int]
    top: int
    left: int
    size: tuple[int, int]


def fitted(
    image: Image.Image | np.ndarray,
    boxes: np.ndarray | None,
    mask: np.ndarray | None,
    *,
    mode: Literal["crop", "squash"],
    size: Count | Annotated[list[Count], Items(2, 2)],
    resize: Count | None = None,
    interpolation: Literal["bilinear", "bicubic", "nearest"] = "bilinear",
) -> tuple[np.ndarray, np.ndarray | None, np.ndarray | None]:
    """Fit a picture with its boxes and mask.

    Args:
        image: Upright; a picture of one byte a channel without transparency, or bytes `channel y x`.
        boxes: `x0 y0 x1 y1`, half-open, in pixels of the source; None if not known.
        mask: Booleans `y x`, of the source's size; None if not known.
        mode: `crop` resizes the shorter side and crops the middle; `squash` resizes both sides.
        size: Size of the result in pixels; height and width if they differ.
        resize: The shorter side before the crop; with `crop` only.
        interpolation: How pixels are interpolated.

    Returns:
        Bytes `channel y x`, boxes and mask.
    """
    source = image.shape[1:] if isinstance(image, np.ndarray) else image.size[::-1]
    height, width = size if isinstance(size, list) else (size, size)
    at = placement(source, (height, width), resize if mode == "crop" else None)
    return (
        _pixels(image, at, interpolation),
        None if boxes is None else _boxes(boxes, at),
        None if mask is None else _mask(mask, at),
    )


def placement(source: tuple[int, int], size: tuple[int, int], resize: int | None) -> Placement:
    """Return how a source is brought to a size: shorter side resized and middle cropped, or both sides resized."""
    if resize is None:
        return Placement(source, size, 0, 0, size)
    # As in torchvision: the longer side is rounded down, and the crop's corner to the nearest integer, halves to even.
    height, width = (resize if side == min(source) else int(resize * side / min(source)) for side in source)
    top, left = (round((whole - part) / 2) for whole, part in zip((height, width), size, strict=True))
    return Placement(source, (height, width), top, left, size)


def _pixels(image: Image.Image | np.ndarray, at: Placement, interpolation: str) -> np.ndarray:
    if interpolation == "nearest":
        rows, columns = (
            (2 * (np.arange(length) + start) + 1) * whole // (2 * made)
            for length, start, whole, made in zip(at.size, (at.top, at.left), at.source, at.resized, strict=True)
        )
        return channels_first(image)[:, rows[:, None], columns]
    if isinstance(image, np.ndarray):
        return np.stack([np.asarray(_resized(Image.fromarray(band), at, FILTERS[interpolation])) for band in image])
    return channels_first(_resized(image, at, FILTERS[interpolation]))


def channels_first(image: Image.Image | np.ndarray) -> np.ndarray:
    """Return bytes `channel y x`."""
    if isinstance(image, np.ndarray):
        return image
    values = np.asarray(image)
    return values[None] if values.ndim == 2 else np.ascontiguousarray(values.transpose(2, 0, 1))


def _resized(image: Image.Image, at: Placement, how: Image.Resampling) -> Image.Image:
    """Resize in one step: Pillow chooses by the shape whether rows or columns come first, which affects values."""
    height, width = at.resized
    return image.resize((width, height), how).crop((at.left, at.top, at.left + at.size[1], at.top + at.size[0]))


def _mask(mask: np.ndarray, at: Placement) -> np.ndarray:
    whole = Image.fromarray(mask.astype(np.uint8) * np.uint8(255))
    return np.asarray(_resized(whole, at, Image.Resampling.BOX)) >= 128


def _boxes(boxes: np.ndarray, at: Placement) -> np.ndarray:
    (height, width), (made_height, made_width) = at.source, at.resized
    x0, y0, x1, y1 = boxes.astype("int64").T
    moved = np.stack(
        [
            x0 * made_width // width - at.left,
            y0 * made_height // height - at.top,
            -(-x1 * made_width // width) - at.left,
            -(-y1 * made_height // height) - at.top,
        ],
        axis=1,
    ).clip(0, [at.size[1], at.size[0], at.size[1], at.size[0]])
    return moved[(moved[:, 0] < moved[:, 2]) & (moved[:, 1] < moved[:, 3])]
