"""Fill in removed pixels by linear imputation: all of them at once."""

import torch
from torch import Tensor
from torch.nn.functional import conv2d, pad

from stages.arrays import Images, Masks
from stages.metrics._rows import by_row

# A correction that lies below this intensity everywhere is the last: what it leaves is a third of it at most.
ERROR = 1e-5
# Ten times the steps that were ever needed.
STEPS = 100
# A system of no more nodes than this in a row and in a column is inverted.
SMALLEST = 8
# A step sets x to 5/4 of what the neighbors ask for less 1/4 of x: what changes from pixel to pixel is gone soonest.
OVER = 0.25
# What stands for a node's total, as a share of its row's absolute numbers: steps converge where it is above 5/8.
SHARE = 0.65
# What is added to the diagonal of the last system, as a share: where fewer pixels than nodes are free it has no inverse.
LITTLE = 1e-5


def imputed(images: Images, removed: Masks) -> Images:
    """Make every removed pixel the weighted mean of its neighbors, removed ones among them.

        Σ_j w_ij (x_i − x_j) = 0 for every removed pixel i

    over the neighbors j inside the image: w is 1/6 beside, above and below, 1/12 across a corner. At least one pixel
    of each image must be left.

    The system is symmetric and positive definite: conjugate gradients solve it, from the middle between the lowest and
    the highest intensity left, preconditioned by a multigrid cycle, since what is removed may be wider than a hundred
    pixels. No row knows its company: on a CPU, where one image fills the cache, each is solved alone. On CUDA all are
    solved together, element by element but for sums and matrices, which are of one row each; what is found of a row
    does not change any more.
    """
    together = len(images) if images.is_cuda else 1
    parts = zip(images.split(together), removed[:, None].split(together), strict=True)
    return torch.cat([_solved(*part) for part in parts])


def _solved(images: Tensor, removed: Tensor) -> Tensor:
    low = images.masked_fill(removed, torch.inf).amin(dim=(2, 3), keepdim=True)
    high = images.masked_fill(removed, -torch.inf).amax(dim=(2, 3), keepdim=True)
    middle = (low + high) / 2
    levels = _pyramid(removed.to(images.dtype), images.shape[1])
    finest, (height, width) = levels[0], images.shape[2:]
    direction = Field(finest.free, images.shape[1])
    direction.planes[..., :height, :width] = (images - middle).masked_fill(removed, 0)
    residual = finest.free * finest.blurred(direction)
    direction.planes.zero_()
    solution, found = torch.zeros_like(residual), torch.zeros_like(residual)
    before, going = torch.ones_like(middle[:, :1]), torch.ones_like(middle[:, :1], dtype=torch.bool)
    for _ in range(STEPS):
        correction = _cycle(levels, residual)
        close = correction.abs().amax(dim=(1, 2, 3), keepdim=True) < ERROR
        if (going & close).any():
            found = torch.where(going, solution + correction, found)
            going &= ~close
        if not going.any():
            break
        now = _dots(residual, correction)
        torch.addcmul(correction, direction.planes, now / before, out=direction.planes)
        # Outside of what is free this is not the system's, and nothing looks at it there.
        changed = finest.blurred(direction).neg_().addcmul_(finest.total, direction.planes)
        length = now / _dots(direction.planes, changed)
        solution.addcmul_(direction.planes, length)
        residual.addcmul_(changed, length, value=-1)
        before = now
    found = torch.where(going, solution, found)[..., :height, :width]
    return torch.where(removed, found + middle, images)


class Field:
    """Hold planes one after the other, so that neighbors lie at fixed distances, with zeros before and after them."""

    def __init__(self, like: Tensor, channels: int = 1):
        height, width = like.shape[2:]
        # In every row of memory, a row begins at a multiple of 16 numbers.
        margin = -(-(width + 1) // 16) * 16
        length = -(-channels * height * width // 16) * 16
        self.flat = like.new_zeros(len(like), length + 2 * margin)
        self.reach = self.flat[:, margin - width - 1 :][:, : channels * height * width + 2 * (width + 1)]
        self.planes = self._planes(0, like, channels, margin)
        shifts = [down * width + across for down in (-1, 0, 1) for across in (-1, 0, 1)]
        self.around = [self._planes(shift, like, channels, margin) for shift in shifts]

    def fill(self, planes: Tensor) -> "Field":
        """Set the planes."""
        self.planes.copy_(planes)
        return self

    def _planes(self, shift: int, like: Tensor, channels: int, margin: int) -> Tensor:
        shape = (len(like), channels, *like.shape[2:])
        strides = (self.flat.shape[1], shape[2] * shape[3], shape[3], 1)
        return self.flat.as_strided(shape, strides, margin + shift)


class Level:
    """Own one level of the pyramid of a system: x ↦ total x − others(x).

    Planes end in rows and columns of zeros, so that their height and width are twice those of the next level. At the
    finest level `free` is 1 at removed pixels and 0 elsewhere, others(x) is free blurred(x), and this is twelve times
    the system itself: all its numbers are whole, so that no rounding leans to one side, which would add up over wide
    regions. At others `free` is 1 at nodes.
    """

    def __init__(self, size: tuple[int, int], free: Tensor, total: Tensor, weights: Tensor | None, channels: int):
        self.size, self.free, self.total = size, free, total
        self.step = torch.where(free > 0, (1 + OVER) / total, 0)
        self.weights = [] if weights is None else weights.split(1, dim=1)
        self.x = Field(free, channels)
        self.residual = torch.zeros_like(self.x.planes, memory_format=torch.contiguous_format)
        self._scratch = torch.empty_like(self.x.reach), torch.empty_like(self.x.reach)

    def others(self) -> Tensor:
        """Weigh what is around in x, at the finest level also where nothing is free."""
        if not self.weights:
            return self.blurred(self.x)
        found = torch.mul(self.x.around[0], self.weights[0])
        for near, weights in zip(self.x.around[1:], self.weights[1:], strict=True):
            found.addcmul_(near, weights)
        return found

    def blurred(self, x: Field) -> Tensor:
        """Convolve with [1 2 1; 2 4 2; 1 2 1]: twelve times the weights of the neighbors, and 4 at the pixel itself.

        What was found before is overwritten.
        """
        given, (to, other), left = x.reach, self._scratch, x.reach.shape[1]
        for apart in (1, 1, self.free.shape[3], self.free.shape[3]):
            left -= apart
            torch.add(given[:, :left], given[:, apart : left + apart], out=to[:, :left])
            given, to, other = to, other, to
        return given[:, :left].view(x.planes.shape)


class Last:
    """Own the last level: its system's inverse."""

    def __init__(self, size: tuple[int, int], system: Tensor, channels: int):
        self.size, self.x = size, Field(_padded(system[:, :1]), channels)
        self.residual = torch.zeros_like(self.x.planes, memory_format=torch.contiguous_format)
        self.inverse = by_row(_inverse, system)


def _pyramid(removed: Tensor, channels: int) -> list[Level | Last]:
    """Halve the system until few nodes are left.

    A node stands at every second pixel of every second row; between nodes the coarser level is linear, and 0 where
    nothing is free. Its system is the finer one as it acts on such images.
    """
    size, free, shrink = tuple(removed.shape[2:]), _padded(removed), _shrink().to(removed)
    inside = _padded(torch.ones_like(removed))
    kinds = 1, 2, 1, 2, 4, 2, 1, 2, 1
    total = sum(near * weight for near, weight in zip(Field(inside).fill(inside).around, kinds, strict=True))
    around = Field(free).fill(free).around
    system = torch.cat([near * free * -weight for near, weight in zip(around, kinds, strict=True)], dim=1)
    system[:, 4:5] += total * free
    levels = [Level(size, free, total, None, channels)]
    while True:
        system = by_row(lambda one: conv2d(one[None], shrink, stride=2, padding=1)[0], system)
        size = tuple(system.shape[2:])
        if max(size) <= SMALLEST:
            return [*levels, Last(size, system, channels)]
        total = SHARE * sum(system.abs().unbind(dim=1))[:, None]
        weights = -system
        weights[:, 4:5] += total
        system = _padded(system)
        levels.append(Level(size, _padded((total > 0).to(total)), _padded(total), _padded(weights), channels))


def _shrink() -> Tensor:
    """Give the weights [to, from, 3, 3] by which the numbers of a system around pixels make those around a node.

    Of one dimension: Σ_i p(i) a_o(i) p(i + o − 2d), where p is 1 at a node and 1/2 beside it, a_o(i) is the system's
    number from pixel i to i + o, and d leads to the other node.
    """
    near = torch.arange(-1, 2)
    far = near + near[:, None] - 2 * near[:, None, None]
    line = (1 - near.abs() / 2) * (1 - far.abs() / 2).clamp(min=0)
    return torch.einsum("doi,eqj->deoqij", line, line).reshape(9, 9, 3, 3)


def _inverse(system: Tensor) -> Tensor:
    """Write a system in full and invert it; what no pixel says of the nodes, a little more of each decides."""
    height, width = system.shape[1:]
    nodes = height * width
    unit = _padded(torch.eye(nodes).to(system).view(1, nodes, height, width))
    around = Field(unit, nodes).fill(unit).around
    moved = sum(near * weights for near, weights in zip(around, _padded(system[None])[0], strict=True))
    full = moved[0, :, :height, :width].reshape(nodes, nodes).double()
    full.diagonal().mul_(1 + LITTLE).add_(LITTLE)
    return torch.linalg.inv(full).to(system)


def _cycle(levels: list[Level | Last], residual: Tensor) -> Tensor:
    """Solve roughly: a step of Jacobi from 0, the coarser level's correction, and a step again.

    A step sets x to (1 + OVER) (residual + others(x)) / total − OVER x.
    """
    level, coarser = levels[0], levels[1:]
    x = level.x.planes
    if not coarser:
        height, width = level.size
        given = residual[..., :height, :width].flatten(2)
        x[..., :height, :width] = by_row(torch.matmul, given, level.inverse).view(*x.shape[:2], height, width)
        return x
    torch.mul(residual, level.step, out=x)
    _gather(level.others().sub_(residual, alpha=OVER).mul_(level.free), coarser[0])
    _cycle(coarser, coarser[0].residual)
    _spread(coarser[0], level)
    again = level.others().add_(residual)
    return x.mul_(-OVER).addcmul_(again, level.step)


def _gather(left: Tensor, to: Level | Last) -> None:
    """Weigh what is left at pixels by how much each node is in them."""
    half = torch.add(left[:, :, ::2], left[:, :, 1::2], alpha=0.5)
    half[:, :, 1:].add_(left[:, :, 1:-1:2], alpha=0.5)
    height, width = to.size
    found = to.residual[:, :, :height, :width]
    torch.add(half[..., ::2], half[..., 1::2], alpha=0.5, out=found)
    found[..., 1:].add_(half[..., 1:-1:2], alpha=0.5)


def _spread(level: Level | Last, to: Level) -> None:
    """Add to free pixels what nodes say of them: the transpose of `_gather`."""
    height, width = level.size
    x = level.x.planes[:, :, : height + 1, : width + 1]
    twice = x.new_empty(*x.shape[:3], 2 * width)
    torch.add(x[..., :-1], x[..., :-1], out=twice[..., ::2])
    torch.add(x[..., :-1], x[..., 1:], out=twice[..., 1::2])
    above, below = twice[:, :, :-1], twice[:, :, 1:]
    to.x.planes[:, :, ::2].addcmul_(above, to.free[:, :, ::2], value=0.5)
    to.x.planes[:, :, 1::2].addcmul_(above + below, to.free[:, :, 1::2], value=0.25)


def _padded(x: Tensor) -> Tensor:
    height, width = x.shape[2:]
    return pad(x, (0, 2 - width % 2, 0, 2 - height % 2))


def _dots(one: Tensor, other: Tensor) -> Tensor:
    rows = zip(one.flatten(1), other.flatten(1), strict=True)
    return torch.stack([torch.dot(*row) for row in rows]).view(-1, 1, 1, 1)
