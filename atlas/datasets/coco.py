"""COCO, and datasets annotated in its format: objects of several categories in a picture, with boxes and masks."""

from functools import partial
from itertools import groupby
from math import isfinite
from pathlib import Path
from typing import Literal

from atlas.datasets.shared.labels import within
from atlas.datasets.shared.lists import files, same_splits, tree, whole_boxes
from atlas.datasets.shared.segments import drawn
from atlas.datasets.shared.source import Picture, Source
from atlas.study.errors import UserError
from atlas.study.schema.types import Split

HOLDS = "an object with the lists 'images', 'annotations' and 'categories'"
FIELDS = {
    "categories": {"id": int, "name": str},
    "images": {"id": int, "file_name": str, "height": int, "width": int},
    "annotations": {"image_id": int, "category_id": int, "bbox": list},
}


def coco(
    path: Path,
    *,
    images: dict[Split, str],
    annotations: dict[Split, str],
    categories: list[str],
    several: Literal["largest", "each", "leave_out"] = "largest",
) -> Source:
    """List the pictures that show an object of one of some categories.

    coco/
        val2017/000000000139.jpg ...
        annotations/instances_val2017.json
        train2017/000000000009.jpg ...
        annotations/instances_train2017.json

    Reference: lin2014microsoft; https://cocodataset.org. A label is a category; boxes and mask are those of all objects
    of that category in the picture, including crowds (`iscrowd`), which have one box and one mask for many objects. A
    picture's id is its folder and its name without the extension, as `val2017/000000000139`. Pictures without an object
    of these categories are not taken; one that has some but is missing is left out. If an object has only a box, the
    picture's mask is unknown. Polygons are filled as the authors' own code fills them. A box of floats becomes the
    smallest box of whole pixels that contains it; a box without area is dropped.

    The evaluation of buono2024expected uses 500 pictures of zebras and stop signs; it does not say which ones, or which
    ImageNet class stands for a stop sign.

    Args:
        path: The folder of all.
        images: The folder of each split's pictures, as `{test: val2017}`.
        annotations: The annotations of each split, as `{test: annotations/instances_val2017.json}`.
        categories: The categories to take, by name: the classes, in this order.
        several: For a picture with several of them: the category whose objects have the largest total area (the first
            if equal), each of them, as a row with a separate id (`val2017/000000000139:zebra`), or none.
    """
    if len(set(categories)) < len(categories) or not categories:
        raise UserError(f"categories = {categories}; expected names, each once")
    pictures: list[Picture] = []
    left_out: list[tuple[str, str]] = []
    for split in same_splits(images=images, annotations=annotations):
        file = within(path, annotations[split])
        there = files(within(path, images[split]), "the pictures of COCO", "path")
        read = _checked(file)
        objects = _objects(file, read, categories)
        for image in read["images"]:
            own = objects.get(image["id"], {})
            name = f"{images[split]}/{image['file_name']}"
            if own and image["file_name"] not in there:
                left_out.append((name, f"an image of {annotations[split]}, and not there"))
                continue
            shown = sorted(own, key=lambda category: (-sum(_area(one) for one in own[category]), category))
            if several == "leave_out" and len(shown) > 1:
                continue
            for category in shown if several == "each" else shown[:1]:
                called = f"{images[split]}/{Path(image['file_name']).with_suffix('')}"
                called += f":{categories[category]}" if several == "each" else ""
                pictures.append(_picture(called, category, split, there[image["file_name"]], own[category], image))
    return Source(list(categories), pictures, left_out)


def _picture(name: str, label: int, split: str, file: Path, objects: list[dict], image: dict) -> Picture:
    corners = [[x, y, x + width, y + height] for x, y, width, height in (one["bbox"] for one in objects)]
    boxes = whole_boxes([one for one in corners if one[0] < one[2] and one[1] < one[3]])
    segments = [one.get("segmentation") for one in objects]
    mask = partial(drawn, segments, image["height"], image["width"]) if all(segments) else None
    return Picture(name, label, split, file, boxes, mask, turned=False)


def _area(one: dict) -> float:
    return float(one.get("area", one["bbox"][2] * one["bbox"][3]))


def _objects(file: Path, read: dict, categories: list[str]) -> dict[int, dict[int, list[dict]]]:
    """Return the objects of each picture by the index of their category among those taken."""
    named = {one["id"]: one["name"] for one in read["categories"]}
    if unknown := [name for name in categories if name not in named.values()]:
        raise UserError(f"categories: {unknown[0]!r} is not in {file}; it has: {', '.join(named.values())}")
    known = {one["id"] for one in read["images"]}
    if len(known) < len(read["images"]):
        raise UserError(f"{file}: two of 'images' have the same id; expected an id of its own for each")
    taken: list[tuple[int, int, dict]] = []
    for number, one in enumerate(read["annotations"]):
        name = named.get(one["category_id"])
        if name is None or one["image_id"] not in known:
            ids = f"category_id = {one['category_id']}, image_id = {one['image_id']}"
            raise UserError(f"{file}: annotations[{number}]: {ids}; expected ids of the same file")
        if name in categories:
            _usable(file, number, one)
            taken.append((one["image_id"], categories.index(name), one))
    found: dict[int, dict[int, list[dict]]] = {}
    for (image, category), group in groupby(sorted(taken, key=lambda own: own[:2]), lambda own: own[:2]):
        found.setdefault(image, {})[category] = [one for _, _, one in group]
    return found


def _checked(file: Path) -> dict:
    """Read annotations whose fields have the types they must have."""
    read = tree(file, HOLDS)
    if not isinstance(read, dict) or not all(isinstance(read.get(name), list) for name in FIELDS):
        raise UserError(f"{file}: {str(read)!r:.60}; expected {HOLDS}")
    for name, fields in FIELDS.items():
        for number, one in enumerate(read[name]):
            for field, kind in fields.items():
                if not isinstance(one, dict) or not isinstance(one.get(field), kind):
                    expected = f"'{field}' of type {kind.__name__}"
                    raise UserError(f"{file}: {name}[{number}] = {one!r:.100}; expected {expected}")
    return read


def _usable(file: Path, number: int, one: dict) -> None:
    """Check the box and the mask of one annotation, as far as possible without drawing it."""
    where = f"{file}: annotations[{number}]"
    if len(one["bbox"]) != 4 or not all(map(_finite, one["bbox"])):
        raise UserError(f"{where}: bbox = {one['bbox']!r:.100}; expected four numbers: x, y, width, height")
    if not _finite(one.get("area", 0)):
        raise UserError(f"{where}: area = {one['area']!r:.50}; expected a number")
    given = one.get("segmentation") or []
    if isinstance(given, dict):
        counts = given.get("counts")
        good = isinstance(counts, str) or (isinstance(counts, list) and all(type(count) is int for count in counts))
    else:
        good = isinstance(given, list) and all(map(_polygon, given))
    if not good:
        expected = "polygons [[x, y, x, y, ...], ...], or run lengths {size: [height, width], counts: ...}"
        raise UserError(f"{where}: segmentation = {given!r:.100}; expected {expected}")


def _polygon(given: object) -> bool:
    return isinstance(given, list) and len(given) >= 6 and len(given) % 2 == 0 and all(map(_finite, given))


def _finite(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and isfinite(value)
