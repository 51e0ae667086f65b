"""Read boxes in the format of PASCAL VOC: one XML file per picture."""

from pathlib import Path
from typing import NamedTuple
from xml.etree import ElementTree

from atlas.datasets.shared.lists import content, numbers
from atlas.study.errors import UserError

CORNERS = ("xmin", "ymin", "xmax", "ymax")


class Annotation(NamedTuple):
    """The content of a file: names and corners x0 y0 x1 y1 of objects, and width and height of the picture."""

    objects: list[tuple[str, list[float]]]
    size: list[float] | None


def annotation(file: Path) -> Annotation:
    """Read the objects of one picture.

    Raises:
        UserError: the file is no XML, or a corner is no number.
    """
    holds = "XML with an 'object' for each box: its 'name' and its 'bndbox' of xmin, ymin, xmax and ymax"
    try:
        root = ElementTree.fromstring(content(file, holds))
    except ElementTree.ParseError as error:
        raise UserError(f"{file}: {error}; expected {holds}") from None
    objects = []
    for number, one in enumerate(root.iter("object"), 1):
        corners = [one.findtext(f"bndbox/{name}", "") for name in CORNERS]
        where = f"{file}: object {number}"
        box = _read(corners, where, "xmin, ymin, xmax, ymax")
        if not (box[0] < box[2] and box[1] < box[3]):
            raise UserError(f"{where}: {','.join(corners)}; expected xmin < xmax and ymin < ymax")
        objects.append((one.findtext("name", ""), box))
    size = [root.findtext(f"size/{name}") for name in ("width", "height")]
    return Annotation(objects, None if None in size else _read(size, f"{file}: size", "width, height"))


def _read(fields: list, where: str, expected: str) -> list[float]:
    try:
        return numbers(fields)
    except ValueError:
        raise UserError(f"{where}: {','.join(fields)!r:.100}; expected numbers: {expected}") from None
