"""Read small Zarr arrays quickly, chunk by chunk.

Zarr reads through an event loop, which for a chunk of a few kilobytes takes a hundred times as long as decoding it, and
results are gathered from thousands of such chunks.
"""

import json
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

import google_crc32c
import numpy as np
import zarr
from numcodecs import Blosc, VLenUTF8, Zstd


class Stored(NamedTuple):
    """A stored array: its values, its dimension names and its attributes."""

    values: np.ndarray
    dims: tuple[str, ...]
    attrs: dict[str, Any]


def read(folder: Path, at: int | None = None) -> Stored:
    """Read an array all of whose chunks are stored; layouts other than those of small arrays here are left to Zarr.

    Args:
        folder: The array.
        at: Read this index of the first dimension alone, and drop that dimension; None: read all.

    Raises:
        ValueError, KeyError, OSError or RuntimeError: it is missing or damaged.
    """
    about = json.loads((folder / "zarr.json").read_bytes())
    codecs = [codec["name"] for codec in about["codecs"]]
    if not set(codecs) <= set(DECODERS):
        values: Any = zarr.open_array(folder, mode="r")[... if at is None else at]
        return Stored(values.astype(object) if values.dtype.kind == "T" else values, *_names(about, at))
    text = about["data_type"] == "string"
    dtype = np.dtype(object) if text else np.dtype(about["data_type"]).newbyteorder("<")
    size = about["chunk_grid"]["configuration"]["chunk_shape"]
    whole = np.empty(about["shape"], dtype)
    chunks = [range(-(-length // step)) for length, step in zip(whole.shape, size, strict=True)]
    if at is not None:
        chunks[0] = range(at // size[0], at // size[0] + 1)
    for place in product(*chunks):
        data: Any = folder.joinpath("c", *map(str, place)).read_bytes()
        for codec in reversed(codecs):
            data = DECODERS[codec](data)
        chunk = (data if text else np.frombuffer(data, dtype)).reshape(size)
        part = whole[tuple(slice(at * step, (at + 1) * step) for at, step in zip(place, size, strict=True))]
        part[...] = chunk[tuple(map(slice, part.shape))]
    return Stored(whole if at is None else whole[at], *_names(about, at))


def _names(about: dict[str, Any], at: int | None) -> tuple[tuple[str, ...], dict[str, Any]]:
    return tuple(about["dimension_names"])[0 if at is None else 1 :], about["attributes"]


def _checked(data: bytes) -> bytes:
    if google_crc32c.value(data[:-4]) != int.from_bytes(data[-4:], "little"):
        raise ValueError("a chunk does not match its checksum")
    return data[:-4]


DECODERS = {
    "bytes": lambda data: data,
    "vlen-utf8": VLenUTF8().decode,
    "blosc": Blosc().decode,
    "zstd": Zstd().decode,
    "crc32c": _checked,
}
