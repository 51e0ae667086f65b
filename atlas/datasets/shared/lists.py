"""Read the lists that published datasets come with; each fault is reported with its file and line.

A list defines a dataset: a picture that it names but that is missing is left out by name; a picture that no list names
does not belong to the dataset. Hidden files are ignored, such as those that archives made on a Mac have for every
picture.
"""

import csv
import json
import os
import re
from collections.abc import Iterator
from io import StringIO
from math import isfinite
from pathlib import Path
from typing import Any, Literal

import numpy as np

from atlas.study import unedited
from atlas.study.errors import UserError
from atlas.study.schema.types import Split

WNID = re.compile(r"n\d{8}")  # a class of ImageNet, as WordNet numbers it


def fault(file: Path, line: int, given: object, expected: str) -> UserError:
    """Return an error about a line of a list."""
    return UserError(f"{file}: line {line}: {given!r:.100}; expected {expected}")


def content(file: Path, holds: str) -> bytes:
    """Read a file that a dataset requires.

    Raises:
        UserError: it cannot be read; the message says what it should hold.
    """
    try:
        return unedited.read(file)
    except FileNotFoundError:
        raise UserError(f"{file}: there is no such file; expected {holds}") from None
    except OSError as error:
        raise UserError(f"{file}: cannot be read ({error.strerror}); expected {holds}") from None


def text(file: Path, holds: str) -> str:
    """Read a file of text, in UTF-8 with or without a byte order mark."""
    try:
        return content(file, holds).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(f"{file}: byte {error.start} is no text in UTF-8; expected {holds}") from None


def lines(file: Path, holds: str) -> Iterator[tuple[int, str]]:
    """Return the numbers and texts of lines that are neither empty nor comments (#)."""
    for number, line in enumerate(text(file, holds).splitlines(), 1):
        if line.strip() and not line.lstrip().startswith("#"):
            yield number, line.strip()


def records(file: Path, columns: int, holds: str) -> Iterator[tuple[int, list[str]]]:
    """Yield the line numbers and fields of a CSV file, its header first.

    Raises:
        UserError: a line has fewer fields than `columns`.
    """
    reader = csv.reader(StringIO(text(file, holds)))
    for row in reader:
        fields = [field.strip() for field in row]
        if any(fields):
            if len(fields) < columns:
                raise fault(file, reader.line_num, ",".join(row), f"at least {columns} fields: {holds}")
            yield reader.line_num, fields


def table(file: Path, columns: list[str], holds: str) -> Iterator[tuple[int, dict[str, str]]]:
    """Yield the line numbers and fields of a CSV file, fields by the names in the header.

    Raises:
        UserError: a column is missing, or a line has fewer fields than the header.
    """
    found = records(file, 1, holds)
    line, header = next(found, (1, []))
    while header and not header[-1]:  # from a trailing comma
        header.pop()
    if missing := [name for name in columns if name not in header]:
        raise fault(file, line, ",".join(header), f"a header with the columns {', '.join(missing)}")
    for line, fields in found:
        if len(fields) < len(header):
            raise fault(file, line, ",".join(fields), f"{len(header)} fields, as the header has")
        yield line, dict(zip(header, fields, strict=False))


def tree(file: Path, holds: str) -> Any:
    """Read a JSON file.

    Raises:
        UserError: it is not valid; the message names the line.
    """
    try:
        return json.loads(text(file, holds))
    except ValueError as error:
        raise UserError(f"{file}: {error}; expected JSON: {holds}") from None


def files(folder: Path, holds: str, key: Literal["path", "name", "stem"]) -> dict[str, Path]:
    """Return the files in a folder and its subfolders, in the order of their paths.

    Args:
        folder: The folder.
        holds: What the files are, for messages.
        key: The key of each file: its `path` in the folder, its `name`, or its `stem`, without extension.

    Raises:
        UserError: there is no such folder, or two files have the same key.
    """
    if not folder.is_dir():
        raise UserError(f"{folder}: there is no such folder; expected {holds}")
    found: dict[str, Path] = {}
    for at, below, names in os.walk(folder):
        below[:] = sorted(name for name in below if not name.startswith("."))
        for file in [Path(at, name) for name in sorted(names) if not name.startswith(".")]:
            called = file.relative_to(folder).as_posix() if key == "path" else getattr(file, key)
            if called in found:
                raise UserError(f"{folder}: {found[called]} and {file} have the same {key}; expected each once")
            found[called] = file
    return found


def numbers(fields: list[str]) -> list[float]:
    """Read finite numbers.

    Raises:
        ValueError: one is not finite, or no number.
    """
    found = [float(field) for field in fields]
    if not all(map(isfinite, found)):
        raise ValueError("a number is not finite")
    return found


def whole_boxes(corners: list[list]) -> np.ndarray:
    """Return the smallest boxes of whole pixels that contain those with these corners, x0 y0 x1 y1."""
    found = np.array(corners, "float64").reshape(-1, 4)
    return np.hstack([np.floor(found[:, :2]), np.ceil(found[:, 2:])]).astype("int64")


def same_splits(**settings: dict[Split, str]) -> list[Split]:
    """Return the splits for which several settings name a file or folder, training first.

    Raises:
        UserError: they name different splits, or none.
    """
    (first, split), *others = settings.items()
    for name, given in others:
        if set(given) != set(split):
            raise UserError(f"{first} names {_named(split)} and {name} {_named(given)}; expected the same splits")
    if not split:
        raise UserError(f"{first} = {{}}; expected train, test or both, each with what it is of")
    every: tuple[Split, ...] = ("train", "test")
    return [name for name in every if name in split]


def _named(splits: dict[Split, str]) -> str:
    return " and ".join(sorted(splits)) or "no split"
