"""Components of extremal perturbations: smooth masks of given areas, and images blurred by varying degrees."""

from collections.abc import Iterator
from itertools import product
from math import ceil
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import pad

from atlas.methods.shared.batches import pairs
from atlas.methods.shared.blur import blurred, profiles
from atlas.model.arrays import Images
from atlas.model.classifier import Classifier

COLDNESS = 20.0  # how sharply the pooling prefers large values
LEVELS = 8  # blurs of the image, from the strongest to none
STRONGEST = 20.0  # standard deviation of the strongest blur, in pixels
TIE = 1e-5  # closer values count as equal: the rounding error of a pooled value


class Pooling(NamedTuple):
    """Make masks from cells by a smooth maximum, and propagate gradients from masks back to cells.

    Cells lie a stride apart, starting at the first pixel of the image. A mask extends from `margin` cells before the
    first to as many after the last. A block is the pixels from one cell to the next. The pixels of a block depend on
    the cells of a window, `margin` + 1 to either side of the block's own cell, so kernel and cells are multiplied only
    there.
    """

    grid: tuple[int, int]
    """Number of cells along y and x."""
    margin: int
    """Number of cells beyond the first and the last."""
    kernel: Tensor
    """The kernel, by a window's cell (y, x) and a block's pixel (y, x)."""

    @classmethod
    def of(cls, images: Images, stride: int, sigma: float) -> "Pooling":
        """Create cells for images: k(d) = exp(−2 max(d / σ − ½, 0)²) of the distance d from cell to pixel."""
        margin = ceil(sigma / stride)
        cells = stride * torch.arange(-margin - 1, margin + 2)
        gaps = (torch.arange(stride) - cells[:, None]).double()
        distances = torch.hypot(gaps[:, None, :, None], gaps[None, :, None, :])
        kernel = torch.exp(-2 * (distances / sigma - 0.5).clamp(min=0) ** 2)
        height, width = images.shape[-2:]
        return cls((ceil(height / stride), ceil(width / stride)), margin, kernel.to(images))

    @property
    def image(self) -> tuple[int, int]:
        """Return the position of the image in a mask."""
        return 2 * (self.margin * self.kernel.shape[-1],)

    def masks(self, cells: Tensor) -> tuple[Tensor, Tensor]:
        """Return the masks of cells (row y x), and the sums of weights by which they were divided.

            m = Σ v exp(20 v) / Σ exp(20 v),    v = k(d) · cell, over the cells of a window

        A cell of a window outside the grid counts as 0, so its weight is 1.
        """
        outer = pad(cells, 4 * [2 * self.margin + 1])
        blocks = [count + 2 * self.margin for count in self.grid]
        sums = cells.new_zeros(self.kernel[0, 0].numel(), len(cells), *blocks)
        total = torch.zeros_like(sums)
        for down, across, kernel in self._windows():
            values = kernel * outer[:, down : down + blocks[0], across : across + blocks[1]].contiguous()
            weights = values.exp()
            sums += weights
            total += weights.mul_(values)
        total /= COLDNESS * sums
        return self._pixels(total), self._pixels(sums)

    def cells(self, cells: Tensor, masks: Tensor, sums: Tensor, gradients: Tensor) -> Tensor:
        """Propagate gradients by masks back to the cells that produced masks and sums.

        ∂m/∂v = exp(20 v) (1 + 20 (v − m)) / Σ exp(20 v)
        """
        shares = gradients / sums
        steep, fixed = self._blocks(shares), self._blocks(shares * (1 - COLDNESS * masks))
        total = cells.new_zeros(len(steep), *cells.shape)
        last = 2 * self.margin + 2
        for down, across, kernel in self._windows():
            # The blocks in whose windows the cell has this position.
            rows, columns = (slice(last - o, last - o + n) for o, n in zip((down, across), self.grid, strict=True))
            seen = (..., rows, columns)
            values = kernel * cells
            weights = values.exp()
            total += values.mul_(steep[seen]).add_(fixed[seen]).mul_(weights).mul_(kernel)
        return _added(total) / COLDNESS

    def _windows(self) -> Iterator[tuple[int, int, Tensor]]:
        """Yield the positions in a window, and 20 times the kernel there for the pixels of a block."""
        for down, across in product(range(len(self.kernel)), repeat=2):
            yield down, across, COLDNESS * self.kernel[down, across].reshape(-1, 1, 1, 1)

    def _pixels(self, blocks: Tensor) -> Tensor:
        """Rearrange values of (pixel of a block, row, block y, block x) as pixels, up to those of the last cell."""
        stride = self.kernel.shape[-1]
        parts = blocks.unflatten(0, (stride, stride)).permute(2, 3, 0, 4, 1)
        pixels = parts.reshape(len(parts), parts.shape[1] * stride, -1)
        return pixels[:, : 1 - stride or None, : 1 - stride or None]

    def _blocks(self, pixels: Tensor) -> Tensor:
        """Rearrange pixels as blocks, with an empty block on every side."""
        stride = self.kernel.shape[-1]
        whole = pad(pixels, 2 * [stride, 2 * stride - 1])
        parts = whole.unflatten(2, (-1, stride)).unflatten(1, (-1, stride))
        return parts.permute(2, 4, 0, 1, 3).flatten(0, 1).contiguous()


class Pyramid(NamedTuple):
    """Blur images by varying degrees, from the strongest Gaussian to none."""

    levels: Tensor
    """All images' values: image channel y x level."""
    places: Tensor
    """The index in them of the first level of every value of a row's image: row channel y x."""

    @classmethod
    def of(cls, classifier: Classifier, images: Images, rows: list[int]) -> "Pyramid":
        """Blur the images that rows refer to, with the classifier's mean color beyond the border."""
        known = sorted(set(rows))
        mean = classifier.mean.view(-1, 1, 1)
        sigmas = [STRONGEST * (1 - level / (LEVELS - 1)) for level in range(LEVELS)]
        weights = profiles(sigmas, max(images.shape[-2:])).to(images.device)
        levels = images.new_empty(len(known), *images.shape[1:], LEVELS)
        for batch in pairs(len(known), LEVELS, classifier.batch):
            numbers = [level for _, level in batch]
            parts = blurred(classifier, images[[known[place] for place, _ in batch]] - mean, weights[numbers]) + mean
            for (place, level), part in zip(batch, parts, strict=True):
                levels[place, ..., level] = part
        places = torch.arange(0, levels.numel(), LEVELS, device=images.device).view(levels.shape[:-1])
        return cls(levels, places[[known.index(row) for row in rows]])

    def at(self, masks: Tensor) -> tuple[Images, Images]:
        """Blur each row's image by a mask, 1 for no blur; also return the derivative by the mask's values."""
        heights = masks[:, None] * (LEVELS - 1)
        lower = heights.floor().clamp(max=LEVELS - 2)
        places = self.places + lower.long()
        first = self.levels.take(places)
        slopes = self.levels.take(places + 1) - first
        return first + (heights - lower) * slopes, slopes * (LEVELS - 1)


def largest(masks: Tensor, counts: list[int]) -> Tensor:
    """Return which pixels are among a number of a mask's largest: 1 for these, 0 for the others.

    Pixels tied for the last of these places share them evenly.
    """
    flat = masks.flatten(1)
    lowest = flat.new_empty(len(flat), 1)
    for count in set(counts):
        rows = [row for row, wanted in enumerate(counts) if wanted == count]
        lowest[rows] = flat[rows].kthvalue(flat.shape[1] - count + 1, dim=1, keepdim=True).values
    over, under = flat > lowest + TIE, flat < lowest - TIE
    tied = ~(over | under)
    left = torch.tensor(counts, device=masks.device)[:, None] - over.sum(1, keepdim=True)
    shares = (left / tied.sum(1, keepdim=True)).to(flat)
    return torch.where(tied, shares, over.to(flat)).view_as(masks)


def _added(parts: Tensor) -> Tensor:
    """Add parts one by one, elementwise: the order of a sum may depend on a row's position in the batch."""
    total = parts[0].clone()
    for part in parts[1:]:
        total += part
    return total
