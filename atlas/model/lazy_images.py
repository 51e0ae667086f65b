"""Images that are read or made when they are sliced, so that not all of them are in memory."""

from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


class LazyImages:
    """A set of images, of which slices are tensors: `images[10:20]`. None of them is kept.

    Args:
        shape: Their number, channels, height and width.
        make: Returns the images from a first position to one past the last.
    """

    def __init__(self, shape: tuple[int, ...], make: "Callable[[int, int], Tensor]"):
        self.shape, self._make = shape, make

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, part: slice) -> "Tensor":
        start, stop, _ = part.indices(len(self))
        return self._make(start, max(start, stop))
