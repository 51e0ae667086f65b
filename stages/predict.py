"""Predict the held-out images: `python -m stages.predict CLASSIFIER` writes `data/predictions/<classifier>.zarr`.

Per image of the dataset's test split: the probability of the label, and the five most probable classes.
"""

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from stages import keys
from stages.params import canonical, command, load, path
from stages.rows import Field, Rows, Table
from stages.stores import read

if TYPE_CHECKING:
    from stages.classifier import Classifier

TOP = 5


def main(study: Path, classifier: str) -> None:
    """Make the missing predictions, then assemble the output."""
    params = load(study)
    spec = params["classifiers"][classifier]
    store = read(path(study, "datasets", spec["dataset"]), f"the dataset {spec['dataset']}")
    held_out = np.flatnonzero(store["split"][:] == "test")
    pixels, labels = store["pixels"], store["label"][:][held_out]
    with Rows(
        study, f"predict@{classifier}", path(study, "predictions", classifier), params["stores"]["shard_rows"]
    ) as rows:
        pictures = [pixels[int(i)] for i in held_out]
        table = plan(study, params, classifier, store["image"][:][held_out], pictures, labels)
        missing = rows.missing(table)
        passes = compute(study, params, classifier, pictures, labels, table, missing, rows) if len(missing) else {}
        rows.finish([table], {})
        rows.log(passes)


def plan(
    study: Path, params: dict, classifier: str, ids: np.ndarray, pictures: list[np.ndarray], labels: np.ndarray
) -> Table:
    """Say which predictions there are to be, by key."""
    reached = keys.code(("stages.predict", "predictions"), ("stages.predict", "probabilities"))
    shared = keys.digest(reached, canonical(params["engine"]), keys.classifier(study, params, classifier))
    made = b"".join(
        keys.digest(shared, picture.tobytes(), list(picture.shape), int(label))
        for picture, label in zip(pictures, labels, strict=True)
    )
    top = Field(("top",), (TOP,), "float32", {"long_name": "Probability of the most probable classes"})
    fields = {
        "probability": Field((), (), "float32", {"long_name": "Probability of the label"}),
        "top_probability": top,
        "top_class": Field(("top",), (TOP,), "int64", {"long_name": "The most probable classes, -1 past the last"}),
    }
    coords = {"image": (("image",), ids), "label": (("image",), labels)}
    return Table("", ("image",), np.frombuffer(made, "uint8").reshape(-1, keys.SIZE), fields, coords)


def compute(
    study: Path,
    params: dict,
    classifier: str,
    pictures: list[np.ndarray],
    labels: np.ndarray,
    table: Table,
    missing: np.ndarray,
    rows: Rows,
) -> dict[str, dict[str, int]]:
    """Make the missing predictions batch by batch."""
    from stages.classifier import load as load_classifier
    from stages.classifier import start

    engine = params["engine"]
    start(engine)
    folder = path(study, "classifiers", classifier)
    loaded = load_classifier(folder, classifier, params["classifiers"][classifier]["network"], engine)
    size = 8 * engine["batch"]
    for part in (missing[at : at + size] for at in range(0, len(missing), size)):
        found = probabilities(loaded, np.stack([pictures[i] for i in part]))
        rows.put(table, part, predictions(found, labels[part]))
    return {"predict": dict(loaded.passes)}


def probabilities(classifier: "Classifier", pixels: np.ndarray) -> np.ndarray:
    """Give the probability of every class for images of 8 bits."""
    import torch

    return classifier.probabilities(torch.from_numpy(pixels).to(classifier.device).float().div(255)).cpu().numpy()


def predictions(probabilities: np.ndarray, labels: np.ndarray) -> dict[str, np.ndarray]:
    """Keep of the probabilities what the selection of images needs."""
    order = np.argsort(-probabilities, axis=1, kind="stable")[:, :TOP]
    rows = np.arange(len(labels))
    top = np.full((len(labels), TOP), np.nan, "float32")
    classes = np.full((len(labels), TOP), -1)
    top[:, : order.shape[1]] = np.take_along_axis(probabilities, order, axis=1)
    classes[:, : order.shape[1]] = order
    return {"probability": probabilities[rows, labels], "top_probability": top, "top_class": classes}


if __name__ == "__main__":
    command(main)
