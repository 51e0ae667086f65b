"""Read the images of one split of a dataset, a few megabytes at a time."""

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import zarr

from atlas.cache.keys import digest
from atlas.cache.stores import array_of, read, values

if TYPE_CHECKING:
    from atlas.study.study import Study

READ_BYTES = 2**24  # of pixels read at a time
CACHED_BYTES = 2**28  # of pixels kept in memory for repeated reading


class Split(NamedTuple):
    """The images of a split: their positions in the dataset's store, and their labels."""

    dataset: str
    store: zarr.Group
    rows: np.ndarray
    labels: np.ndarray

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Return the channels, height and width of an image."""
        channels, height, width = array_of(self.store, "pixels").shape[1:]
        return channels, height, width

    @property
    def classes(self) -> list[str]:
        """Return the names of the dataset's classes."""
        classes: Any = self.store.attrs["classes"]
        return classes

    def pixels(self, positions: np.ndarray | slice = slice(None)) -> np.ndarray:
        """Read the pixels of the images at some positions; by default of all images."""
        return values(self.store, "pixels", self.rows[positions])

    def at_a_time(self, multiple: int = 1) -> int:
        """Return how many images are read at a time, rounded to a multiple of a number."""
        return max(1, READ_BYTES // max(1, int(np.prod(self.shape))) // multiple) * multiple

    def blocks(self, multiple: int = 1) -> Iterator[slice]:
        """Yield slices of the images to be read one at a time, each of a multiple of a number of images."""
        size = self.at_a_time(multiple)
        for start in range(0, len(self), size):
            yield slice(start, min(start + size, len(self)))

    def cached(self) -> Callable[[np.ndarray], np.ndarray]:
        """Return a function that returns the pixels of images by position, in any order, for repeated use.

        As many of the first images as fit into `CACHED_BYTES` are kept in memory; the others are read each time.
        """
        count = CACHED_BYTES // max(1, int(np.prod(self.shape)))
        first = Split(self.dataset, self.store, self.rows[:count], self.labels[:count])
        cached = np.empty((len(first), *self.shape), "uint8")
        for part in first.blocks():
            cached[part] = first.pixels(part)

        def pixels(positions: np.ndarray) -> np.ndarray:
            found, known = np.empty((len(positions), *self.shape), "uint8"), positions < len(cached)
            found[known] = cached[positions[known]]
            if not known.all():
                found[~known] = self.pixels(positions[~known])
            return found

        return pixels

    def digest(self) -> bytes:
        """Digest its images and labels."""
        of_images = [digest(one.tobytes(), list(one.shape)) for part in self.blocks() for one in self.pixels(part)]
        return digest(*of_images, self.labels.tolist())


def split(study: "Study", dataset: str, name: str) -> Split:
    """Find the images of a split in a dataset's store."""
    store = read(study.path("datasets", dataset), f"the dataset {dataset}")
    rows = np.flatnonzero(values(store, "split") == name)
    return Split(dataset, store, rows, values(store, "label")[rows])
