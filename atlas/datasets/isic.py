"""ISIC: dermoscopic pictures of skin lesions, in the format of the challenges of 2018 (task 3) and 2019."""

from pathlib import Path

from atlas.datasets.shared.labels import within
from atlas.datasets.shared.lists import fault, files, numbers, same_splits, table
from atlas.datasets.shared.source import Picture, Source
from atlas.study.schema.types import Split

LESION = "_segmentation"


def isic(
    path: Path,
    *,
    images: dict[Split, str],
    truth: dict[Split, str],
    masks: str | None = None,
) -> Source:
    """List pictures of skin lesions from their ground truth.

    isic/
        ISIC2018_Task3_Test_GroundTruth.csv            `image,MEL,NV,BCC,AKIEC,BKL,DF,VASC`, one 1.0 a line
        ISIC2018_Task3_Test_Input/ISIC_0034524.jpg ...
        ISIC2018_Task3_Training_GroundTruth.csv
        ISIC2018_Task3_Training_Input/ISIC_0024306.jpg ...
        masks/ISIC_0024306_segmentation.png ...        of task 1, where there is one: not 0 is lesion

    Reference: tschandl2018ham10000, codella2019skin; https://challenge.isic-archive.com/data. Classes are the columns
    of the ground truth. A picture's id is its name in the ground truth; a listed picture that is missing is left out.
    The only boxes are the bounding boxes of the masks. With hand-made splits, pictures of the same lesion may be in
    both: `lesion_id` of the metadata identifies lesions. The evaluation of huang2024guided draws 3,000 pictures of a
    mix of three years with replacement, so that some occur twice; here a dataset has each picture once.

    Args:
        path: The folder of all.
        images: The folder of each split's pictures, as `{test: ISIC2018_Task3_Test_Input}`.
        truth: The ground truth of each split, as `{test: ISIC2018_Task3_Test_GroundTruth.csv}`.
        masks: The folder of segmentations, of which any may be missing: that picture's mask is then unknown.
    """
    drawn = (
        {}
        if masks is None
        else files(within(path, masks), "segmentations, each named ISIC_..._segmentation.png", "stem")
    )
    classes: list[str] | None = None
    pictures: list[Picture] = []
    left_out: list[tuple[str, str]] = []
    seen: dict[str, str] = {}
    for split in same_splits(images=images, truth=truth):
        file = within(path, truth[split])
        there = files(within(path, images[split]), "the pictures of ISIC", "stem")
        for line, row in table(file, ["image"], "a line a picture: its name and 1 for its class, 0 for all others"):
            name = row.pop("image")
            classes = classes or list(row)
            if list(row) != classes:
                raise fault(file, 1, ",".join(row), f"the classes of the other split: {','.join(classes)}")
            label = _hot([*row.values()])
            if label is None:
                raise fault(file, line, ",".join(row.values()), "1 for one class and 0 for all others")
            if name in seen:
                raise fault(file, line, name, f"each picture once; it is in {seen[name]} already")
            seen[name] = f"{file.name}, line {line}"
            if name not in there:
                left_out.append((name, f"named in {seen[name]}, and not in {images[split]}"))
                continue
            pictures.append(Picture(name, label, split, there[name], mask=drawn.get(name + LESION), turned=False))
    return Source(classes, pictures, left_out)


def _hot(fields: list[str]) -> int | None:
    """Return the position of the only 1 among zeros."""
    try:
        values = numbers(fields)
    except ValueError:
        return None
    return values.index(1) if sorted(values) == [0] * (len(values) - 1) + [1] else None
