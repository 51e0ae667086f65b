"""Draw images of a background set, and points on the lines from them to the explained images."""

from torch import Tensor

from atlas.model.arrays import Background, Images, Seeds
from atlas.study import seeds as draws
from atlas.study.errors import UserError


class BackgroundLines:
    """A row's draws, from its own seed: of background images, with replacement, and of positions on the lines.

    Raises:
        UserError: there is no background image.
    """

    def __init__(self, images: Images, seeds: Seeds, background: Background, samples: int):
        if not len(background):
            raise UserError("it draws from the background set, which has no image (`background` of the selection)")
        self._images, self._background = images, background
        self._drawn = [[_drawn(seed, sample, len(background)) for sample in range(samples)] for seed in seeds]

    def start(self, row: int, number: int) -> int:
        """Return the index of a draw's image in the background set."""
        return self._drawn[row][number][0]

    def starts(self, rows: list[int], numbers: list[int]) -> Tensor:
        """Return the background images of some draws."""
        return self._background[[self.start(row, number) for row, number in zip(rows, numbers, strict=True)]]

    def points(self, rows: list[int], numbers: list[int]) -> Tensor:
        """Return b + α (x − b) for some draws."""
        starts = self.starts(rows, numbers)
        shares = [self._drawn[row][number][1] for row, number in zip(rows, numbers, strict=True)]
        return starts + starts.new_tensor(shares).view(-1, 1, 1, 1) * (self._images[rows] - starts)


def _drawn(seed: int, sample: int, count: int) -> tuple[int, float]:
    draw = draws.rng(seed, "background", sample)
    return int(draw.integers(count)), float(draw.random())
