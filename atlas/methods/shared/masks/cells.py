"""Random masks made of coarse cells, as RISE draws them."""

from collections.abc import Callable
from math import ceil

import numpy as np
import torch
from torch import Tensor

from atlas.methods.shared.checks import check_at_least
from atlas.model.arrays import Images
from atlas.model.batches import summed
from atlas.study.errors import UserError
from atlas.study.seeds import generator


def mask_maker(images: Images, masks: int, cells: int, probability: float, seed: int) -> Callable[[int], Tensor]:
    """Draw the cells and offsets of all masks, and return a function that makes one mask of the images' size.

    A cell has ⌈side / cells⌉ pixels. The grid is enlarged bilinearly to one cell more than the image and cropped at an
    offset of less than a cell. The first masks of a longer run are those of a shorter one.
    """
    drawn = torch.rand(masks, cells**2 + 2, generator=generator(seed, "rise"))
    grids = (drawn[:, :-2] < probability).to(images).view(masks, cells, cells)
    height, width = images.shape[-2:]
    steps = torch.tensor([ceil(height / cells), ceil(width / cells)])
    offsets = (drawn[:, -2:] * steps).int().tolist()
    down, across = ([part.to(images.device) for part in _enlargement(cells, step)] for step in steps.tolist())

    def make(number: int) -> Tensor:
        top, left = offsets[number]
        tall = _enlarged(grids[number], down, top, height)
        return _enlarged(tall.T, across, left, width).T

    return make


def stacked(make: Callable[[int], Tensor], numbers: list[int]) -> Tensor:
    """Return the masks of these numbers, with one channel; repeated ones are made once."""
    made = {number: make(number) for number in set(numbers)}
    return torch.stack([made[number] for number in numbers])[:, None]


def averaged(make: Callable[[int], Tensor], weights: Tensor, probability: float) -> Tensor:
    """Return (1/(n p)) Σᵢ wᵢ Mᵢ for every row's weights w of the first n masks, with one channel."""
    masks = weights.shape[1]
    # Mask by mask: the order of sums in a matrix product depends on the number of images.
    total = summed(weights[:, number, None, None, None] * make(number) for number in range(masks))
    return total / (masks * probability)


def check_cells(function: str, masks: int, cells: int, probability: float) -> None:
    """Reject settings without masks or cells, and a probability outside (0, 1].

    Raises:
        UserError: one of these.
    """
    if not 0 < probability <= 1:
        raise UserError(f"{function}: the setting 'probability' is {probability}, expected above 0 and up to 1")
    check_at_least(function, "masks", masks, 1)
    check_at_least(function, "cells", cells, 1)


def _enlargement(cells: int, step: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return the two cells between which each pixel lies, and the weight of the second."""
    pixels = (cells + 1) * step
    last = cells - 1
    place = (np.arange(pixels) + 0.5) * cells / pixels - 0.5
    # Mirrored at the middles of the outer cells: the mode "reflect" of scikit-image, which the authors use.
    place = np.clip(last - np.abs(last - np.abs(place)), 0, last)
    lower = place.astype(int)
    upper = np.minimum(lower + 1, last)
    return torch.from_numpy(lower), torch.from_numpy(upper), torch.from_numpy(place - lower).float()


def _enlarged(grid: Tensor, enlargement: list[Tensor], first: int, count: int) -> Tensor:
    lower, upper, share = (part[first : first + count] for part in enlargement)
    return grid[lower] + share[:, None] * (grid[upper] - grid[lower])
