"""Read the card of a trained classifier: what is known of it."""

import json
import math
from pathlib import Path
from typing import Any

from atlas.study.errors import UserError


def read(folder: Path) -> dict[str, Any]:
    """Read the card in a classifier's folder: a mapping that includes the names of the classes.

    Raises:
        UserError: there is none, or it is not valid.
    """
    path = folder / "card.json"
    try:
        known = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: cannot be read ({error}); run stages.prepare again") from None
    classes = known.get("classes") if isinstance(known, dict) else None
    if not isinstance(classes, list) or not all(isinstance(name, str) for name in classes):
        raise UserError(
            f"{path}: is no card: expected a mapping with 'classes', a list of names; run stages.prepare again"
        )
    return known


def normalization(folder: Path) -> tuple[list[float], list[float]]:
    """Return the mean and standard deviation of every channel with which a classifier normalizes images.

    Raises:
        UserError: the card does not state them.
    """
    known = read(folder)
    found: list[Any] = [known.get(name) for name in ("mean", "std")]
    for values in found:
        numbers = isinstance(values, list) and all(type(value) in (int, float) for value in values)
        if not numbers or not values or len(values) != len(found[0]) or not all(map(math.isfinite, values)):
            expected = "expected 'mean' and 'std', one finite number for each channel"
            raise UserError(
                f"{folder / 'card.json'}: {expected}, got {found[0]} and {found[1]}; run stages.prepare again"
            )
    if 0 in found[1]:
        raise UserError(
            f"{folder / 'card.json'}: 'std' is {found[1]}, expected numbers above 0; run stages.prepare again"
        )
    return found[0], found[1]


def weights(folder: Path) -> bytes:
    """Read a classifier's weights.

    Raises:
        UserError: there are none.
    """
    path = folder / "weights.safetensors"
    try:
        return path.read_bytes()
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error}); run stages.prepare again") from None


def computing(folder: Path) -> list[Any]:
    """Return what a classifier's logits depend on besides weights and code: classes, normalization and form.

    The form, fast or plain, is None if the card states none: then weights and code determine it.
    """
    known = read(folder)
    return [known["classes"], *normalization(folder), (known.get("form") or {}).get("runs")]
