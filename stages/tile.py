"""Build the grids of a classifier: `python -m stages.tile CLASSIFIER` writes `data/grids/<classifier>.zarr`.

A grid is an n × n composite of images of distinct classes that the classifier is sure of; no image is used twice. The
group `background` holds composites of the background images, as many as these suffice for. If the classifier's entry
has no section grids, the store is empty, and its attribute `absent` says why.
"""

from pathlib import Path

import numpy as np
import zarr

from atlas.cache.stores import Streamed, array_of, read, values, write
from atlas.study.command import command
from atlas.study.errors import UserError
from atlas.study.schema.types import Count, Share
from atlas.study.study import Study


def main(folder: Path, classifier: str) -> None:
    """Choose the images of every grid and compose them, row by row; without a section grids, record that."""
    study = Study(folder)
    study.check_names(classifier=classifier)
    spec = study.classifier(classifier)
    rules, output = spec["grids"], study.path("grids", classifier)
    if rules is None:
        write(output, {}, {"absent": f"classifiers.{classifier}.grids is null"})
        return
    known = read(study.path("images", classifier) / "candidates", "the candidate images")
    store = read(study.path("datasets", spec["dataset"]), f"the dataset {spec['dataset']}")
    labels, confidence = values(known, "label"), values(known, "confidence")
    try:
        chosen = members(labels, confidence, **rules)
    except ValueError as short:
        raise UserError(f"params.yaml: classifiers.{classifier}.grids: {short}") from None
    ids = values(known, "image")[chosen]
    n, places = rules["tiles_per_side"], values(known, "position")[chosen]
    alone = read(study.path("images", classifier) / "background", "the background images")
    others = array_of(alone, "image").shape[0]
    around = np.add.outer(np.arange(others), np.arange(n * n)) % max(1, others)
    write(
        output,
        {
            "grids": {
                "grid": (("grid",), np.array(["+".join(row) for row in ids])),
                "pixels": (("grid", "channel", "y", "x"), _composed(store, places, n)),
                "target": (("grid", "tile"), labels[chosen]),
                "member": (("grid", "tile"), ids),
            },
            "background": {"pixels": (("image", "channel", "y", "x"), _composed(alone, around, n))},
        },
        {},
    )


def members(
    labels: np.ndarray, confidence: np.ndarray, *, tiles_per_side: Count, confidence_at_least: Share, count: Count
) -> np.ndarray:
    """Choose, grid by grid, the next unused images of classes that the grid does not have yet.

    The candidates' order is seeded, so a larger count has the smaller one's grids as its prefix. Images of a frequent
    class accumulate at the head of the queue, so the tile of a grid's first image rotates from grid to grid; otherwise
    one tile would get more of that class than the others.

    Args:
        tiles_per_side: n of an n × n grid.
        confidence_at_least: The smallest probability of the label of each image.
        count: How many grids.

    Raises:
        ValueError: the images run out; the message says where.
    """
    unused = list(np.flatnonzero(confidence >= confidence_at_least))
    grids: list[np.ndarray] = []
    for number in range(count):
        grid: list[int] = []
        for i in unused:
            if len(grid) < tiles_per_side**2 and labels[i] not in labels[grid]:
                grid.append(int(i))
        if len(grid) < tiles_per_side**2:
            sure = int((confidence >= confidence_at_least).sum())
            raise ValueError(
                f"count = {count}, but after {number} grids no {tiles_per_side**2} images of distinct classes are left "
                f"of {sure} with confidence at least {confidence_at_least} (of {len(labels)} candidates)"
            )
        unused = [i for i in unused if i not in grid]
        grids.append(np.roll(grid, number))
    return np.array(grids, dtype=int).reshape(count, tiles_per_side**2)


def compose(tiles: list[np.ndarray], n: int) -> np.ndarray:
    """Arrange n × n images row by row."""
    rows = [np.concatenate(tiles[i * n : (i + 1) * n], axis=2) for i in range(n)]
    return np.concatenate(rows, axis=1)


def _composed(store: zarr.Group, members: np.ndarray, n: int) -> Streamed:
    """Return grids of a store's images, by the positions of each grid's images, composed when requested."""
    pixels = array_of(store, "pixels")
    channels, height, width = pixels.shape[1:]

    def rows(start: int, stop: int) -> np.ndarray:
        return np.stack([compose(list(values(store, "pixels", row)), n) for row in members[start:stop]])

    return Streamed((len(members), channels, n * height, n * width), pixels.dtype, rows)


if __name__ == "__main__":
    command(main, "classifier")
