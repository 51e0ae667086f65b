"""Predict the held-out images: `python -m stages.predict CLASSIFIER` writes `data/predictions/<classifier>.zarr`.

For each image of the dataset's test split: the probability of its label, and the five most probable classes. If an
image may have several labels, each has its own probability, and the attribute `several` is true.
"""

from collections.abc import Iterator
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from atlas.cache import keys
from atlas.cache.rows import RowStore
from atlas.cache.stores import values
from atlas.cache.tables import Coords, Field, Table
from atlas.inputs.cell_runner import Batch, Cell, Part, Stage, Work, run_cell
from atlas.inputs.splits import Split, split
from atlas.study.command import command
from atlas.study.schema.labels import several_labels
from atlas.study.schema.settings import canonical

if TYPE_CHECKING:
    from atlas.model.classifier import Classifier

TOP = 5


class PredictionPlan(NamedTuple):
    """The predictions of a dataset's test split."""

    images: Split
    table: Table


def plan(cell: Cell) -> list[PredictionPlan]:
    """Return the planned predictions with their keys; the images are read a few at a time."""
    study, classifier, _ = cell
    images = split(study, study.classifier(classifier)["dataset"], "test")
    reached = keys.code(("stages.predict", "predictions"), ("stages.predict", "probabilities"))
    shared = keys.digest(reached, canonical(study.engine), keys.classifier(study, classifier))
    made = b"".join(
        keys.digest(shared, picture.tobytes(), list(picture.shape), int(label))
        for part in images.blocks()
        for picture, label in zip(images.pixels(part), images.labels[part], strict=True)
    )
    top = Field(("top",), (TOP,), "float32", {"long_name": "Probability of the most probable classes"})
    fields = {
        "probability": Field((), (), "float32", {"long_name": "Probability of the label"}),
        "top_probability": top,
        "top_class": Field(("top",), (TOP,), "int64", {"long_name": "The most probable classes, -1 past the last"}),
    }
    ids = values(images.store, "image")[images.rows]
    coords: Coords = {"image": (("image",), ids), "label": (("image",), images.labels)}
    several = several_labels(study.classifier(classifier)["network"].get("output"))
    attrs = {"several": True} if several else {}
    table = Table("", ("image",), np.frombuffer(made, "uint8").reshape(-1, keys.SIZE), fields, coords, attrs)
    return [PredictionPlan(images, table)]


def batches(work: Work, classifier: "Classifier") -> Iterator[Batch]:
    """Yield the missing predictions batch by batch."""
    (plan,), missing = work.plans, work.missing[0]
    size = plan.images.at_a_time(work.cell.study.engine["batch"])
    for at in range(0, len(missing), size):
        positions = missing[at : at + size]
        make = partial(predict, plan, positions, classifier, work.rows)
        yield Batch([Part("predict", positions.tobytes())], make, passes="predict")


def predict(plan: PredictionPlan, positions: np.ndarray, classifier: "Classifier", rows: RowStore) -> None:
    """Compute the predictions of a batch and journal them."""
    found = probabilities(classifier, plan.images.pixels(positions))
    rows.put(plan.table, positions, predictions(found, plan.images.labels[positions]))


def probabilities(classifier: "Classifier", pixels: np.ndarray) -> np.ndarray:
    """Return the probability of every class for 8-bit images."""
    import torch

    return classifier.probabilities(torch.from_numpy(pixels).to(classifier.device).float().div(255)).cpu().numpy()


def predictions(probabilities: np.ndarray, labels: np.ndarray) -> dict[str, np.ndarray]:
    """Return the part of the probabilities that the selection of images needs."""
    order = np.argsort(-probabilities, axis=1, kind="stable")[:, :TOP]
    rows = np.arange(len(labels))
    top = np.full((len(labels), TOP), np.nan, "float32")
    classes = np.full((len(labels), TOP), -1)
    top[:, : order.shape[1]] = np.take_along_axis(probabilities, order, axis=1)
    classes[:, : order.shape[1]] = order
    return {"probability": probabilities[rows, labels], "top_probability": top, "top_class": classes}


STAGE = Stage("predict", "predictions", plan, batches)
main = partial(run_cell, STAGE)

if __name__ == "__main__":
    command(main, "classifier")
