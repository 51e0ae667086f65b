"""Give what methods and metrics are judged on, row by row: images and grids, targets, masks, boxes, tiles, seeds.

A function names the evidence it needs; its rows' keys hold the digests of just that.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from stages.keys import digest
from stages.params import path
from stages.seeds import image_seed
from stages.stores import read, values


class Evidence(NamedTuple):
    """Rows of one kind, flattened: one per image, or one per tile of each grid."""

    group: str
    dims: tuple[str, ...]
    lead: tuple[int, ...]
    coords: dict[str, tuple[tuple[str, ...], np.ndarray]]
    pixels: np.ndarray  # of the picture that `picture` points to, one per row
    picture: np.ndarray
    ids: list[str]
    arrays: dict[str, np.ndarray]  # evidence by name, one per row
    seed: int

    @property
    def side(self) -> tuple[int, int]:
        """Give the pictures' height and width."""
        return self.pixels.shape[-2:]


def images(study: Path, classifier: str, seed: int) -> Evidence:
    """Read the evaluation images of a classifier."""
    store = read(path(study, "images", classifier) / "images", "the evaluation images")
    ids = values(store, "image")
    arrays = {
        "targets": values(store, "target"),
        "masks": values(store, "mask"),
        "boxes": values(store, "boxes").astype("int64"),
    }
    coords = {"image": (("image",), ids), "target": (("image",), arrays["targets"])}
    rows = np.arange(len(ids))
    return Evidence(
        "images", ("image",), (len(ids),), coords, values(store, "pixels"), rows, ids.tolist(), arrays, seed
    )


def grids(study: Path, classifier: str, seed: int) -> Evidence:
    """Read the grids of a classifier: a row for each tile, whose class is its target."""
    store = read(path(study, "grids", classifier) / "grids", "the grids")
    names, targets = values(store, "grid"), values(store, "target")
    count, tiles = targets.shape
    pixels = values(store, "pixels")
    coords = {
        "grid": (("grid",), names),
        "tile": (("tile",), np.arange(tiles)),
        "target": (("grid", "tile"), targets),
    }
    picture = np.repeat(np.arange(count), tiles)
    places = np.tile(tile_masks(pixels.shape[-2:], tiles), (count, 1, 1))
    arrays = {"targets": targets.reshape(-1), "tiles": places}
    ids = names[picture].tolist()
    return Evidence("grids", ("grid", "tile"), (count, tiles), coords, pixels, picture, ids, arrays, seed)


def tile_masks(side: tuple[int, int], tiles: int) -> np.ndarray:
    """Mark each tile of a grid, row by row."""
    n = round(tiles**0.5)
    height, width = side[0] // n, side[1] // n
    masks = np.zeros((tiles, *side), bool)
    for tile in range(tiles):
        y, x = (tile // n) * height, (tile % n) * width
        masks[tile, y : y + height, x : x + width] = True
    return masks


def digests(evidence: Evidence, names: list[str]) -> list[bytes]:
    """Digest the named evidence of each row; names that are no row's own (classifier, maps) are left to the caller."""
    pictures = [digest(picture.tobytes(), list(picture.shape)) for picture in evidence.pixels]
    parts = []
    for i, image in enumerate(evidence.ids):
        row: list[object] = []
        for name in sorted(names):
            if name == "images":
                row += [name, pictures[evidence.picture[i]]]
            elif name == "seeds":
                row += [name, evidence.seed, image]
            elif name in evidence.arrays:
                value = evidence.arrays[name][i]
                if name == "boxes":  # how many rows other images need is nothing to this one
                    value = value[value[:, 0] >= 0]
                row += [name, value.tobytes(), value.dtype.str, list(value.shape)]
        parts.append(digest(*row))
    return parts


def batches(
    wanted: dict[Any, np.ndarray], size: int, evidence: Evidence, device: str
) -> Iterator[tuple[Any, np.ndarray, dict[str, Any]]]:
    """Give wanted rows batch by batch: who wants them, which, and their evidence.

    All who want the same rows of a batch are given the very same tensors, so that work they share is done once.
    """
    for start in range(0, len(evidence.ids), size):
        made: dict[bytes, dict] = {}
        for name, positions in wanted.items():
            part = positions[(positions >= start) & (positions < start + size)]
            if len(part):
                if part.tobytes() not in made:
                    made[part.tobytes()] = tensors(evidence, part, device)
                yield name, part, made[part.tobytes()]


def tensors(evidence: Evidence, positions: np.ndarray, device: str) -> dict[str, Any]:
    """Give the evidence of some rows as tensors on a device, by name."""
    import torch

    pictures = torch.from_numpy(evidence.pixels[evidence.picture[positions]]).to(device)
    found = {name: torch.from_numpy(values[positions]).to(device) for name, values in evidence.arrays.items()}
    seeds = [image_seed(evidence.seed, evidence.ids[i]) for i in positions]
    return {**found, "images": pictures.float().div(255), "seeds": seeds}


def some(evidence: Evidence, positions: np.ndarray) -> str:
    """Name a few of some rows' images, for a message."""
    ids = [evidence.ids[i] for i in positions]
    return ", ".join(ids[:5]) + (f" and {len(ids) - 5} more" if len(ids) > 5 else "")
