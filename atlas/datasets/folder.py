"""Pictures in a folder, with labels taken from their names."""

import os
import re
from pathlib import Path

from atlas.datasets.shared.labels import class_names, numbered
from atlas.datasets.shared.source import Picture, Source
from atlas.study.errors import UserError


def folder(path: Path, *, label: str = "parent", classes: str | None = None, train: str | None = None) -> Source:
    r"""Take every file below a folder as a picture; its id is its path within the folder.

    Files and folders whose names begin with a dot are ignored. A file that is no picture, or has no label in its name,
    is left out and listed; so is a link to a folder, whose content DVC does not track.

    Args:
        path: The folder, or a link to it.
        label: `parent`, the name of the folder that contains the picture; or a regular expression that is searched for
            in the id, with one group, the label: `_(\d+)\.jpg$`.
        classes: `imagenet`; or a file in the folder, one name per line; null if labels name themselves. If classes have
            names, a label that is none of them but a number is the index of a class, from 0.
        train: A regular expression that is searched for in the id, as `^train/`: matches are the training split; null
            if all pictures are held out.
    """
    if not path.is_dir():
        raise UserError(f"path: {path} is no folder")
    names = class_names(classes, path)
    by_name, training = (
        None if label == "parent" else _compiled("label", label, 1),
        _compiled("train", train or "", None),
    )
    found: list[Picture] = []
    left_out: list[tuple[str, str]] = []
    for name in _files(path, left_out):
        if name == classes:
            continue
        if not name.isprintable():
            left_out.append((ascii(name), "a name that is not printable text"))
            continue
        if by_name is None:
            own = Path(name).parent.name
        else:
            match = by_name.search(name)
            own = (match[1] if match else None) or ""
        if own:
            split = "train" if train and training.search(name) else "test"
            found.append(Picture(name, numbered(own, names), split, path / name))
        else:
            left_out.append(
                (name, "in no folder that could be its label" if by_name is None else "no label in its name")
            )
    return Source(names, found, left_out)


def _compiled(setting: str, text: str, groups: int | None) -> re.Pattern:
    try:
        pattern = re.compile(text)
    except re.error as error:
        raise UserError(f"{setting} = {text!r}: no regular expression ({error})") from None
    if groups is not None and pattern.groups != groups:
        expected = "expected 'parent', or a regular expression with one group, which is the label"
        raise UserError(f"{setting} = {text!r} has {pattern.groups} groups; {expected}")
    return pattern


def _files(path: Path, left_out: list[tuple[str, str]]) -> list[str]:
    """Return the files below a folder by their paths in it, in order."""
    found = []
    for place, folders, files in os.walk(path):
        folders[:] = [name for name in folders if not name.startswith(".")]
        inside = Path(place).relative_to(path)
        for name in folders:
            if Path(place, name).is_symlink():
                left_out.append((ascii(str(inside / name))[1:-1], "a link to a folder, which DVC does not follow"))
        found += [(inside / name).as_posix() for name in files if not name.startswith(".")]
    left_out.sort()
    return sorted(found)
