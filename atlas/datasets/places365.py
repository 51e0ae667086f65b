"""Places365: photographs of 365 kinds of places."""

from pathlib import Path

from atlas.datasets.shared.labels import within
from atlas.datasets.shared.lists import fault, files, lines, same_splits
from atlas.datasets.shared.source import Picture, Source
from atlas.study.schema.types import Split


def places365(
    path: Path,
    *,
    images: dict[Split, str],
    labels: dict[Split, str],
    categories: str = "categories_places365.txt",
) -> Source:
    """List Places365 from its lists.

    places365/
        categories_places365.txt          `/a/airfield 0`, a line a class
        places365_val.txt                 `Places365_val_00000001.jpg 165`, a line a picture
        val_256/Places365_val_00000001.jpg ...
        places365_train_standard.txt      `/a/airfield/00000001.jpg 0`
        data_256/a/airfield/00000001.jpg ...

    Reference: zhou2018places; http://places2.csail.mit.edu. There are neither boxes nor masks. The 36,500 validation
    pictures are held out: the published test split has no labels. A class is named by its path without the letter:
    `airfield`, `apartment_building/outdoor`. Class numbers are those of the authors' published networks. A picture's id
    is its path in its list, without the extension. A listed picture that is missing is left out. The evaluation of
    huang2024guided uses 5,432 of the validation pictures, chosen by the probability of their label; `select` does so by
    `confidence_at_least`.

    Args:
        path: The folder of all.
        images: The folder of each split's pictures, as `{test: val_256}`.
        labels: The list of each split, as `{test: places365_val.txt}`.
        categories: The list of classes.
    """
    classes = _classes(within(path, categories))
    pictures: list[Picture] = []
    left_out: list[tuple[str, str]] = []
    seen: dict[str, str] = {}
    for split in same_splits(images=images, labels=labels):
        folder, listing = within(path, images[split]), within(path, labels[split])
        there = files(folder, "the pictures of Places365", "path")
        expected = f"a picture and the number of its class, 0 to {len(classes) - 1}"
        for line, given in lines(listing, "a line a picture: its name and the number of its class"):
            name, _, label = given.rpartition(" ")
            name = name.strip().lstrip("/")
            if not name or not label.isdecimal() or int(label) >= len(classes):
                raise fault(listing, line, given, expected)
            if name in seen:
                raise fault(listing, line, given, f"each picture once; it is in {seen[name]} already")
            seen[name] = f"{listing.name}, line {line}"
            if name in there:
                pictures.append(Picture(name.rpartition(".")[0] or name, int(label), split, there[name], turned=False))
            else:
                left_out.append((name, f"named in {seen[name]}, and not in {images[split]}"))
    return Source(classes, pictures, left_out)


def _classes(file: Path) -> list[str]:
    found: list[str] = []
    for line, given in lines(file, "a line a class: its path and its number"):
        name, _, number = given.rpartition(" ")
        if not name.strip("/ ") or number != str(len(found)):
            raise fault(file, line, given, f"a class and its number, {len(found)}")
        name = name.strip()
        found.append(name[3:] if name[:1] == "/" and name[2:3] == "/" else name.strip("/"))
    return found
