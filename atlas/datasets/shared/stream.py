"""Decode the pictures of a dataset in threads, in order."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, NamedTuple

from atlas.datasets.shared.sample import Sample, checked, number, to_sample
from atlas.datasets.shared.source import Picture
from atlas.study.cores import cores
from atlas.study.errors import UserError

AHEAD_BYTES = 4 * 2**20


class Row(NamedTuple):
    """One picture's row of the store."""

    picture: Picture
    label: int
    sample: Sample


def labelled(pictures: Iterable, classes: list[str] | None, numbers: dict[str, int]) -> Iterator[tuple[Picture, int]]:
    """Check pictures one by one, without decoding them, and number their labels.

    Raises:
        UserError: one is not as specified in atlas/datasets/shared/source.py, or two have the same id.
    """
    ids = set()
    for given in pictures:
        picture = checked(given)
        if picture.id in ids:
            raise UserError(f"two images have the id {picture.id}; expected an id of its own for each")
        ids.add(picture.id)
        yield picture, number(picture, classes, numbers)


def decoded(
    pictures: Iterator[tuple[Picture, int]], options: dict[str, Any], left_out: list[tuple[str, str]]
) -> Iterator[Row]:
    """Decode pictures in threads, some ahead of the consumer; unusable ones are added to `left_out`.

    Raises:
        UserError: one is not as specified in atlas/datasets/shared/source.py, or differs in size from the first.
    """
    shape = None
    for picture, label, sample in ahead(pictures, partial(to_sample, channels=options["channels"], fit=options["fit"])):
        if isinstance(sample, str):
            left_out.append((picture.id, sample))
            continue
        if shape is not None and sample.pixels.shape != shape:
            got, expected = (" × ".join(map(str, one)) for one in (sample.pixels.shape, shape))
            message = f"pixels are {got}; expected those of the dataset's first image, {expected}"
            raise UserError(f"image {picture.id}: {message} (`fit` and `channels` in params.yaml make pictures alike)")
        shape = sample.pixels.shape
        yield Row(picture, label, sample)
    if shape is None:
        few = f"; left out: {len(left_out)}, the first {left_out[0][0]} ({left_out[0][1]})" if left_out else ""
        raise UserError(f"its source has no image that can be used{few}")


def ahead(
    pictures: Iterator[tuple[Picture, int]], make: Callable[[Picture], Sample | str]
) -> Iterator[tuple[Picture, int, Sample | str]]:
    """Make samples in threads and yield them in order; a few wait in memory while a shard is written."""
    threads = cores()
    waiting: deque = deque()
    most = 2 * threads
    with ThreadPoolExecutor(threads) as pool:
        try:
            for picture, label in pictures:
                waiting.append((picture, label, pool.submit(make, picture)))
                if len(waiting) > most:
                    *known, future = waiting.popleft()
                    sample = future.result()
                    most = max(2 * threads, 0 if isinstance(sample, str) else AHEAD_BYTES // sample.pixels.nbytes)
                    yield *known, sample
            while waiting:
                *known, future = waiting.popleft()
                yield *known, future.result()
        finally:
            pool.shutdown(cancel_futures=True)
