"""Predict the held-out images: `python -m stages.predict CLASSIFIER` writes `data/predictions/<classifier>.zarr`.

For each image of the dataset's test split: the probability of its label, and the five most probable classes. If an
image may have several labels, each has its own probability, and the attribute `several` is true.
"""

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from atlas.cache import keys
from atlas.cache.cells import of_cell
from atlas.cache.rows import Rows
from atlas.cache.stores import values
from atlas.cache.tables import Field, Table
from atlas.inputs.audit.building import load_classifier
from atlas.inputs.splits import Split, split
from atlas.study.params import command, load
from atlas.study.schema.labels import several_labels
from atlas.study.schema.settings import canonical

if TYPE_CHECKING:
    from atlas.model.classifier import Classifier

TOP = 5


def main(study: Path, classifier: str) -> None:
    """Compute the missing predictions, then assemble the output."""
    visit(study, classifier, finish=True)


def compute_to_journal(study: Path, classifier: str) -> None:
    """Compute the missing predictions into the journal, without assembling the output: for a warm worker."""
    visit(study, classifier, finish=False)


def visit(study: Path, classifier: str, *, finish: bool) -> None:
    """Look up the rows, compute the missing ones, and assemble the output if `finish`."""
    params = load(study)
    images = split(study, params["classifiers"][classifier]["dataset"], "test")
    with of_cell(study, params, "predict", "predictions", classifier) as rows:
        table = plan(study, params, classifier, images)
        missing = rows.missing(table)
        passes = compute(study, params, classifier, images, table, missing, rows) if len(missing) else {}
        if finish:
            rows.finish([table], {})
        rows.log(passes)


def count_missing(study: Path, classifier: str) -> tuple[int, int]:
    """Return the number of predictions of a cell, and of those that are missing."""
    params = load(study)
    images = split(study, params["classifiers"][classifier]["dataset"], "test")
    with of_cell(study, params, "predict", "predictions", classifier, wait=False) as rows:
        return rows.count_missing([plan(study, params, classifier, images)])


def plan(study: Path, params: dict, classifier: str, images: Split) -> Table:
    """Return the planned predictions with their keys; the images are read a few at a time."""
    reached = keys.code(("stages.predict", "predictions"), ("stages.predict", "probabilities"))
    shared = keys.digest(reached, canonical(params["engine"]), keys.classifier(study, params, classifier))
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
    coords = {"image": (("image",), ids), "label": (("image",), images.labels)}
    several = several_labels(params["classifiers"][classifier]["network"].get("output"))
    attrs = {"several": True} if several else {}
    return Table("", ("image",), np.frombuffer(made, "uint8").reshape(-1, keys.SIZE), fields, coords, attrs)


def compute(
    study: Path,
    params: dict,
    classifier: str,
    images: Split,
    table: Table,
    missing: np.ndarray,
    rows: Rows,
) -> dict[str, dict[str, int]]:
    """Compute the missing predictions batch by batch."""
    engine = params["engine"]
    loaded = load_classifier(study, params, classifier)
    size = images.at_a_time(engine["batch"])
    for part in (missing[at : at + size] for at in range(0, len(missing), size)):
        found = probabilities(loaded, images.pixels(part))
        rows.put(table, part, predictions(found, images.labels[part]))
    return {"predict": dict(loaded.passes)}


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


if __name__ == "__main__":
    command(main)
