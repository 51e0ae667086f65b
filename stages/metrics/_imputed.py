"""Fill in removed pixels by linear imputation: all of them at once, many images together."""

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import pad

from stages.arrays import Images, Masks

# A solution is found where its estimated error lies below this intensity everywhere.
ERROR = 1e-5
# Ten times the steps that were ever needed.
STEPS = 200
# Values of images solved together on a CPU: they stay in its cache.
CACHED = 2**19


class Level(NamedTuple):
    """One level of the pyramid of a system: x ↦ total x − free B(free x), where B is `_blurred`.

    At the finest level `free` is 1 at removed pixels and 0 elsewhere, and this is twelve times the system itself: all
    its numbers are whole, so that no rounding leans to one side, which would add up over wide regions.
    """

    free: Tensor
    total: Tensor
    inverse: Tensor


def imputed(images: Images, removed: Masks) -> Images:
    """Make every removed pixel the weighted mean of its neighbors, removed ones among them.

        Σ_j w_ij (x_i − x_j) = 0 for every removed pixel i

    over the neighbors j inside the image: w is 1/6 beside, above and below, 1/12 across a corner. At least one pixel
    of each image must be left.

    The system is symmetric and positive definite: conjugate gradients solve it, from the middle between the lowest and
    the highest intensity left, preconditioned by a multigrid cycle, since what is removed may be wider than a hundred
    pixels. Rows are added and multiplied element by element, also in their sums (`_sum`), and a row that is found takes
    no further part, so that no row can know its company.
    """
    together = len(images) if images.is_cuda else max(1, CACHED // images[0].numel())
    parts = zip(images.split(together), removed[:, None].split(together), strict=True)
    return torch.cat([_solved(*part) for part in parts])


def _solved(images: Tensor, removed: Tensor) -> Tensor:
    low = images.masked_fill(removed, torch.inf).amin(dim=(2, 3), keepdim=True)
    high = images.masked_fill(removed, -torch.inf).amax(dim=(2, 3), keepdim=True)
    middle = (low + high) / 2
    found, rows = middle.expand_as(images).clone(), torch.arange(len(images), device=images.device)
    levels = _pyramid(removed.to(images.dtype))
    residual = levels[0].free * _blurred((images - middle).masked_fill(removed, 0))
    solution = direction = torch.zeros_like(images)
    before = torch.ones_like(middle[:, :1])
    for _ in range(STEPS):
        correction = _cycle(levels, residual)
        going = correction.abs().amax(dim=(1, 2, 3)) >= ERROR
        if not going.all():
            found[rows[~going]] += (solution + correction)[~going]
            state = (rows, solution, direction, residual, correction, before)
            rows, solution, direction, residual, correction, before = (part[going] for part in state)
            levels = [Level(*(part[going] for part in level)) for level in levels]
        if not len(rows):
            break
        now = _sum(residual * correction)
        direction = correction + direction * (now / before)
        changed = levels[0].total * direction - levels[0].free * _blurred(direction)
        length = now / _sum(direction * changed)
        solution, residual, before = solution + length * direction, residual - length * changed, now
    found[rows] += solution
    return torch.where(removed, found, images)


def _pyramid(removed: Tensor) -> list[Level]:
    """Halve the system until one pixel is left.

    Of four pixels the coarser level has the mean of what is free and the sum of the weights to pixels that are not:
    with these a slope costs as much as before, and so does a constant.
    """
    free, levels = removed, []
    held = free * (_blurred(torch.ones_like(free)) - _blurred(free))
    while True:
        total = held + free * _blurred(free)
        last = free.shape[2:] == (1, 1)
        diagonal = held if last else total
        levels.append(Level(free, total, torch.where(diagonal > 0, 1 / diagonal, 0)))
        if last:
            return levels
        free, held = _blocks(free) / 4, _blocks(held)


def _cycle(levels: list[Level], residual: Tensor) -> Tensor:
    """Solve roughly: a step of damped Jacobi from 0, the coarser level's correction, and a step again.

    A step sets x to (residual + free B(free x)) / total.
    """
    finest, coarser = levels[0], levels[1:]
    solution = finest.inverse * residual
    if not coarser:
        return solution
    left = finest.free * _blurred(finest.free * solution)
    solution = solution + _spread(_cycle(coarser, _blocks(left)), solution)
    return finest.inverse * (residual + finest.free * _blurred(finest.free * solution))


def _blurred(x: Tensor) -> Tensor:
    """Convolve with [1 2 1; 2 4 2; 1 2 1]: twelve times the weights of the neighbors, and 4 at the pixel itself."""
    x = pad(x, (1, 1, 1, 1))
    for _ in range(2):
        x = x[..., :-1] + x[..., 1:]
        x = x[..., :-1, :] + x[..., 1:, :]
    return x


def _blocks(x: Tensor) -> Tensor:
    """Sum blocks of 2 x 2 pixels."""
    odd = (0, x.shape[3] % 2, 0, x.shape[2] % 2)
    x = pad(x, odd) if any(odd) else x
    x = x[..., ::2] + x[..., 1::2]
    return x[..., ::2, :] + x[..., 1::2, :]


def _spread(x: Tensor, like: Tensor) -> Tensor:
    rows, channels, height, width = x.shape
    wide = x[:, :, :, None, :, None].expand(-1, -1, -1, 2, -1, 2).reshape(rows, channels, 2 * height, 2 * width)
    return wide[..., : like.shape[2], : like.shape[3]]


def _sum(x: Tensor) -> Tensor:
    """Sum each row by halves, the second added to the first: always in the same order, whatever the number of rows."""
    x = x.flatten(1)
    while x.shape[1] > 1:
        x = pad(x, (0, 1)) if x.shape[1] % 2 else x
        half = x.shape[1] // 2
        x = x[:, :half] + x[:, half:]
    return x.view(-1, 1, 1, 1)
