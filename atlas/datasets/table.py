"""Pictures listed in a table, with labels and, if known, boxes and masks."""

import csv
from collections.abc import Iterator
from io import BytesIO, StringIO
from pathlib import Path
from typing import Any

import numpy as np

from atlas.datasets.shared.labels import class_names, numbered, within
from atlas.datasets.shared.source import Picture, Source
from atlas.study import unedited
from atlas.study.errors import UserError

BOX = ("x0", "y0", "x1", "y1")
REQUIRED, ACCEPTED = ("path", "label"), ("id", "split", "mask", *BOX)


def table(path: Path, *, file: str, classes: str | None = None) -> Source:
    """Take the pictures of a table, in its order.

    Columns are `path` and `label`, and optionally `id` (by default the path), `split` (train or test; by default all
    are held out), `x0 y0 x1 y1` (half-open, whole pixels of the upright picture; each row with the same path and id is
    one box; empty if none is known) and `mask` (a picture of the object's pixels). Other columns are ignored. All files
    are given as paths within the folder. A row whose file is missing is left out and listed.

    Args:
        path: The folder of the table and of the pictures, or a link to it.
        file: The table in it, .csv or .parquet.
        classes: `imagenet`; or a file in the folder, one name per line; null if labels name themselves. If classes have
            names, a label that is none of them but a number is the index of a class, from 0.
    """
    if not path.is_dir():
        raise UserError(f"path: {path} is no folder; expected that of the table and of the pictures")
    names = class_names(classes, path)
    rows: dict[tuple[str, str], dict[str, str]] = {}
    boxes: dict[tuple[str, str], list[list[int]]] = {}
    columns, listed = _read(path, file)
    if missing := [name for name in REQUIRED if name not in columns]:
        raise UserError(f"{file} has no column {', '.join(missing)}; it has: {', '.join(columns)}")
    if 0 < len(lacking := [name for name in BOX if name not in columns]) < len(BOX):
        raise UserError(f"{file} has no column {', '.join(lacking)}; expected all of {', '.join(BOX)}, or none")
    for place, row in listed:
        where = f"{file}, {place}"
        about = {name: row.get(name, "") for name in (*REQUIRED, *ACCEPTED[:3])}
        name = about["path"], about["id"]  # a picture of several labels has one row per label, each with a separate id
        if not about["path"]:
            raise UserError(f"{where}: no path")
        if rows.setdefault(name, about) != about:
            differs = next(column for column, value in about.items() if rows[name][column] != value)
            message = f"{about[differs]!r}; a row above says {rows[name][differs]!r} of the same path"
            raise UserError(f"{where}: {differs} = {message}")
        if (box := _box(row, where)) is not None:
            boxes.setdefault(name, []).append(box)
    return Source(names, [_picture(path, about, boxes.get(name), names) for name, about in rows.items()])


def _picture(path: Path, about: dict[str, str], boxes: list[list[int]] | None, classes: list[str] | None) -> Picture:
    return Picture(
        about["id"] or about["path"],
        numbered(about["label"], classes),
        about["split"] or "test",
        within(path, about["path"]),
        None if boxes is None else np.array(boxes),
        within(path, about["mask"]) if about["mask"] else None,
    )


def _box(row: dict[str, str], where: str) -> list[int] | None:
    given = [row.get(name, "") for name in BOX]
    if not any(given):
        return None
    try:
        return [int(value.removesuffix(".0")) for value in given]
    except ValueError:
        raise UserError(f"{where}: the box is {', '.join(given)}; expected four whole numbers, or none") from None


def _read(path: Path, file: str) -> tuple[list[str], Iterator[tuple[str, dict[str, str]]]]:
    """Read a table: its columns, and its rows as text, each with its position (a CSV line, or a row number)."""
    place = within(path, file)
    try:
        content = unedited.read(place)
        if file.endswith(".csv"):
            reader = csv.reader(StringIO(content.decode("utf-8-sig"), newline=""), strict=True)
            columns = [name.strip() for name in next(reader, [])]
            if twice := sorted({name for name in columns if columns.count(name) > 1}):
                raise UserError(f"file: {place} has the column {twice[0]!r} twice; expected each once")
            return columns, _named(columns, reader, file)
        if file.endswith(".parquet"):
            from pyarrow import parquet

            found = parquet.read_table(BytesIO(content))
            texts = ({key: _text(value) for key, value in row.items()} for row in found.to_pylist())
            return found.column_names, ((f"row {number}", row) for number, row in enumerate(texts, 1))
    except (OSError, ValueError, csv.Error) as error:
        raise UserError(f"file: {place} cannot be read ({' '.join(str(error).split())})") from None
    raise UserError(f"file = {file!r}: expected a name that ends with .csv or .parquet")


def _named(columns: list[str], reader: Any, file: str) -> Iterator[tuple[str, dict[str, str]]]:
    """Yield the rows of a CSV by column, each with the number of its first line; blank lines are skipped."""
    while True:
        place = f"line {reader.line_num + 1}"
        try:
            row = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            raise UserError(f"{file}, {place} cannot be read ({error})") from None
        if row and len(row) != len(columns):
            raise UserError(f"{file}, {place} has {len(row)} cells; expected {len(columns)}: {', '.join(columns)}")
        if row:
            yield place, dict(zip(columns, (cell.strip() for cell in row), strict=True))


def _text(value: object) -> str:
    if isinstance(value, float) and value.is_integer():  # pandas turns whole numbers into floats if cells are empty
        value = int(value)
    return "" if value is None or value != value else str(value)
