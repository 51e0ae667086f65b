"""CIFAR-10: 60,000 color pictures of 32 by 32 pixels in ten classes."""

import pickle
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from numpy._core.multiarray import _reconstruct

from atlas.datasets.shared.lists import content
from atlas.datasets.shared.source import Picture, Source
from atlas.study.errors import UserError
from atlas.study.schema.types import Split

BATCHES = {"train": [f"data_batch_{number}" for number in range(1, 6)], "test": ["test_batch"]}
SHAPE = (3, 32, 32)
# Functions that make a pickled array of bytes, by their names in numpy 1 and 2.
ARRAYS = {
    ("numpy", "dtype"): np.dtype,
    ("numpy", "ndarray"): np.ndarray,
    ("numpy.core.multiarray", "_reconstruct"): _reconstruct,
    ("numpy._core.multiarray", "_reconstruct"): _reconstruct,
}


def cifar10(path: Path, *, splits: list[Split] | None = None) -> Source:
    """List CIFAR-10 from its batches for Python.

    cifar-10-batches-py/
        batches.meta
        data_batch_1 ... data_batch_5     10,000 pictures each: `train`
        test_batch                        10,000 pictures: `test`

    Reference: krizhevsky2009learning; https://www.cs.toronto.edu/~kriz/cifar.html. There are neither boxes nor masks.
    The batches are pickles, which can run any code when they are read: here only arrays are unpickled, and anything
    else is refused. A picture's id is its batch and its position there, as `data_batch_1/00042`; the names in the
    batches are not unique. A batch is read when its pictures are.

    Args:
        path: The folder of the batches.
        splits: The splits to take; null for both.
    """
    meta = _read(path / "batches.meta", "the names of the classes")
    classes = [_plain(name) for name in _field(meta, "label_names", path / "batches.meta")]
    taken = [name for name in BATCHES if splits is None or name in splits]
    return Source(classes, _pictures(path, taken, len(classes)))


def _pictures(path: Path, splits: list[str], classes: int) -> Iterator[Picture]:
    for split in splits:
        for batch in BATCHES[split]:
            file = path / batch
            read = _read(file, f"a batch of pictures, of the split {split}")
            data, labels = _field(read, "data", file), _field(read, "labels", file)
            if not isinstance(data, np.ndarray) or data.dtype != np.uint8 or data.shape != (len(labels), 3072):
                shown = f"{data.dtype} {data.shape}" if isinstance(data, np.ndarray) else type(data).__name__
                raise UserError(f"{file}: 'data' is {shown}; expected bytes (uint8), 3072 for each of its labels")
            for at, (row, label) in enumerate(zip(data, labels, strict=True)):
                if not isinstance(label, int) or not 0 <= label < classes:
                    raise UserError(f"{file}: 'labels'[{at}] = {label!r:.50}; expected 0 to {classes - 1}")
                yield Picture(f"{batch}/{at:05d}", label, split, row.reshape(SHAPE))


def _field(read: object, name: str, file: Path) -> Any:
    """Return a field of a batch; Python 2 wrote field names as bytes."""
    for called in (name.encode(), name):
        if isinstance(read, dict) and called in read:
            return read[called]
    raise UserError(f"{file}: has no '{name}'; expected a batch of CIFAR-10 for Python")


def _plain(name: bytes | str) -> str:
    return name.decode() if isinstance(name, bytes) else name


def _read(file: Path, holds: str) -> object:
    read = content(file, holds)
    try:
        return _Arrays(BytesIO(read), encoding="bytes").load()
    except UserError as refused:
        raise UserError(f"{file}: {refused}") from None
    except Exception as error:  # a damaged pickle may raise anything
        raise UserError(f"{file}: no pickle that can be read ({error}); expected {holds}") from None


class _Arrays(pickle.Unpickler):
    """Unpickle arrays of bytes and plain values, and refuse everything else."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) in ARRAYS:
            return ARRAYS[module, name]
        raise UserError(f"asks for {module}.{name} when it is read; expected arrays of numpy and plain values")
