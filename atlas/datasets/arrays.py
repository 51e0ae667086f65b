"""Pictures that are arrays already, in a NumPy file or a Zarr store."""

import zipfile
import zlib
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import zarr

from atlas.datasets.shared.source import Picture, Source
from atlas.study.errors import UserError

REQUIRED = ("pixels", "label")
DAMAGED = (ValueError, OSError, EOFError, zipfile.BadZipFile, zlib.error)


def arrays(path: Path) -> Source:
    """Take pictures from arrays by name, a few at a time.

    They are `pixels` (bytes, `image channel y x`) and `label` (numbers or names), and optionally `mask` (booleans,
    `image y x`), `boxes` (whole numbers, `image box corner`, x0 y0 x1 y1, with rows of -1 past an image's last box),
    `split` (train or test; by default all are held out), `id` (by default the row's number, six digits) and `classes`
    (names; by default the labels name themselves).

    Args:
        path: A file .npz, or the folder of a Zarr store.
    """
    names, small, rows = _npz(path) if path.is_file() else _zarr(path)
    if missing := [name for name in REQUIRED if name not in names]:
        raise UserError(f"{path.name} has no array {', '.join(missing)}; it has: {', '.join(names) or 'none'}")
    known = {name: small(name) for name in ("label", "boxes", "split", "id", "classes") if name in names}
    count = known["label"].size
    for name, given in known.items():
        dims = ("image", "box", "corner") if name == "boxes" else (name,) if name == "classes" else ("image",)
        if given.ndim != len(dims) or (dims[0] == "image" and len(given) != count):
            shape = " × ".join(map(str, given.shape)) or "()"
            raise UserError(f"{path.name}: {name} has the shape {shape}; expected '{' '.join(dims)}' of {count} images")
    classes = [str(name) for name in known["classes"].tolist()] if "classes" in known else None
    return Source(classes, _pictures(path.name, known, rows("pixels"), rows("mask") if "mask" in names else None))


def _pictures(file: str, known: dict[str, np.ndarray], pixels: Iterator, masks: Iterator | None) -> Iterator[Picture]:
    for row, label in enumerate(known["label"].tolist()):
        image, mask = next(pixels, None), None if masks is None else next(masks, None)
        if image is None or (masks is not None and mask is None):
            short = "pixels" if image is None else "mask"
            raise UserError(f"{file}: {short} has {row} rows; expected those of label, {len(known['label'])}")
        boxes = known["boxes"][row] if "boxes" in known else None
        boxes = None if boxes is None else boxes[(boxes != -1).any(axis=1)]
        name = str(known["id"][row]) if "id" in known else f"{row:06d}"
        split = str(known["split"][row]) if "split" in known else "test"
        yield Picture(name, label, split, image, boxes, mask)
    for longer, rows in (("pixels", pixels), ("mask", masks)):
        if rows is not None and next(rows, None) is not None:
            raise UserError(f"{file}: {longer} has more rows than label, which has {len(known['label'])}")


def _zarr(path: Path) -> tuple:
    try:
        group: Any = zarr.open_group(path, mode="r")
    except (ValueError, KeyError, OSError) as error:
        raise UserError(f"path: {path} is no .npz file and no Zarr group ({type(error).__name__}: {error})") from None

    def rows(name: str) -> Iterator[np.ndarray]:
        array = group[name]
        if not array.ndim:
            raise UserError(f"path: {path}: {name} is a single number; expected an array")
        step = (array.shards or array.chunks)[0]
        for start in range(0, array.shape[0], step):
            yield from array[start : start + step]

    return sorted(group.array_keys()), lambda name: group[name][:], rows


def _npz(path: Path) -> tuple:
    try:
        with zipfile.ZipFile(path) as archive:
            names = [name.removesuffix(".npy") for name in archive.namelist()]
    except (zipfile.BadZipFile, OSError) as error:
        raise UserError(f"path: {path} is no .npz file and no Zarr group ({error})") from None
    return names, partial(_whole, path), partial(_rows, path)


def _whole(path: Path, name: str) -> np.ndarray:
    try:
        with zipfile.ZipFile(path) as archive, archive.open(f"{name}.npy") as file:
            return np.lib.format.read_array(file)
    except DAMAGED as error:
        raise UserError(f"{path.name}: {name} cannot be read ({error})") from None


def _rows(path: Path, name: str) -> Iterator[np.ndarray]:
    """Read an array row by row: it may be larger than memory."""
    with zipfile.ZipFile(path) as archive, archive.open(f"{name}.npy") as file:
        try:
            version = np.lib.format.read_magic(file)
            header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
            shape, fortran, dtype = header(file)
        except DAMAGED as error:
            raise UserError(f"{path.name}: {name} cannot be read ({error})") from None
        if fortran or dtype.hasobject or not shape:
            raise UserError(f"{path.name}: {name} does not lie row by row; expected an array in C order")
        each = dtype.itemsize * int(np.prod(shape[1:], dtype=int))
        for _ in range(shape[0]):
            try:
                content = file.read(each)
            except DAMAGED as error:
                raise UserError(f"{path.name}: {name} cannot be read ({error})") from None
            if len(content) < each:
                raise UserError(f"{path.name}: {name} is truncated")
            yield np.frombuffer(content, dtype).reshape(shape[1:])
