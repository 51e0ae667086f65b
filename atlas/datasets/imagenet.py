"""ImageNet: the 50,000 validation pictures of ILSVRC2012, with the boxes of their objects."""

from pathlib import Path

import numpy as np

from atlas.datasets.shared.labels import imagenet as torchvision_names
from atlas.datasets.shared.labels import within
from atlas.datasets.shared.lists import WNID, fault, files, lines, numbers, records, whole_boxes
from atlas.datasets.shared.source import Picture, Source
from atlas.datasets.shared.synsets import numbered, synsets
from atlas.datasets.shared.voc import annotation
from atlas.study.errors import UserError
from atlas.study.schema.types import Share

LABELED = "a line a picture: its name and the number or the wnid of its class"
BOXED = "a line a box: the picture's name, x0, y0, x1, y1"
SIZED = "a line a picture: its name, width, height"


def imagenet(
    path: Path,
    *,
    images: str = "val",
    labels: str | None = None,
    classes: str | None = None,
    boxes: str | None = None,
    boxes_exactly: int | None = None,
    box_area_at_most: Share | None = None,
) -> Source:
    """List the validation split of ImageNet, its pictures in folders of wnids or in a single folder.

    imagenet/
        val/n01751748/ILSVRC2012_val_00000001.JPEG ...    or val/ILSVRC2012_val_00000001.JPEG ...
        LOC_synset_mapping.txt                            `classes`
        ILSVRC2012_validation_ground_truth.txt            `labels`, if the pictures are in no folders
        Annotations/CLS-LOC/val/ILSVRC2012_val_00000001.xml ...          `boxes`
        metadata/ILSVRC/test/{image_ids,class_labels,localization,image_sizes}.txt    `labels` and `boxes`

    Reference: russakovsky2015imagenet, https://image-net.org; the lists are those of choe2020evaluating,
    https://github.com/clovaai/wsolevaluation. All pictures are held out. Classes are in the order of their wnids, like
    the outputs of networks. A picture's id is its name without the extension. A listed picture that is missing is left
    out, as is one whose class is not among `classes`.

    Boxes are those of the label's class. Their corners are used as given, with the last row and column not included: a
    box is x1 - x0 wide, as nourelahi2022explainable counts (of the 50,000, 38,285 have one box, and of these 20,167 one
    that covers at most half of the picture). ILSVRC's own evaluation includes the last row and column. Sizes for the
    rules are those of the XML or the list; some differ from the picture's own. There are no masks but those of the
    boxes.

    Args:
        path: The folder of all.
        images: The folder of the pictures.
        labels: null for the wnids of the folders that contain the pictures; or the folder of wsolevaluation's lists,
            whose `image_ids` then choose the pictures; or a list, one picture per line: `NAME.JPEG 65`,
            `val/NAME.JPEG,65`, with a number in the order of the wnids, or a wnid (as in `LOC_val_solution.csv`); or
            the ground truth of the kit of ILSVRC2012, one number per line, in another order, which needs `meta.mat` as
            `classes`.
        classes: The classes: a list of wnids with or without names, `imagenet_class_index.json`, or the kit's
            `meta.mat`; `imagenet` for torchvision's 1000 names, if labels are numbers or the pictures have all 1000
            wnids; null if the classes are the wnids of the pictures.
        boxes: A folder of XML files; or the folder of wsolevaluation's lists, or its `localization.txt`; null if boxes
            are unknown.
        boxes_exactly: How many boxes a picture must have to be taken; null for any.
        box_area_at_most: The largest share of the picture, before it is fitted, that its largest box may cover for the
            picture to be taken; null for any.
    """
    if boxes is None and not (boxes_exactly is None and box_area_at_most is None):
        raise UserError("boxes_exactly and box_area_at_most need 'boxes'; it is null")
    there = files(within(path, images), "the validation pictures of ImageNet", "stem")
    file = None if classes in (None, "imagenet") else within(path, classes)
    given = _folders(there) if labels is None else _listed(within(path, labels), file)
    names = _names(given, classes) if file is None else synsets(file)
    known = {} if boxes is None else _boxes(within(path, boxes), given, sized=box_area_at_most is not None)
    place = {wnid: number for number, wnid in enumerate(names)}
    order = list(names)
    pictures, left_out = [], []
    for name, (label, where) in given.items():
        if isinstance(label, int) and label >= len(order):
            raise UserError(f"{where}: {label}; expected a number of a class, 0 to {len(order) - 1}")
        wnid = order[label] if isinstance(label, int) else label
        if name not in there:
            left_out.append((name, f"named in {where}, and not in {images}"))
        elif wnid not in names:
            left_out.append((name, f"its class {wnid} is not in {classes}"))
        else:
            drawn, size = known.get(name, (None, None))
            if drawn and drawn[0][0] and not WNID.fullmatch(wnid):
                raise UserError(
                    f"classes = {classes} says no wnids, as the XML of {name} does; expected a file that does"
                )
            own = None if drawn is None else whole_boxes([box for of, box in drawn if of in (wnid, None)])
            if _chosen(own, size, boxes_exactly, box_area_at_most):
                pictures.append(Picture(name, place[wnid], "test", there[name], own, turned=False))
    return Source([*names.values()], pictures, left_out)


def _names(given: dict[str, tuple[str | int, str]], classes: str | None) -> dict[str, str]:
    """Return the names of the classes, by the wnids of the pictures, or by labels that are numbers, as text."""
    wnids = sorted({label for label, _ in given.values() if isinstance(label, str)})
    if classes is None:
        if number := next((where for label, where in given.values() if isinstance(label, int)), None):
            raise UserError(f"{number}: a number; expected 'classes' to say of what, it is null")
        return {wnid: wnid for wnid in wnids}
    called = torchvision_names()
    if wnids and len(wnids) != len(called):
        expected = f"expected all {len(called)}, or a file as 'classes' that says which of them they are"
        raise UserError(f"classes = imagenet, and the pictures are of {len(wnids)} wnids; {expected}")
    return dict(zip(wnids or map(str, range(len(called))), called, strict=True))


def _chosen(boxes: np.ndarray | None, size: list | None, exactly: int | None, at_most: float | None) -> bool:
    if exactly is not None and (boxes is None or len(boxes) != exactly):
        return False
    if at_most is None or boxes is None or not len(boxes):
        return at_most is None or boxes is not None
    width, height = size or (0, 0)
    return bool(((boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])).max() <= at_most * width * height)


def _folders(there: dict[str, Path]) -> dict[str, tuple[str | int, str]]:
    """Take the folder that contains a picture as its class."""
    for file in there.values():
        if not WNID.fullmatch(file.parent.name):
            raise UserError(f"{file}: lies in the folder {file.parent.name!r}; expected a wnid, or a list as 'labels'")
    return {name: (file.parent.name, "") for name, file in there.items()}


def _listed(file: Path, meta: Path | None) -> dict[str, tuple[str | int, str]]:
    """Read the number or wnid of each picture's class, and the line that states it."""
    if file.is_dir():
        all_given = _listed(file / "class_labels.txt", meta)
        chosen = {Path(name).stem: line for line, name in lines(file / "image_ids.txt", "a picture's name a line")}
        if lacking := next((name for name in chosen if name not in all_given), None):
            raise fault(file / "image_ids.txt", chosen[lacking], lacking, "a picture that class_labels.txt names")
        return {name: all_given[name] for name in chosen}
    rows = [*lines(file, LABELED)]
    if rows and all(given.isdecimal() for _, given in rows):
        return _counted(file, rows, meta)
    found: dict[str, tuple[str | int, str]] = {}
    for line, given in rows:
        name, _, rest = given.partition("," if "," in given else " ")
        label = (rest.split() or [""])[0]
        if (name, label) == ("ImageId", "PredictionString"):
            continue
        if not label.isdecimal() and not WNID.fullmatch(label):
            raise fault(file, line, given, LABELED)
        stem = Path(name).stem
        if stem in found:
            raise fault(file, line, given, f"each picture once; it is in {found[stem][1]} already")
        found[stem] = (int(label) if label.isdecimal() else label, f"{file.name}, line {line}")
    return found


def _counted(file: Path, rows: list[tuple[int, str]], meta: Path | None) -> dict[str, tuple[str | int, str]]:
    """Read the ground truth of the kit: the number of the class of each picture, in the order of the pictures."""
    if meta is None or meta.suffix != ".mat":
        expected = "the kit's meta.mat as 'classes', which says what they number"
        raise UserError(f"{file}: numbers alone, which are in an order of ILSVRC2012's kit; expected {expected}")
    wnids = numbered(meta)
    found: dict[str, tuple[str | int, str]] = {}
    for line, given in rows:
        if int(given) not in wnids:
            raise fault(file, line, given, f"a number of a class, 1 to {max(wnids)}")
        found[f"ILSVRC2012_val_{line:08d}"] = (wnids[int(given)], f"{file.name}, line {line}")
    return found


def _boxes(file: Path, wanted: dict, *, sized: bool) -> dict[str, tuple[list[tuple[str | None, list[float]]], list]]:
    """Read boxes, with the wnid of their object if it is stated, and the sizes of the wanted pictures."""
    if file.is_dir() and not (file / "localization.txt").is_file():
        drawn = {name: xml for name, xml in files(file, "an XML file a picture", "stem").items() if name in wanted}
        read = {name: annotation(xml) for name, xml in drawn.items()}
        if lacking := next((name for name, one in read.items() if sized and one.size is None), None):
            raise UserError(f"{drawn[lacking]}: has no 'size'; expected its width and height")
        return {name: (list(one.objects), one.size or []) for name, one in read.items()}
    file = file / "localization.txt" if file.is_dir() else file
    found: dict[str, list] = {}
    for line, name, box in _rows(file, 5, BOXED):
        if not (box[0] < box[2] and box[1] < box[3]):
            raise fault(file, line, f"{name},{','.join(map(str, box))}", "x0 < x1 and y0 < y1")
        found.setdefault(name, []).append((None, box))
    listing = file.parent / "image_sizes.txt"
    sizes = {name: size for _, name, size in _rows(listing, 3, SIZED)} if sized else {}
    if lacking := next((name for name in found if sized and name in wanted and name not in sizes), None):
        raise UserError(f"{listing}: has no line of {lacking}; expected {SIZED}")
    return {name: (own, sizes.get(name, [])) for name, own in found.items()}


def _rows(file: Path, columns: int, holds: str) -> list[tuple[int, str, list[float]]]:
    found = []
    for line, fields in records(file, columns, holds):
        try:
            found.append((line, Path(fields[0]).stem, numbers(fields[1:columns])))
        except ValueError:
            raise fault(file, line, ",".join(fields), holds) from None
    return found
