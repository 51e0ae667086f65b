"""The inputs of methods and metrics, row by row: images and grids, targets, masks, boxes, tiles, seeds.

A function declares the inputs it needs, and the keys of its rows hold the digests of exactly these. Pixels and masks
are read where they are needed, one batch at a time: no stage holds those of all rows.
"""

from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import zarr

from atlas.cache.keys import digest
from atlas.cache.stores import array_of, read, values
from atlas.cache.tables import Coords
from atlas.model.batch_cache import forget
from atlas.study.seeds import image_seed

if TYPE_CHECKING:
    from torch import Tensor

    from atlas.study.study import Study


READ = 64  # rows whose pixels or masks are in memory at once while they are digested


class LazyRows:
    """Rows of an array that are read or made when they are indexed by position."""

    def __init__(self, shape: tuple[int, ...], take: Callable[[np.ndarray], np.ndarray]):
        self.shape, self.take = shape, take

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, positions: np.ndarray) -> np.ndarray:
        return self.take(positions)


class Inputs(NamedTuple):
    """Rows of one kind, flattened: one per image, or one per tile of each grid."""

    group: str
    dims: tuple[str, ...]
    lead: tuple[int, ...]
    coords: dict[str, tuple[tuple[str, ...], np.ndarray]]
    pixels: np.ndarray | LazyRows  # one per picture (image or grid); `picture` holds each row's index into it
    picture: np.ndarray
    ids: list[str]
    arrays: dict[str, np.ndarray | LazyRows]  # inputs by name, one per row
    background: np.ndarray  # pixels of the background set, the same for all rows
    seed: int
    pictures: list[bytes]  # digests of `pixels`

    @property
    def side(self) -> tuple[int, int]:
        """Return the height and width of the pictures."""
        height, width = self.pixels.shape[-2:]
        return height, width


def gathered(study: "Study", classifier: str) -> dict[str, Inputs]:
    """Read the evaluation images of a classifier, and its grids if it has any, by group."""
    found = {"images": images(study, classifier)}
    place = study.path("grids", classifier)
    return found if "absent" in read(place, "the grids").attrs else found | {"grids": grids(study, classifier)}


def missing_input(study: "Study", classifier: str, names: list[str]) -> str | None:
    """Return why a classifier lacks one of the inputs that a method or metric declares; None if it has all.

    Args:
        study: The study.
        classifier: The classifier's name.
        names: Inputs, as functions declare them.
    """
    if "tiles" in names and (absent := read(study.path("grids", classifier), "the grids").attrs.get("absent")):
        return f"the classifier {classifier} has no grids: {absent}"
    about = read(study.path("images", classifier), "the evaluation images")
    for name in [name for name in ("boxes", "masks") if name in names and not about.attrs["known"]]:
        return f"the dataset {about.attrs['dataset']} has no {name}"
    if "background" in names and not array_of(about, "background/image").shape[0]:
        return f"there are no background images: classifiers.{classifier}.images.background is 0"
    return None


def images(study: "Study", classifier: str) -> Inputs:
    """Read the evaluation images of a classifier, with masks and boxes if the dataset has any."""
    place = study.path("images", classifier)
    store, apart = read(place / "images", "the evaluation images"), read(place / "background", "the background images")
    ids, targets = values(store, "image"), values(store, "target")
    arrays: dict[str, np.ndarray | LazyRows] = {"targets": targets}
    if "mask" in store:
        arrays |= {"masks": _stored(store, "mask"), "boxes": values(store, "boxes").astype("int64")}
    coords: Coords = {"image": (("image",), ids), "target": (("image",), targets)}
    if "picture" in store:  # an image may have several labels, a row for each
        coords["picture"] = ("image",), values(store, "picture")
    rows, pixels, background = np.arange(len(ids)), _stored(store, "pixels"), values(apart, "pixels")
    known = ids.tolist(), arrays, background, study.seed, _each(pixels)
    return Inputs("images", ("image",), (len(ids),), coords, pixels, rows, *known)


def grids(study: "Study", classifier: str) -> Inputs:
    """Read the grids of a classifier: one row per tile, with the tile's class as its target."""
    place = study.path("grids", classifier)
    store, apart = read(place / "grids", "the grids"), read(place / "background", "the background grids")
    names, targets = values(store, "grid"), values(store, "target")
    count, tiles = targets.shape
    pixels = _stored(store, "pixels")
    coords: Coords = {
        "grid": (("grid",), names),
        "tile": (("tile",), np.arange(tiles)),
        "target": (("grid", "tile"), targets),
    }
    picture = np.repeat(np.arange(count), tiles)
    places = tile_masks(pixels.shape[-2:], tiles)
    of_rows = LazyRows((count * tiles, *places.shape[1:]), lambda rows: places[rows % tiles])
    arrays: dict[str, np.ndarray | LazyRows] = {"targets": targets.reshape(-1), "tiles": of_rows}
    known = names[picture].tolist(), arrays, values(apart, "pixels"), study.seed, _each(pixels)
    return Inputs("grids", ("grid", "tile"), (count, tiles), coords, pixels, picture, *known)


def tile_masks(side: tuple[int, ...], tiles: int) -> np.ndarray:
    """Return the mask of each tile of a grid, row by row."""
    n = round(tiles**0.5)
    height, width = side[0] // n, side[1] // n
    masks = np.zeros((tiles, *side), bool)
    for tile in range(tiles):
        y, x = (tile // n) * height, (tile % n) * width
        masks[tile, y : y + height, x : x + width] = True
    return masks


def digests(inputs: Inputs, names: list[str]) -> list[bytes]:
    """Digest the named inputs of each row; names that belong to no row (classifier, maps) are left to the caller."""
    background = digest(*_each(inputs.background)) if "background" in names else b""
    parts = []
    for rows in _blocks(len(inputs.ids)):
        arrays = {name: inputs.arrays[name][rows] for name in names if name in inputs.arrays}
        for at, i in enumerate(rows):
            row: list[object] = []
            for name in sorted(names):
                if name == "images":
                    row += [name, inputs.pictures[inputs.picture[i]]]
                elif name == "background":
                    row += [name, background]
                elif name == "seeds":
                    row += [name, inputs.seed, inputs.ids[i]]
                elif name in arrays:
                    value = arrays[name][at]
                    if name == "boxes":  # without the padding, whose length depends on the image with the most boxes
                        value = value[(value != -1).any(axis=1)]
                    row += [name, value.tobytes(), value.dtype.str, list(value.shape)]
            parts.append(digest(*row))
    return parts


def batches(
    wanted: dict[Any, np.ndarray],
    size: int,
    inputs: Inputs,
    device: str,
    whole: Mapping[Any, Sequence[str]] = MappingProxyType({}),
) -> Iterator[tuple[Any, np.ndarray, dict[str, Any]]]:
    """Yield wanted rows batch by batch: the key of `wanted`, the rows' positions, and their inputs.

    All keys that want the same rows of a batch get the very same tensors, so that shared work is done once. Keys in
    `whole` get all their rows at once, and first, with only those inputs that one of them declares.
    """
    background = intensities(inputs.background, device)
    declared = {name for listed in whole.values() for name in listed}
    everything = (0, max(1, len(inputs.ids)), whole.keys(), declared)
    parts = [(start, size, wanted.keys() - whole.keys(), None) for start in range(0, len(inputs.ids), size)]
    for start, length, names, asked in [everything, *parts]:
        forget(batch=True)
        made: dict[bytes, dict] = {}
        for name, positions in wanted.items():
            part = positions[(positions >= start) & (positions < start + length)]
            if len(part) and name in names:
                if part.tobytes() not in made:
                    made[part.tobytes()] = {**tensors(inputs, part, device, asked), "background": background}
                yield name, part, made[part.tobytes()]


def tensors(inputs: Inputs, positions: np.ndarray, device: str, names: Container[str] | None = None) -> dict[str, Any]:
    """Return the inputs of some rows as tensors on a device, by name: all of them, or those named."""
    import torch

    chosen = [name for name in inputs.arrays if names is None or name in names]
    found: dict[str, Any] = {name: torch.from_numpy(inputs.arrays[name][positions]).to(device) for name in chosen}
    if names is None or "images" in names:
        found["images"] = intensities(inputs.pixels[inputs.picture[positions]], device)
    return {**found, "seeds": [image_seed(inputs.seed, inputs.ids[i]) for i in positions]}


def of_row(inputs: Inputs, row: int, device: str) -> dict[str, Any]:
    """Return the inputs of one row as new tensors, from which nothing has been cached."""
    background = intensities(inputs.background, device)
    return {**tensors(inputs, np.array([row]), device), "background": background}


def intensities(pixels: np.ndarray, device: str) -> "Tensor":
    """Convert bytes to intensities in [0, 1] on a device."""
    import torch

    return torch.from_numpy(pixels).to(device).float().div(255)


def some(inputs: Inputs, positions: np.ndarray) -> str:
    """Return the names of a few of some rows' images, for a message."""
    ids = [inputs.ids[i] for i in positions]
    return ", ".join(ids[:5]) + (f" and {len(ids) - 5} more" if len(ids) > 5 else "")


def _stored(store: zarr.Group, name: str) -> LazyRows:
    return LazyRows(array_of(store, name).shape, lambda rows: values(store, name, rows))


def _blocks(count: int) -> Iterator[np.ndarray]:
    for start in range(0, count, READ):
        yield np.arange(start, min(count, start + READ))


def _each(pixels: np.ndarray | LazyRows) -> list[bytes]:
    blocks = (pixels[rows] for rows in _blocks(len(pixels)))
    return [digest(picture.tobytes(), list(picture.shape)) for block in blocks for picture in block]
