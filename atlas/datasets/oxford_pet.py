"""Oxford-IIIT Pet: cats and dogs of 37 breeds, with masks of the pets and boxes of their heads."""

from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np

from atlas.datasets.shared.codes import codes
from atlas.datasets.shared.lists import fault, files, lines, whole_boxes
from atlas.datasets.shared.pictures import Unusable
from atlas.datasets.shared.source import Picture, Source
from atlas.datasets.shared.voc import annotation
from atlas.study.errors import UserError
from atlas.study.schema.types import Split

PET, BACKGROUND, BORDER = 1, 2, 3  # values of a trimap


def oxford_pet(
    path: Path,
    *,
    classes: Literal["breed", "species"] = "breed",
    border: bool = False,
    heads: bool = False,
    splits: list[Split] | None = None,
) -> Source:
    """List the Oxford-IIIT Pet dataset.

    oxford-iiit-pet/
        images/Abyssinian_1.jpg ...
        annotations/list.txt              `Abyssinian_1 1 1 1`: class (1 to 37), species (1 cat, 2 dog), breed
        annotations/test.txt              the same lines, of the 3,669 pictures held out; the other 3,680 are `train`
        annotations/trimaps/Abyssinian_1.png ...   1 pet, 2 background, 3 border, which is not classified
        annotations/xmls/Abyssinian_1.xml ...      boxes of heads, for training pictures only

    Reference: parkhi2012cats; https://www.robots.ox.ac.uk/~vgg/data/pets. Breeds are named as in torchvision
    (`Great Pyrenees`) and in the order of the list, so that a breed's number is the list's minus one. A picture's id is
    its name in the list. If a picture or its trimap is missing, the picture is left out; without a folder of trimaps,
    no mask is known. Without `heads`, boxes are the bounding boxes of the masks. Corners of heads are used as given,
    with the last row and column not included. The study of nieradzik2024reliable trains on this dataset and uses
    neither masks nor boxes.

    Args:
        path: The folder of all.
        classes: Whether labels are breeds, or cat and dog.
        border: Whether the border of the trimap, a few pixels wide, counts as pet.
        heads: Whether boxes are those of the heads, if they are known.
        splits: The splits to take; null for both.
    """
    listing = path / "annotations" / "list.txt"
    listed = _rows(listing)
    held_out = _rows(path / "annotations" / "test.txt")
    if unknown := sorted(set(held_out) - set(listed)):
        raise UserError(f"{path}: annotations/test.txt names {unknown[0]}; expected pictures of annotations/list.txt")
    names = _breeds(listing, listed) if classes == "breed" else {1: "Cat", 2: "Dog"}
    there = files(path / "images", "the pictures of pets", "stem")
    trimaps = path / "annotations" / "trimaps"
    masks = files(trimaps, "the trimaps of pets", "stem") if trimaps.is_dir() else None
    boxes = files(path / "annotations" / "xmls", "the boxes of heads", "stem") if heads else {}
    pictures, left_out = [], []
    for name, (line, breed, species) in listed.items():
        split = "test" if name in held_out else "train"
        if splits is not None and split not in splits:
            continue
        if name not in there:
            left_out.append((name, f"named in list.txt, line {line}, and not in images"))
        elif masks is not None and name not in masks:
            left_out.append((name, "its trimap is not in annotations/trimaps"))
        else:
            label = names[breed if classes == "breed" else species]
            mask = None if masks is None else partial(_pet, masks[name], border)
            head = whole_boxes([corners for _, corners in annotation(boxes[name]).objects]) if name in boxes else None
            pictures.append(Picture(name, label, split, there[name], head, mask, turned=False))
    return Source([names[number] for number in sorted(names)], pictures, left_out)


def _rows(file: Path) -> dict[str, tuple[int, int, int]]:
    """Read line number, class and species by a picture's name."""
    found: dict[str, tuple[int, int, int]] = {}
    for line, given in lines(file, "a line a picture: its name, class, species and breed"):
        name, *fields = given.split()
        if len(fields) != 3 or not all(field.isdecimal() for field in fields) or int(fields[0]) < 1:
            raise fault(file, line, given, "a name, its class from 1 on, its species and its breed")
        if fields[1] not in ("1", "2"):
            raise fault(file, line, given, "a species of 1 (cat) or 2 (dog)")
        if name in found:
            raise fault(file, line, given, f"each picture once; it is in line {found[name][0]} already")
        found[name] = (line, int(fields[0]), int(fields[1]))
    return found


def _breeds(file: Path, listed: dict[str, tuple[int, int, int]]) -> dict[int, str]:
    """Derive the names of the breeds from the names of the pictures."""
    found: dict[int, str] = {}
    for name, (line, breed, _) in listed.items():
        called = " ".join(part.title() for part in name.rpartition("_")[0].split("_"))
        if not called or found.setdefault(breed, called) != called:
            raise fault(file, line, name, f"a picture of {found.get(breed, 'a breed')}, as class {breed} is")
    return found


def _pet(trimap: Path, border: bool) -> np.ndarray:
    values = codes(trimap, "trimap")
    if values.ndim != 2 or not np.isin(values, (PET, BACKGROUND, BORDER)).all():
        raise Unusable(f"its trimap {trimap.name} has other values than 1, 2 and 3")
    return (values == PET) | (values == BORDER) if border else values == PET
