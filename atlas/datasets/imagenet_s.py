"""ImageNet-S: pictures of ImageNet's validation split with a class for every pixel."""

from functools import partial
from pathlib import Path

import numpy as np

from atlas.datasets.shared.codes import codes
from atlas.datasets.shared.labels import within
from atlas.datasets.shared.lists import WNID, fault, files, lines
from atlas.datasets.shared.pictures import Unusable
from atlas.datasets.shared.source import Picture, Source
from atlas.datasets.shared.synsets import synsets
from atlas.study.errors import UserError

SIZES = (50, 300, 919)


def imagenet_s(
    path: Path,
    *,
    images: str = "validation",
    masks: str = "validation-segmentation",
    categories: str | None = None,
    classes: str | None = None,
) -> Source:
    """List the validation split of ImageNet-S with 50, 300 or 919 classes.

    ImageNetS50/
        validation/n01443537/ILSVRC2012_val_00000236.JPEG ...
        validation-segmentation/n01443537/ILSVRC2012_val_00000236.png ...
        ImageNetS_categories_im50.txt     one wnid per line, in any order

    Reference: gao2022large; https://github.com/LUSSeg/ImageNet-S. A segmentation is an RGB picture in which a pixel's
    class is R + 256 G: 0 for no class, 1000 for pixels that were not annotated, any other number the index, from 1, of
    a class among all wnids of the dataset, sorted. A picture's label is the wnid of the folder of its segmentation, and
    its mask the pixels of that class, without unannotated ones. Boxes are the bounding boxes of the masks. All pictures
    are held out. A picture without segmentation is not part of the dataset; a segmentation without picture is left out.

    With 919 classes, five wnids of ImageNet are merged into others (sunglasses, n04356056, into sunglass, n04355933),
    so a network may predict the one where the label is the other. The evaluation of huang2024guided takes the highest
    number in a resized segmentation as the object, which may be 1000, and the index of a class among the 919 as its
    index among a network's 1,000, which is correct only up to 405.

    Args:
        path: The folder of all.
        images: The folder of the pictures, in folders of wnids or in none.
        masks: The folder of the segmentations, in folders of wnids.
        categories: The list of all wnids of the dataset; null if there is a folder for each.
        classes: A file with the classes of an ImageNet network (see `imagenet`), so that labels are its class numbers;
            null if the wnids of the dataset are the classes.
    """
    drawn = files(within(path, masks), "segmentations in folders of wnids", "stem")
    there = files(within(path, images), "the pictures of ImageNet-S", "stem")
    place = {wnid: at for at, wnid in enumerate(_categories(path / masks, path, categories), 1)}
    names = {wnid: wnid for wnid in place} if classes is None else synsets(within(path, classes))
    number = {wnid: at for at, wnid in enumerate(names)}
    pictures, left_out = [], []
    for name, file in drawn.items():
        wnid = file.parent.name
        if wnid not in place:
            raise UserError(
                f"{file}: lies in the folder {wnid!r}; expected one of the {len(place)} wnids of the dataset"
            )
        if name not in there:
            left_out.append((name, f"its picture is not in {images}"))
        elif wnid not in names:
            left_out.append((name, f"its class {wnid} is not in {classes}"))
        else:
            mask = partial(_object, file, place[wnid])
            pictures.append(Picture(name, number[wnid], "test", there[name], mask=mask, turned=False))
    return Source([*names.values()], pictures, left_out)


def _categories(folders: Path, path: Path, categories: str | None) -> list[str]:
    """Return the sorted wnids of the dataset, which the numbers in segmentations index."""
    if categories is None:
        found = sorted(one.name for one in folders.iterdir() if WNID.fullmatch(one.name))
        if len(found) not in SIZES:
            expected = "expected 50, 300 or 919 of them, or the list of all wnids as 'categories'"
            raise UserError(f"{folders}: {len(found)} folders of wnids; {expected}")
        return found
    file, expected = within(path, categories), "a wnid, as n01443537"
    found = []
    for line, given in lines(file, f"a line a class: {expected}"):
        if not WNID.fullmatch(given) or given in found:
            raise fault(file, line, given, f"{expected}, each once")
        found.append(given)
    return sorted(found)


def _object(file: Path, number: int) -> np.ndarray:
    values = codes(file, "segmentation")
    if values.ndim != 3:
        raise Unusable(f"its segmentation {file.name} has one value a pixel; expected red, green and blue")
    return values[..., 0] + 256 * values[..., 1].astype("int64") == number
