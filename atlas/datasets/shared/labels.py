"""Find the names of classes: those of ImageNet, those in a file, or the labels themselves."""

import ast
from collections import Counter
from importlib.util import find_spec
from pathlib import Path

from atlas.study import unedited
from atlas.study.errors import UserError


def class_names(classes: str | None, folder: Path) -> list[str] | None:
    """Return the names of classes in the order of their numbers.

    Args:
        classes: `imagenet`; or a file within the folder, one name per line; None if labels name themselves.
        folder: The path of the dataset's source, on which `collect` depends.

    Raises:
        UserError: there is no such file, or it names no class.
    """
    if classes is None:
        return None
    if classes == "imagenet":
        return imagenet()
    file = within(folder, classes)
    try:
        names = [line.strip() for line in unedited.read(file).decode("utf-8-sig").rstrip().splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"classes: {file} cannot be read ({error}); expected 'imagenet' or a file of names") from None
    if not names:
        raise UserError(f"classes: {file} has no name; expected one a line")
    if "" in names:  # the next name would get its number
        raise UserError(f"classes: {file}, line {names.index('') + 1} is empty; expected a name on every line")
    return names


def imagenet() -> list[str]:
    """Return torchvision's 1000 names of ImageNet's classes; names that several classes share get their numbers.

    They are read from torchvision's source text: importing it takes seconds.

    Raises:
        UserError: torchvision is not installed, or has the names elsewhere.
    """
    found = find_spec("torchvision")
    file = Path(found.origin if found and found.origin else "torchvision").parent / "models" / "_meta.py"
    try:
        tree = ast.parse(unedited.read(file))
    except OSError as error:
        raise UserError(f"classes: imagenet: {file} cannot be read ({error.strerror}); is torchvision there?") from None
    for node in tree.body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "_IMAGENET_CATEGORIES":
            names = ast.literal_eval(node.value)
            count = Counter(names)
            return [name if count[name] == 1 else f"{name} ({number})" for number, name in enumerate(names)]
    raise UserError(f"classes: imagenet: {file} has no names of classes")


def numbered(label: str, classes: list[str] | None) -> str | int:
    """Return the number in a label, if classes have names and none of these is a number; otherwise the label."""
    number = label.isascii() and label.isdecimal()
    named = classes is not None and not any(name.isdecimal() for name in classes)
    return int(label) if number and named else label


def within(folder: Path, name: str) -> Path:
    """Return the path of a file in a folder by its name.

    Raises:
        UserError: it lies elsewhere, where DVC would not notice a change.
    """
    if not name or Path(name).is_absolute() or ".." in Path(name).parts:
        raise UserError(f"{name!r} is not within {folder}; expected a file in it (a link will do)")
    return folder / name
