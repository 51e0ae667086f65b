"""Fill in removed pixels by linear imputation: all of them at once, many images together."""

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import conv2d, pad

from stages.arrays import Images, Masks
from stages.metrics._rows import by_row

# A correction that lies below this intensity everywhere is the last one: what it leaves is a third of it at most.
ERROR = 1e-5
# Ten times the steps that were ever needed.
STEPS = 100
# Values of images solved together on a CPU: they stay in its cache.
CACHED = 2**20
# Up to so many nodes in a column and in a row a system is solved by its inverse.
SMALLEST = 8
# A step of Jacobi sets x to 5/4 of what its neighbors ask for, less a quarter of x: what is rough is gone soonest.
OVER = 0.25
# Of the sum of a row's absolute numbers, what stands for the diagonal of a coarser level: its steps converge above 5/8.
SHARE = 0.65


class Level(NamedTuple):
    """One level of the pyramid of a system: x ↦ total x − others(x).

    Rows and columns of zeros follow each plane, so that its height and width are twice those of the next level. At the
    finest level `free` is 1 at removed pixels and 0 elsewhere, `others` is free B(x), where B is `_blurred`, and this is
    twelve times the system itself: all its numbers are whole, so that no rounding leans to one side, which would add
    up over wide regions. At others `free` is 1 at nodes.

    Attributes:
        free, total: [row, 1, height, width].
        step: (1 + OVER) / total, 0 where nothing is free.
        stencil: Of coarser levels the weights of `others`: of the three rows of three around each node.
        solution: What the level adds, flat.
        scratch: What is overwritten by the next step.
    """

    size: tuple[int, int]
    free: Tensor
    total: Tensor
    step: Tensor
    stencil: Tensor | None
    solution: Tensor
    scratch: tuple[Tensor, ...]


def imputed(images: Images, removed: Masks) -> Images:
    """Make every removed pixel the weighted mean of its neighbors, removed ones among them.

        Σ_j w_ij (x_i − x_j) = 0 for every removed pixel i

    over the neighbors j inside the image: w is 1/6 beside, above and below, 1/12 across a corner. At least one pixel
    of each image must be left.

    The system is symmetric and positive definite: conjugate gradients solve it, from the middle between the lowest and
    the highest intensity left, preconditioned by a multigrid cycle, since what is removed may be wider than a hundred
    pixels. Rows are added and multiplied element by element, also in their sums (`_sum`), or taken one by one, and what
    is found of a row is not changed any more, so that no row can know its company.
    """
    together = len(images) if images.is_cuda else max(1, CACHED // images[0].numel())
    parts = zip(images.split(together), removed[:, None].split(together), strict=True)
    return torch.cat([_solved(*part) for part in parts])


def _solved(images: Tensor, removed: Tensor) -> Tensor:
    low = images.masked_fill(removed, torch.inf).amin(dim=(2, 3), keepdim=True)
    high = images.masked_fill(removed, -torch.inf).amax(dim=(2, 3), keepdim=True)
    middle = (low + high) / 2
    levels = _pyramid(removed.to(images.dtype), images.shape[1])
    finest, (height, width) = levels[0], images.shape[2:]
    flat = torch.zeros_like(finest.solution)
    direction = _planes(flat, finest.free)
    direction[..., :height, :width] = (images - middle).masked_fill(removed, 0)
    residual = _others(finest, flat).clone()
    flat.zero_()
    solution, found = torch.zeros_like(residual), torch.zeros_like(residual)
    before, going = torch.ones_like(middle[:, :1]), torch.ones_like(middle[:, :1], dtype=torch.bool)
    product = _planes(finest.scratch[0], finest.free)
    for _ in range(STEPS):
        correction = _cycle(levels, residual)
        far = correction.abs().amax(dim=(1, 2, 3), keepdim=True) >= ERROR
        if not far[going].all():
            found = torch.where(going, solution + correction, found)
            going &= far
        if not going.any():
            break
        now = _sum(torch.mul(residual, correction, out=product))
        direction.mul_(now / before).add_(correction)
        changed = (finest.total * direction).sub_(_others(finest, flat))
        length = now / _sum(torch.mul(direction, changed, out=product))
        solution += torch.mul(direction, length, out=product)
        residual -= changed.mul_(length)
        before = now
    found = torch.where(going, solution, found)[..., :height, :width]
    return torch.where(removed, found + middle, images)


def _pyramid(removed: Tensor, channels: int) -> list[Level]:
    """Halve the system until few nodes are left.

    A node stands at every second pixel of every second row; between nodes the coarser level is linear, and 0 where
    nothing is free. Its system is the finer one as it acts on such images.
    """
    inside = _padded(torch.ones_like(removed[:1]))
    flat = _flat(inside, 1)
    _planes(flat, inside).copy_(inside)
    total = _blurred(flat, inside, (torch.empty_like(flat), torch.empty_like(flat))).where(inside > 0, 1).clone()
    free = _padded(removed)
    flat = _flat(free, 1)
    _planes(flat, free).copy_(free)
    weights = removed.new_tensor([1, 2, 1])
    weights = (weights[:, None] * weights).view(1, 3, 3, 1, 1)
    system = (_around(flat, free) * -weights).contiguous().view(len(free), 9, *free.shape[2:]) * free
    system[:, 4:5] += total * free
    levels = [_level(tuple(removed.shape[2:]), free, total, None, channels)]
    shrink = _kernel().to(removed)
    while True:
        system = by_row(lambda one: conv2d(one[None], shrink, stride=2, padding=1)[0], system)
        nodes = _padded(torch.ones_like(system[:, :1]))
        size = tuple(system.shape[2:])
        if max(size) <= SMALLEST:
            return [*levels, _level(size, nodes, nodes, by_row(_inverse, system), channels)]
        total = SHARE * sum(system.abs().unbind(dim=1))[:, None]
        others = -system
        others[:, 4:5] += total
        others, total = _padded(others), _padded(total)
        levels.append(_level(size, (total > 0).to(total.dtype), total, others.view(len(free), 3, 3, 1, -1), channels))


def _level(size: tuple[int, int], free: Tensor, total: Tensor, stencil: Tensor | None, channels: int) -> Level:
    step = torch.where(free > 0, (1 + OVER) / total, 0)
    flat = _flat(free, channels)
    if stencil is None:
        scratch = torch.empty_like(flat), torch.empty_like(flat)
    else:
        scratch = (flat.new_empty(len(free), 3, 3, channels, free[0].numel()),)
    return Level(size, free, total, step, stencil, flat, scratch)


def _kernel() -> Tensor:
    """Give the weights [to, from, 3, 3] by which the numbers of a system around pixels make those around a node.

    Of one dimension: Σ_i p(i) a_o(i) p(i + o − 2d), where p is 1 at a node and 1/2 beside it, a_o(i) is the system's
    number from pixel i to i + o, and d leads to the other node.
    """
    i, near = torch.arange(-1, 2), torch.arange(-1, 2)
    other = i + near[:, None] - 2 * near[:, None, None]
    line = (1 - i.abs() / 2) * (1 - other.abs() / 2).clamp(min=0)
    return torch.einsum("doi,eqj->deoqij", line, line).reshape(9, 9, 3, 3)


def _inverse(system: Tensor) -> Tensor:
    """Write a system in full and invert it; a node with nothing free around it is left alone."""
    height, width = system.shape[1:]
    nodes = height * width
    unit = torch.eye(nodes, dtype=system.dtype, device=system.device).view(1, nodes, height, width)
    unit = _padded(unit)
    flat = _flat(unit, nodes)
    _planes(flat, unit).copy_(unit)
    moved = (_around(flat, unit)[0] * _padded(system[None]).view(3, 3, 1, -1)).sum(dim=(0, 1))
    full = moved.view_as(unit)[0, :, :height, :width].reshape(nodes, nodes)
    return torch.linalg.inv(full + torch.diag(full.diagonal() == 0))


def _cycle(levels: list[Level], residual: Tensor) -> Tensor:
    """Solve roughly: a step of Jacobi from 0, the coarser level's correction, and a step again.

    A step sets x to (1 + OVER) (residual + others(x)) / total − OVER x.
    """
    level, coarser = levels[0], levels[1:]
    solution = _planes(level.solution, level.free)
    if not coarser:
        height, width = level.size
        given = residual[..., :height, :width].flatten(2)
        solution[..., :height, :width] = by_row(torch.matmul, given, level.stencil).unflatten(2, level.size)
        return solution
    torch.mul(residual, level.step, out=solution)
    left = _others(level, level.solution).sub_(residual, alpha=OVER)
    _spread(_cycle(coarser, _gathered(left, coarser[0])), coarser[0], solution, level.free)
    again = _others(level, level.solution).add_(residual).mul_(level.step)
    return torch.sub(again, solution, alpha=OVER, out=solution)


def _gathered(x: Tensor, level: Level) -> Tensor:
    """Weigh pixels by how much each node of a level is in them."""
    half = torch.add(x[:, :, ::2], x[:, :, 1::2], alpha=0.5)
    half[:, :, 1:].add_(x[:, :, 1:-1:2], alpha=0.5)
    (height, width), found = level.size, x.new_zeros(*x.shape[:2], *level.free.shape[2:])
    inside = found[:, :, :height, :width]
    torch.add(half[..., ::2], half[..., 1::2], alpha=0.5, out=inside)
    inside[..., 1:].add_(half[..., 1:-1:2], alpha=0.5)
    return found


def _spread(x: Tensor, level: Level, to: Tensor, free: Tensor) -> None:
    """Add what nodes of a level say to the free pixels of a finer one: the transpose of `_gathered`."""
    height, width = level.size
    x = x[:, :, : height + 1, : width + 1]
    twice = x.new_empty(*x.shape[:3], 2 * width)
    torch.add(x[..., :-1], x[..., :-1], out=twice[..., ::2])
    torch.add(x[..., :-1], x[..., 1:], out=twice[..., 1::2])
    to[:, :, ::2].add_(twice[:, :, :-1] * free[:, :, ::2], alpha=0.5)
    to[:, :, 1::2].add_((twice[:, :, :-1] + twice[:, :, 1:]).mul_(free[:, :, 1::2]), alpha=0.25)


def _others(level: Level, flat: Tensor) -> Tensor:
    if level.stencil is None:
        return _blurred(flat, level.free, level.scratch).mul_(level.free)
    terms = torch.mul(_around(flat, level.free), level.stencil, out=level.scratch[0]).flatten(1, 2)
    half = terms[:, :4].add_(terms[:, 4:8])
    half = half[:, :2].add_(half[:, 2:])
    return half[:, 0].add_(half[:, 1]).add_(terms[:, 8]).unflatten(2, level.free.shape[2:])


def _blurred(flat: Tensor, like: Tensor, scratch: tuple[Tensor, Tensor]) -> Tensor:
    """Convolve with [1 2 1; 2 4 2; 1 2 1]: twelve times the weights of the neighbors, and 4 at the pixel itself."""
    given, (to, other), left = flat, scratch, flat.shape[1]
    for apart in (1, 1, like.shape[3], like.shape[3]):
        left -= apart
        torch.add(given[:, :left], given[:, apart : left + apart], out=to[:, :left])
        given, to, other = to, other, to
    return given[:, :left].unflatten(1, (-1, *like.shape[2:]))


def _padded(x: Tensor) -> Tensor:
    height, width = x.shape[2:]
    return pad(x, (0, 2 - width % 2, 0, 2 - height % 2))


def _flat(like: Tensor, channels: int) -> Tensor:
    """Make planes of zeros, one after the other, with zeros before and after: neighbors are at fixed distances."""
    rows, (height, width) = len(like), like.shape[2:]
    return like.new_zeros(rows, channels * height * width + 2 * (width + 1))


def _planes(flat: Tensor, like: Tensor) -> Tensor:
    margin = like.shape[3] + 1
    return flat[:, margin:-margin].unflatten(1, (-1, *like.shape[2:]))


def _around(flat: Tensor, like: Tensor) -> Tensor:
    """View the three rows of three around each pixel: [row, 3, 3, plane, pixel]."""
    height, width = like.shape[2:]
    pixels = height * width
    planes = (flat.shape[1] - 2 * (width + 1)) // pixels
    return flat.as_strided((len(flat), 3, 3, planes, pixels), (flat.shape[1], width, 1, pixels, 1))


def _sum(x: Tensor) -> Tensor:
    """Sum each row by halves, the second added to the first: always in the same order, whatever the number of rows.

    The numbers are overwritten.
    """
    x = x.flatten(1)
    while x.shape[1] > 1:
        half = (x.shape[1] + 1) // 2
        x[:, : x.shape[1] - half].add_(x[:, half:])
        x = x[:, :half]
    return x.clone().view(-1, 1, 1, 1)
