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


def read(folder: Path, part: tuple[int, int] | None = None) -> Stored:
    """Read an array all of whose chunks are stored; layouts other than those of small arrays here are left to Zarr.

    Args:
        folder: The array.
        part: Which indices of the first dimension to read, from the first to before the last; None: all.

    Raises:
        ValueError, KeyError, OSError or RuntimeError: it is missing or damaged.
    """
    about = json.loads((folder / "zarr.json").read_bytes())
    codecs = [codec["name"] for codec in about["codecs"]]
    start, stop = part or (0, about["shape"][0])
    labels = tuple(about["dimension_names"]), about["attributes"]
    if not set(codecs) <= set(DECODERS):
        values: Any = zarr.open_array(folder, mode="r")[start:stop]
        return Stored(values.astype(object) if values.dtype.kind == "T" else values, *labels)
    text = about["data_type"] == "string"
    dtype = np.dtype(object) if text else np.dtype(about["data_type"]).newbyteorder("<")
    size = about["chunk_grid"]["configuration"]["chunk_shape"]
    whole = np.empty((stop - start, *about["shape"][1:]), dtype)
    chunks = [range(-(-length // step)) for length, step in zip(about["shape"], size, strict=True)]
    first = range(start // size[0], -(-stop // size[0]))
    for place in product(first, *chunks[1:]):
        data: Any = folder.joinpath("c", *map(str, place)).read_bytes()
        for codec in reversed(codecs):
            data = DECODERS[codec](data)
        chunk = (data if text else np.frombuffer(data, dtype)).reshape(size)
        begin = place[0] * size[0]
        low, high = max(start, begin), min(stop, begin + size[0])
        rest = [slice(at * step, (at + 1) * step) for at, step in zip(place[1:], size[1:], strict=True)]
        target = whole[(slice(low - start, high - start), *rest)]
        target[...] = chunk[(slice(low - begin, high - begin), *map(slice, target.shape[1:]))]
    return Stored(whole, *labels)


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
