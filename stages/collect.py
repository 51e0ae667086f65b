"""Collect a dataset into one store: `python -m stages.collect DATASET` writes `data/datasets/<dataset>.zarr`.

The store has `image` (ids), `split`, `label`, `pixels` (`image channel y x`), `boxes` (rows past an image's last box
are -1) and, unless objects are unknown in all pictures, `mask`. Its attributes: `classes`; `known`, which of boxes and
mask the source has; `left_out`, a name and a reason for each picture that cannot be used; `fit`, its numbers, if the
entry's `fit` names weights. If a picture has boxes and no mask, its mask is their union; if it has a mask and no boxes,
its box is the mask's bounding box. If this holds for all pictures that have either, the attribute `mask_from` is
"boxes", or `boxes_from` is "mask".
"""

import re
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import chain, count, islice
from pathlib import Path
from typing import Any

import numpy as np
import zarr

from atlas.cache.locks import drop, temporary_path
from atlas.cache.stores import OF_PICTURES, SHARD_BYTES, array, begin, group_at, replace
from atlas.datasets.shared.source import Source
from atlas.datasets.shared.stream import Row, decoded, labelled
from atlas.datasets.shared.transforms import transform
from atlas.study.command import command
from atlas.study.errors import UserError
from atlas.study.params import find
from atlas.study.schema.fitting import fitting, of_weights
from atlas.study.schema.settings import Entry
from atlas.study.schema.signatures import signature
from atlas.study.study import Study

NUMBER = re.compile(r"-?[0-9]+(\.[0-9]+)?")  # a numeric label; pandas reads a column with an empty cell as floats
CHUNK_BYTES = 2**16  # small images are stored several to a chunk


def main(folder: Path, dataset: str) -> None:
    """Write pixels, masks, boxes, labels, splits and ids, one shard at a time, and put the store in place."""
    study = Study(folder)
    study.check_names(dataset=dataset)
    bound = study.dataset(dataset)
    output = study.path("datasets", dataset)
    scratch = temporary_path(output)
    try:
        fill(study, bound, scratch)
        replace(scratch, output)
    finally:
        drop(scratch)


def fill(study: Study, bound: Entry, scratch: Path) -> None:
    """Write a dataset's store.

    Raises:
        UserError: the dataset is invalid; the message names it.
    """
    try:
        source = asked(study, bound)
        classes = None if source.classes is None else named_classes(source.classes)
        numbers = {name: at for at, name in enumerate(classes or [])}
        unusable: list[tuple[str, str]] = []
        fit = fitted_as(bound)
        rows = decoded(labelled(source.pictures, classes, numbers), {**bound.options, "fit": fit}, unusable)
        about, labels = written(scratch, rows)
        names = classes or sorted(numbers, key=in_order)
        if classes is None:  # they were numbered in order of appearance
            labels = np.array([names.index(name) for name in numbers])[labels]
        group = zarr.open_group(scratch, mode="a")
        array(group, "label", labels, ("image",), {})
        left_out = [[str(part) for part in one] for one in (*source.left_out, *unusable)]
        taken = {"fit": fit} if fit != bound.options["fit"] else {}
        group.attrs.update({"classes": names, **about, **taken, "left_out": left_out})
    except UserError as fault:
        raise UserError(f"dataset {bound.name}: {fault}") from None


def asked(study: Study, bound: Entry) -> Source:
    """Call the family's function, with the path of its source if it declares one."""
    function = find("datasets", bound.family, bound.function)
    inputs = signature("datasets", bound.family, bound.function).inputs
    place = study.folder / bound.options["path"]
    if inputs and not place.exists():
        raise UserError(f"params.yaml: datasets.{bound.name}.path: there is no {place}")
    return function(*[place for _ in inputs], **bound.settings)


def fitted_as(bound: Entry) -> dict[str, Any] | None:
    """Return the settings of a dataset's `fit`: those of its entry, or those of the weights that it names."""
    fit, where = bound.options["fit"], f"datasets.{bound.name}.fit"
    return fitting(transform(where, **fit), where) if of_weights(fit) else fit


def named_classes(classes: object) -> list[str]:
    """Return a dataset's classes, after checking that they are a list of distinct names.

    Raises:
        UserError: they are not; the message shows what was given.
    """
    if not isinstance(classes, list) or not classes or not all(isinstance(one, str) and one for one in classes):
        raise UserError(f"its classes are {classes!r:.100}; expected a list of names")
    if len(set(classes)) < len(classes):
        twice = next(name for at, name in enumerate(classes) if name in classes[:at])
        raise UserError(f"its classes name {twice!r} twice; expected each name once")
    return classes


def in_order(label: str) -> tuple[bool, float, str]:
    """Return a sort key for labels: numbers by value, before all other labels."""
    number = NUMBER.fullmatch(label) is not None
    return not number, float(label) if number else 0.0, label


def written(place: Path, rows: Iterator[Row]) -> tuple[dict[str, Any], np.ndarray]:
    """Write the store of rows except for labels, one shard at a time; return its attributes, and the labels."""
    group = group_at(place, {})
    facts: dict[str, list] = {"image": [], "split": [], "label": [], "boxes": []}
    first = next(rows)
    shape, each = first.sample.pixels.shape, first.sample.pixels.nbytes
    together = max(1, CHUNK_BYTES // each)
    size = max(1, SHARD_BYTES // each // together) * together
    known: set[str] = set()
    arrays: dict[str, zarr.Array] = {}

    def append(name: str, dims: tuple[str, ...], values: np.ndarray) -> None:
        if name not in arrays:
            laid_out: dict[str, Any] = {"shard": size, "together": together, "compressors": OF_PICTURES}
            arrays[name] = begin(group, name, (0, *values.shape[1:]), values.dtype, dims, {}, **laid_out)
        arrays[name].append(values)

    def write(pixels: np.ndarray, mask: np.ndarray | None, shards_before: int) -> None:
        if mask is not None:
            if "mask" not in arrays:  # earlier shards have no known objects
                for _ in range(shards_before):
                    append("mask", ("image", "y", "x"), np.zeros((size, *mask.shape[1:]), bool))
            append("mask", ("image", "y", "x"), mask)
        append("pixels", ("image", "channel", "y", "x"), pixels)

    # One shard is written while the next one is filled.
    buffers = [(np.empty((size, *shape), "uint8"), np.empty((size, *shape[1:]), bool)) for _ in range(2)]
    writing: Future | None = None
    rows = chain([first], rows)
    with ThreadPoolExecutor(1) as writer:
        for number in count():
            pixels, mask = buffers[number % 2]
            filled = 0
            for row in islice(rows, size):
                pixels[filled] = row.sample.pixels
                mask[filled] = False if row.sample.mask is None else row.sample.mask
                known |= row.sample.known
                facts["image"].append(row.picture.id)
                facts["split"].append(row.picture.split)
                facts["label"].append(row.label)
                facts["boxes"].append(row.sample.boxes)
                filled += 1
            if writing is not None:
                writing.result()
            if not filled:
                break
            writing = writer.submit(write, pixels[:filled], mask[:filled] if known else None, number)
    array(group, "image", np.array(facts["image"]), ("image",), {})
    array(group, "split", np.array(facts["split"]), ("image",), {})
    array(group, "boxes", padded(facts["boxes"]), ("image", "box", "corner"), {"order": "x0 y0 x1 y1, half-open"})
    made = {"mask_from": "boxes"} if known == {"boxes"} else {"boxes_from": "mask"} if known == {"mask"} else {}
    return {"known": sorted(known), **made}, np.array(facts["label"], "int64")


def padded(boxes: list[np.ndarray]) -> np.ndarray:
    """Stack boxes, with as many rows as the image with the most boxes needs; unused rows are -1."""
    most = max(1, *(len(own) for own in boxes)) if boxes else 1
    stacked = np.full((len(boxes), most, 4), -1, "int64")
    for row, own in zip(stacked, boxes, strict=True):
        row[: len(own)] = own
    return stacked


if __name__ == "__main__":
    command(main, "dataset")
