"""Impute removed pixels linearly: all of them at once."""

import torch
from torch import Tensor
from torch.nn.functional import conv2d, pad

from atlas.metrics.shared.rows import by_row
from atlas.model.arrays import Images, Masks
from atlas.model.batches import summed

# A correction below this intensity everywhere is the last one: the remaining error is at most a third of it.
ERROR = 1e-5
# Ten times as many steps as were ever needed.
STEPS = 100
# A system with at most this many nodes per row and column is inverted directly.
SMALLEST = 8
# Replaces a node's total, as a share of its row's absolute sum: iterations converge above 1/2.
SHARE = 0.55
# Twelve times the weights of the eight neighbors, and 4 for the pixel itself.
KINDS = 1, 2, 1, 2, 4, 2, 1, 2, 1
# Added to the diagonal of the last system, as a share: with fewer free pixels than nodes it is singular.
LITTLE = 1e-5
# Number of image values solved together on a CPU, so that they stay in its cache.
CACHED = 2**19
# Numbers in 64 bytes of memory.
ALIGNED = 16


def imputed(images: Images, removed: Masks) -> Images:
    """Replace every removed pixel by the weighted mean of its neighbors, including removed ones.

        Σ_j w_ij (x_i − x_j) = 0 for every removed pixel i

    over the neighbors j inside the image: w is 1/6 horizontally and vertically, 1/12 diagonally. At least one pixel of
    each image must be kept.

    The system is symmetric and positive definite. It is solved by conjugate gradients, starting at the middle of the
    lowest and the highest remaining intensity, and preconditioned by a multigrid cycle, since removed regions may be
    more than a hundred pixels wide. No row depends on the others of its batch: all operations are elementwise, except
    sums and matrix products within a row, and a converged row does not change any more.
    """
    together = len(images) if images.is_cuda else max(1, CACHED // images[0].numel())
    parts = zip(images.split(together), removed[:, None].split(together), strict=True)
    return torch.cat([_solved(*part) for part in parts])


def _solved(images: Tensor, removed: Tensor) -> Tensor:
    low = images.masked_fill(removed, torch.inf).amin(dim=(2, 3), keepdim=True)
    high = images.masked_fill(removed, -torch.inf).amax(dim=(2, 3), keepdim=True)
    middle = (low + high) / 2
    levels = _pyramid(removed.to(images.dtype), images)
    finest, residual, (height, width) = levels[0], levels[0].residual, images.shape[2:]
    direction = Field(images, *finest.free.shape[2:])
    direction.planes[..., :height, :width] = (images - middle).masked_fill(removed, 0)
    torch.mul(finest.blurred(direction), finest.free, out=residual)
    direction.planes.zero_()
    solution = found = torch.zeros_like(residual)
    before, going = torch.ones_like(middle[:, :1]), torch.ones_like(middle[:, :1], dtype=torch.bool)
    for _ in range(STEPS):
        correction = _cycle(levels)
        close = torch.abs(correction, out=finest.made).amax(dim=(1, 2, 3), keepdim=True) < ERROR
        if (going & close).any():
            found = torch.where(going, solution + correction, found)
            going &= ~close
        if not going.any():
            break
        now = _dots(residual, correction)
        torch.addcmul(correction, direction.planes, now / before, out=direction.planes)
        # The negative of the system's product. Outside of free pixels it has other values, which are not used.
        changed = finest.blurred(direction).addcmul_(finest.total, direction.planes, value=-1)
        length = now / _dots(direction.planes, changed)
        solution.addcmul_(direction.planes, length, value=-1)
        residual.addcmul_(changed, length, value=-1)
        before = now
    found = torch.where(going, solution, found)[..., :height, :width]
    return torch.where(removed, found + middle, images)


class Field:
    """Store planes one after the other, so that neighbors lie at fixed distances, with zeros before and after them."""

    def __init__(self, images: Tensor, height: int, width: int):
        rows, channels = images.shape[:2]
        margin, numbers = -(-(width + 1) // ALIGNED) * ALIGNED, channels * height * width
        flat = _room(images, numbers + 2 * margin)
        shape, strides = (rows, channels, height, width), (flat.stride(0), height * width, width, 1)
        shifts = [down * width + across for down in (-1, 0, 1) for across in (-1, 0, 1)]
        self.around = [flat.as_strided(shape, strides, margin + shift) for shift in shifts]
        self.planes = self.around[4]
        self.reach = flat[:, margin - width - 1 : margin + numbers + width + 1]


class Level:
    """One level of the multigrid pyramid of a system, x ↦ total x − others(x), with all of its memory.

    Planes end in rows and columns of zeros, so that their height and width are twice those of the next level. At the
    finest level `free` is 1 at removed pixels and 0 elsewhere, others(x) is free blurred(x), and the system is
    multiplied by twelve: then all its numbers are whole, so that rounding has no bias, which would add up over wide
    regions. At other levels `free` is 1 at nodes. The last level has an inverse instead.
    """

    def __init__(self, size: tuple[int, int], images: Tensor, *, finest: bool):
        self.size, self.finest, (height, width) = size, finest, _even(size)
        self.x, self.inverse = Field(images, height, width), torch.zeros(0)
        shape = self.x.planes.shape
        self.residual = _room(images, shape[1:].numel()).view(shape)
        self.free, self.total, self.step = images.new_zeros(3, len(images), 1, height, width)
        self.weights = images.new_zeros(0 if finest else len(images), 9, height, width)
        self._scratch = [_room(images, self.x.reach.shape[1]) for _ in range(2)]
        # Output of `others` and `blurred`, and scratch memory.
        self.made, other = (part[:, : shape[1:].numel()].view(shape) for part in self._scratch)
        self.half = other[:, :, : height // 2]

    def set(self, free: Tensor, total: Tensor) -> None:
        """Set the free pixels of a system, and its total."""
        self.free.copy_(free)
        self.total.copy_(total)
        self.step = torch.where(free > 0, 1 / total, 0)

    def others(self) -> Tensor:
        """Return the weighted sum of the neighbors in x; at the finest level also where nothing is free."""
        if self.finest:
            return self.blurred(self.x)
        found = torch.mul(self.x.around[0], self.weights[:, :1], out=self.made)
        for place in range(1, 9):
            found.addcmul_(self.x.around[place], self.weights[:, place : place + 1])
        return found

    def blurred(self, x: Field) -> Tensor:
        """Convolve with [1 2 1; 2 4 2; 1 2 1]: twelve times the weights of the neighbors, and 4 at the pixel itself.

        The previous result is overwritten.
        """
        given, (other, to), left = x.reach, self._scratch, x.reach.shape[1]
        for apart in (1, 1, self.free.shape[3], self.free.shape[3]):
            left -= apart
            torch.add(given[:, :left], given[:, apart : left + apart], out=to[:, :left])
            given, to, other = to, other, to
        return self.made


def _pyramid(removed: Tensor, images: Tensor) -> list[Level]:
    """Make the levels of a system, until few nodes are left.

    There is a node at every second pixel of every second row. A coarser level interpolates linearly between nodes, and
    is 0 where nothing is free; its system is the finer one restricted to such images (Galerkin).
    """
    sizes = [(images.shape[2], images.shape[3])]
    while len(sizes) == 1 or max(sizes[-1]) > SMALLEST:
        sizes.append((sizes[-1][0] // 2 + 1, sizes[-1][1] // 2 + 1))
    levels = [Level(size, images, finest=size is sizes[0]) for size in sizes]
    finest, free = levels[0], _padded(removed)
    inside = _around(_padded(torch.ones_like(removed[:1])))
    finest.set(free, summed(near * kind for near, kind in zip(inside, KINDS, strict=True)))
    weights = {kind: free * -kind for kind in (1, 2, 4)}
    system = free.new_empty(len(free), 9, *free.shape[2:])
    for place, (near, kind) in enumerate(zip(_around(free), KINDS, strict=True)):
        torch.mul(near, weights[kind], out=system[:, place : place + 1])
    system[:, 4:5] += finest.total * free
    shrink = _shrink().to(removed)
    for level in levels[1:]:
        system = by_row(lambda one: conv2d(one[None], shrink, stride=2, padding=1)[0], system)
        if level is levels[-1]:
            level.inverse = by_row(_inverse, system)
            break
        total = SHARE * summed(system.abs().unbind(dim=1))[:, None]
        others = -system
        others[:, 4:5] += total
        level.set(_padded((total > 0).to(total)), _padded(total))
        level.weights.copy_(_padded(others))
        system = _padded(system)
    return levels


def _shrink() -> Tensor:
    """Return the weights [to, from, 3, 3] that turn the numbers of a system around pixels into those around a node.

    In one dimension: Σ_i p(i) a_o(i) p(i + o − 2d), where p is 1 at a node and 1/2 beside it, a_o(i) is the system's
    number from pixel i to i + o, and d is the offset of the other node.
    """
    near = torch.arange(-1, 2)
    far = near + near[:, None] - 2 * near[:, None, None]
    line = (1 - near.abs() / 2) * (1 - far.abs() / 2).clamp(min=0)
    return torch.einsum("doi,eqj->deoqij", line, line).reshape(9, 9, 3, 3)


def _inverse(system: Tensor) -> Tensor:
    """Write a system as a full matrix and invert it; a small diagonal term determines nodes without free pixels."""
    height, width = system.shape[1:]
    nodes = height * width
    unit = _padded(torch.eye(nodes).to(system).view(1, nodes, height, width))
    moved = summed(near * weights for near, weights in zip(_around(unit), _padded(system[None])[0], strict=True))
    full = moved[0, :, :height, :width].reshape(nodes, nodes).double()
    full.diagonal().mul_(1 + LITTLE).add_(LITTLE)
    return torch.linalg.inv(full).to(system)


def _cycle(levels: list[Level]) -> Tensor:
    """Solve approximately for the residual: a Jacobi step from 0, the coarser level's correction, another Jacobi step.

    A step sets x to (residual + others(x)) / total.
    """
    level, coarser = levels[0], levels[1:]
    x, residual, (height, width) = level.x.planes, level.residual, level.size
    if not coarser:
        given = residual[..., :height, :width].flatten(2)
        x[..., :height, :width] = by_row(torch.matmul, given, level.inverse).view(*x.shape[:2], height, width)
        return x
    torch.mul(residual, level.step, out=x)
    level.others().mul_(level.free)
    _gather(level, coarser[0])
    _cycle(coarser)
    _spread(coarser[0], level)
    return torch.mul(level.others().add_(residual), level.step, out=x)


def _gather(level: Level, to: Level) -> None:
    """Restrict: sum values at pixels, weighted by their share in each node."""
    height, width = to.size
    given, found = level.made, to.residual[:, :, :height, :width]
    half = torch.add(given[:, :, ::2], given[:, :, 1::2], alpha=0.5, out=level.half)
    half[:, :, 1:].add_(given[:, :, 1:-1:2], alpha=0.5)
    torch.add(half[..., ::2], half[..., 1::2], alpha=0.5, out=found)
    found[..., 1:].add_(half[..., 1:-1:2], alpha=0.5)


def _spread(level: Level, to: Level) -> None:
    """Prolongate: add the values of nodes to free pixels, the transpose of `_gather`."""
    height, width = level.size
    x = level.x.planes[:, :, : height + 1, : width + 1]
    twice = to.made[:, :, : height + 1]
    torch.add(x[..., :-1], x[..., :-1], out=twice[..., ::2])
    torch.add(x[..., :-1], x[..., 1:], out=twice[..., 1::2])
    above, below = twice[:, :, :-1], twice[:, :, 1:]
    to.x.planes[:, :, ::2].addcmul_(above, to.free[:, :, ::2], value=0.5)
    to.x.planes[:, :, 1::2].addcmul_(torch.add(above, below, out=to.half), to.free[:, :, 1::2], value=0.25)


def _around(planes: Tensor) -> list[Tensor]:
    """Return planes shifted by a pixel in each direction, in rows of three."""
    field = Field(planes, *planes.shape[2:])
    field.planes.copy_(planes)
    return field.around


def _room(images: Tensor, numbers: int) -> Tensor:
    """Allocate rows of zeros, aligned so that products are summed in the same order in each."""
    return images.new_zeros(len(images), -(-numbers // ALIGNED) * ALIGNED)[:, :numbers]


def _even(size: tuple[int, int]) -> tuple[int, int]:
    return size[0] // 2 * 2 + 2, size[1] // 2 * 2 + 2


def _padded(x: Tensor) -> Tensor:
    height, width = x.shape[2:]
    return pad(x, (0, 2 - width % 2, 0, 2 - height % 2))


def _dots(one: Tensor, other: Tensor) -> Tensor:
    rows = zip(one.flatten(1), other.flatten(1), strict=True)
    return torch.stack([torch.dot(*row) for row in rows]).view(-1, 1, 1, 1)
