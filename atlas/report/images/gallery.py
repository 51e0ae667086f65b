"""The images of the page with their maps, and a classifier's predictions on them."""

from concurrent.futures import Executor
from itertools import repeat
from typing import Any, NamedTuple

import numpy as np

from atlas.report.images import pictures

FINE = 128  # side in pixels beyond which a picture is shown larger, without magnification


class Predicted(NamedTuple):
    """A classifier's prediction on an image: the probability of the label, and the most probable classes, best first.

    If an image may have `several` labels, each has a separate probability.
    """

    label: str
    probability: float
    classes: list[tuple[str, float]]
    several: bool = False


class Shown(NamedTuple):
    """An evaluation image of a classifier and its maps by method, without methods that have no map."""

    image: str
    target: str
    pixels: np.ndarray
    maps: dict[str, np.ndarray]
    predicted: Predicted | None = None


def gallery(
    shown: dict[str, list[Shown]], methods: list[dict[str, Any]], *, side: int, processes: Executor
) -> list[dict[str, Any]]:
    """Return each chosen image with its maps by every method; a method's maps are signed if one of them is.

    Args:
        shown: Images by classifier.
        methods: In the order to show them.
        side: The largest side of a picture in pixels.
        processes: Processes that draw the maps.
    """
    names = [one["name"] for one in methods]
    around_zero = {classifier: signed(listed, names) for classifier, listed in shown.items()}
    there = [(classifier, one) for classifier, listed in shown.items() for one in listed]
    jobs = [
        (one.maps[name], f"Map of {name}: {_named(one)}", name in around_zero[classifier])
        for classifier, one in there
        for name in names
        if name in one.maps
    ]
    drawn = processes.map(_map, *zip(*jobs, strict=True), repeat(side), chunksize=16) if jobs else iter(())
    panels = []
    for classifier, one in there:
        tiles = [
            {
                **{key: method[key] for key in ("name", "control")},
                "signed": method["name"] in around_zero[classifier],
                "picture": next(drawn) if method["name"] in one.maps else None,
            }
            for method in methods
        ]
        picture = pictures.image(one.pixels, f"The image: {_named(one)}", side=side)
        known = {"classifier": classifier, "image": one.image, "target": one.target, "predicted": one.predicted}
        fine = max(picture.width, picture.height) > FINE
        panels.append({**known, "picture": picture, "fine": fine, "tiles": tiles, "channels": len(one.pixels)})
    return panels


def signed(listed: list[Shown], methods: list[str]) -> set[str]:
    """Return the methods with a negative value in any map."""
    return {name for name in methods if any(one.maps[name].min() < 0 for one in listed if name in one.maps)}


def _map(values: np.ndarray, alt: str, around_zero: bool, side: int) -> pictures.Picture:
    return pictures.attribution(values, alt, signed=around_zero, side=side)


def _named(one: Shown) -> str:
    return f"{one.target}, image {one.image}"
