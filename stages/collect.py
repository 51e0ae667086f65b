"""Collect a dataset into one store: `python -m stages.collect DATASET` writes `data/datasets/<dataset>.zarr`."""

from collections.abc import Iterable, Iterator
from itertools import chain, islice
from pathlib import Path
from typing import Any

import numpy as np

from stages.cache.locks import beside, drop
from stages.cache.stores import SHARD_BYTES, array, begin, group_at, replace
from stages.datasets._sample import Sample, checked
from stages.study.params import command, find, load, path
from stages.study.params import dataset as dataset_entry
from stages.study.problem import Problem

CHUNK_BYTES = 2**16  # images of a few dozen pixels a side are read several at a time


def main(study: Path, dataset: str) -> None:
    """Write pixels, masks, boxes, labels, splits and ids, a shard at a time, and put the store in place."""
    params = load(study)
    bound = dataset_entry(params, dataset)
    classes = named_classes(dataset, find("datasets", bound.family, "CLASSES")[bound.function])
    samples = known(dataset, find("datasets", bound.family, bound.function)(**bound.settings), classes)
    output = path(study, "datasets", dataset)
    partial = beside(output)
    try:
        written(partial, samples, classes)
        replace(partial, output)
    finally:
        drop(partial)


def named_classes(dataset: str, classes: object) -> list[str]:
    """Check that a dataset's classes are a list of different names.

    Raises:
        Problem: with what was given.
    """
    if not isinstance(classes, list) or not classes or not all(isinstance(one, str) and one for one in classes):
        raise Problem(f"dataset {dataset}: its CLASSES are {classes!r}; expected a list of names")
    if len(set(classes)) < len(classes):
        raise Problem(f"dataset {dataset}: its CLASSES are {classes!r}; expected each name once")
    return classes


def known(dataset: str, samples: Iterable, classes: list[str]) -> Iterator[Sample]:
    """Check samples one after the other.

    Raises:
        Problem: there is none, one is not as the contract has it, or has the id of another.
    """
    shape, ids = None, set()
    for sample in samples:
        try:
            one = checked(sample, shape, classes)
        except Problem as fault:
            raise Problem(f"dataset {dataset}: {fault}") from None
        if one.id in ids:
            raise Problem(f"dataset {dataset}: two images have the id {one.id}; expected an id of its own for each")
        shape = one.pixels.shape
        ids.add(one.id)
        yield one
    if shape is None:
        raise Problem(f"dataset {dataset}: its source has no image")


def written(partial: Path, samples: Iterator[Sample], classes: list[str]) -> None:
    """Write the store of checked samples."""
    facts: dict[str, list] = {"image": [], "split": [], "label": [], "boxes": []}
    group = group_at(partial, {"classes": classes})
    pictures: dict[str, Any] = {}
    first = next(samples)
    together = max(1, CHUNK_BYTES // first.pixels.nbytes)
    size = max(1, SHARD_BYTES // first.pixels.nbytes // together) * together
    for block in batched(chain([first], samples), size):
        for sample in block:
            facts["image"].append(sample.id)
            facts["split"].append(sample.split)
            facts["label"].append(sample.label)
            facts["boxes"].append(sample.boxes)
        for name, dims, values in (
            ("pixels", ("image", "channel", "y", "x"), np.stack([sample.pixels for sample in block])),
            ("mask", ("image", "y", "x"), np.stack([sample.mask for sample in block])),
        ):
            if name not in pictures:
                shape = (0, *values.shape[1:])
                pictures[name] = begin(group, name, shape, values.dtype, dims, {}, shard=size, together=together)
            pictures[name].append(values)
    array(group, "image", np.array(facts["image"]), ("image",), {})
    array(group, "split", np.array(facts["split"]), ("image",), {})
    array(group, "label", np.array(facts["label"], "int64"), ("image",), {})
    array(group, "boxes", padded(facts["boxes"]), ("image", "box", "corner"), {"order": "x0 y0 x1 y1, half-open"})


def batched(samples: Iterator, size: int) -> Iterator[list]:
    """Gather samples into blocks."""
    while block := list(islice(samples, size)):
        yield block


def padded(boxes: list[np.ndarray]) -> np.ndarray:
    """Stack boxes, as many rows as the image with most has; what is not used is -1."""
    most = max(1, *(len(own) for own in boxes)) if boxes else 1
    stacked = np.full((len(boxes), most, 4), -1, "int64")
    for row, own in zip(stacked, boxes, strict=True):
        row[: len(own)] = own
    return stacked


if __name__ == "__main__":
    command(main)
