"""Select the evaluation images of a classifier: `python -m stages.select CLASSIFIER`.

Writes `data/images/<classifier>.zarr` with three groups: `images`, the evaluation images with their pixels, and boxes
and masks if the dataset has any; `candidates`, all images that pass the rules, from which grids are built; and
`background`, held-out images outside these, which methods use for comparison. Two classifiers with the same dataset and
the same rules get the same images, so that their scores are paired. If an image may have several labels, a row of
`images` is one of them, and `picture` numbers the pictures.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import numpy as np
import zarr

from atlas.cache.keys import digest
from atlas.cache.stores import Streamed, array_of, read, values, write
from atlas.study.command import command
from atlas.study.errors import UserError
from atlas.study.schema.labels import PRESENT, several_labels
from atlas.study.schema.types import Count, Share
from atlas.study.seeds import order
from atlas.study.study import Study

READ_BYTES = 2**24  # of pixels read at a time


def main(folder: Path, classifier: str) -> None:
    """Apply the rules and write the images that pass them, in a seeded order whose prefix is stable."""
    study = Study(folder)
    study.check_names(classifier=classifier)
    spec = study.classifier(classifier)
    where, rules = f"classifiers.{classifier}.images", spec["images"]
    store = read(study.path("datasets", spec["dataset"]), f"the dataset {spec['dataset']}")
    known = store.attrs["known"]
    if not known and rules["boxes_exactly"] is not None:
        message = (
            f"boxes_exactly = {rules['boxes_exactly']}, but the dataset {spec['dataset']} has neither boxes nor masks"
        )
        raise UserError(f"params.yaml: {where}: {message}; expected null")
    held_out = np.flatnonzero(values(store, "split") == "test")
    ids, labels, boxes = (values(store, name)[held_out] for name in ("image", "label", "boxes"))
    predictions = {name: _predictions(study, name, ids, where) for name in {classifier, *rules["correct_by"]}}
    side = array_of(store, "pixels").shape[-2:]
    reserved = np.array(order(study.seed, ids.tolist(), "background")[: rules["background"]], dtype=int)
    # By all classifiers of the dataset, so that all of them get the same images.
    alike = [one["network"] for one in study.params["classifiers"].values() if one["dataset"] == spec["dataset"]]
    several = any(several_labels(network.get("output")) for network in alike)
    taken = _of_same_pictures(store, held_out, reserved) if several else reserved
    passing, message = eligible(labels, boxes, side, predictions, taken, **rules)
    ranked = [int(passing[i]) for i in order(study.seed, ids[passing].tolist(), "select")]
    count = len(ranked) if rules["count"] is None else rules["count"]
    if len(ranked) < max(1, count):
        raise UserError(f"params.yaml: {where}: count = {rules['count']}, but {message}")
    chosen = np.array(ranked[:count], dtype=int)
    own = predictions[classifier]["top_class"][:, 0]
    target = labels if rules["target"] == "label" else own
    confidence = np.min([known["probability"] for known in predictions.values()], axis=0)
    inputs: dict = {"picture": (("image",), _pictures(store, held_out[chosen]))} if several else {}
    if known:
        inputs["mask"] = ("image", "y", "x"), _streamed(store, "mask", held_out[chosen])
        inputs["boxes"] = ("image", "box", "corner"), boxes[chosen]
    write(
        study.path("images", classifier),
        {
            "images": {
                "image": (("image",), ids[chosen]),
                "pixels": (("image", "channel", "y", "x"), _streamed(store, "pixels", held_out[chosen])),
                **inputs,
                "label": (("image",), labels[chosen]),
                "target": (("image",), target[chosen]),
                "probability": (("image",), predictions[classifier]["probability"][chosen]),
            },
            "background": {
                "image": (("image",), ids[reserved]),
                "pixels": (("image", "channel", "y", "x"), _streamed(store, "pixels", held_out[reserved])),
            },
            "candidates": {
                "image": (("image",), ids[ranked]),
                "position": (("image",), held_out[ranked]),
                "label": (("image",), labels[ranked]),
                "confidence": (("image",), confidence[ranked]),
            },
        },
        {"rules": message, "classes": store.attrs["classes"], "dataset": spec["dataset"], "known": known},
    )


def eligible(
    labels: np.ndarray,
    boxes: np.ndarray,
    side: tuple[int, ...],
    predictions: dict[str, dict[str, np.ndarray]],
    reserved: np.ndarray,
    *,
    boxes_exactly: int | None = None,
    box_area_at_most: Share = 1.0,
    correct_by: list[str] = [],  # noqa: B006 - it is never added to
    confidence_at_least: Share = 0.0,
    count: Count | None = None,
    background: int = 0,
    target: Literal["label", "prediction"] = "label",
) -> tuple[np.ndarray, str]:
    """Return the positions of the images that pass the rules, and a text on how many each rule leaves.

    Args:
        boxes_exactly: How many boxes an image must have; null for any.
        box_area_at_most: The largest share of the image that its largest box may cover.
        correct_by: Classifiers that must predict the label.
        confidence_at_least: The smallest probability of the label by each of these.
        count: How many images are taken, in the seeded order; null for all.
        background: How many held-out images are reserved beforehand, in a seeded order of their own, for methods that
            compare with other images. They are `reserved`, along with rows of the same pictures under other labels if a
            picture may have several. With 0, these methods have no maps.
        target: The class that is explained.
    """
    there = boxes[:, :, 0] >= 0
    area = (boxes[..., 2] - boxes[..., 0]) * (boxes[..., 3] - boxes[..., 1]) * there / (side[0] * side[1])
    rules = {"held-out images": np.ones(len(labels), bool)}
    rules[f"not among the {len(reserved)} of the background"] = ~np.isin(np.arange(len(labels)), reserved)
    if boxes_exactly is not None:
        rules[f"with {boxes_exactly} box(es)"] = there.sum(axis=1) == boxes_exactly
    rules[f"with boxes over at most {box_area_at_most:.0%} of the image"] = area.max(axis=1) <= box_area_at_most
    for name in correct_by:
        known = predictions[name]
        rules[f"that {name} gets right"] = right(known, labels)
        rules[f"with confidence of {name} at least {confidence_at_least}"] = known["probability"] >= confidence_at_least
    left, message = np.ones(len(labels), bool), []
    for rule, passes in rules.items():
        left &= passes
        message.append(f"{left.sum()} {rule}")
    return np.flatnonzero(left), ", of these ".join(message)


def right(known: dict[str, np.ndarray], labels: np.ndarray) -> np.ndarray:
    """Return where a classifier predicts the label; one of several labels, where its probability is at least a half."""
    return known["probability"] >= PRESENT if known.get("several") else known["top_class"][:, 0] == labels


def _streamed(store: zarr.Group, name: str, rows: np.ndarray) -> Streamed:
    """Return rows of an array of the dataset that are read when requested."""
    about = array_of(store, name)
    return Streamed(
        (len(rows), *about.shape[1:]), about.dtype, lambda start, stop: values(store, name, rows[start:stop])
    )


def _of_same_pictures(store: zarr.Group, held_out: np.ndarray, reserved: np.ndarray) -> np.ndarray:
    """Return the positions of the held-out images whose pixels equal those of a reserved image."""
    known = set(_pixels(store, held_out[reserved]))
    return np.flatnonzero([one in known for one in _pixels(store, held_out)]) if known else reserved


def _pictures(store: zarr.Group, rows: np.ndarray) -> np.ndarray:
    """Number pictures in order of appearance: rows of the dataset with equal pixels are of the same picture."""
    known: dict[bytes, int] = {}
    return np.array([known.setdefault(one, len(known)) for one in _pixels(store, rows)], dtype=int)


def _pixels(store: zarr.Group, rows: np.ndarray) -> Iterator[bytes]:
    """Yield a digest of each row's pixels, which are read a few rows at a time."""
    at_a_time = max(1, READ_BYTES // int(np.prod(array_of(store, "pixels").shape[1:])))
    for start in range(0, len(rows), at_a_time):
        yield from (digest(one.tobytes()) for one in values(store, "pixels", rows[start : start + at_a_time]))


def _predictions(study: Study, name: str, ids: np.ndarray, where: str) -> dict[str, np.ndarray]:
    store = read(study.path("predictions", name), f"the predictions of {name}")
    if values(store, "image").tolist() != ids.tolist():
        raise UserError(f"params.yaml: {where}: the predictions of {name} are of other images; make them again")
    found = {field: values(store, field) for field in ("probability", "top_class")}
    return found | {"several": np.array(store.attrs.get("several", False))}


if __name__ == "__main__":
    command(main, "classifier")
