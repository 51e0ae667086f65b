"""The page's part on datasets and classifiers: what was left out, where weights come from, predictions."""

from typing import Any

import numpy as np

from atlas.cache.stores import array_of, read, values
from atlas.report.images.gallery import Predicted
from atlas.report.sections.page import formatted
from atlas.study.schema.signatures import signature
from atlas.study.study import Study

DIGITS = 12  # digits shown of a SHA-256
# Notes for metrics whose boxes or masks were derived from the other kind.
MADE = {
    "masks": ("mask_from", "boxes", "The mask of an image is the union of its boxes, as the dataset has no masks"),
    "boxes": ("boxes_from", "mask", "The box of an image is the one around its mask, as the dataset has no boxes"),
}


def classifiers(study: Study) -> list[dict[str, Any]]:
    """Return the page's facts on each classifier."""
    return [_classifier(study, name) for name in study.params["classifiers"]]


def _classifier(study: Study, name: str) -> dict[str, Any]:
    known, entry = study.card(name), study.classifier(name)
    images = array_of(read(study.path("images", name) / "images", "the evaluation images"), "image").shape[0]
    grids = 0
    if entry["grids"] is not None:
        grids = array_of(read(study.path("grids", name) / "grids", "the grids"), "grid").shape[0]
    source, recipe = known.get("source"), known.get("recipe")
    return {
        "name": name,
        "dataset": entry["dataset"],
        "images": images,
        "grids": grids,
        **study.accuracies(name),
        "top5": known.get("top5", np.nan) if source else np.nan,
        **{count: known.get(count, 0) for count in ("evaluated_on", "attacked")},
        "attack": formatted(known.get("adversary") or {}),
        "trained_here": recipe is not None,
        "trained_against": formatted((recipe or {}).get("adversary") or {}),
        "source": source and {"name": source.get("file") or source.get("tag"), "sha256": source["sha256"][:DIGITS]},
        "warning": known.get("warning") or "",
    }


def datasets(study: Study) -> list[dict[str, Any]]:
    """Return the datasets with pictures that could not be used, with their names and reasons."""
    attrs = {name: _attrs(study, name) for name in _used(study)}
    return [{"name": name, "left_out": known["left_out"]} for name, known in attrs.items() if known.get("left_out")]


def made_of_the_other(study: Study) -> dict[str, list[str]]:
    """Return for each metric that declares boxes, or masks, whether a dataset derives them from the other."""
    found: dict[str, list[str]] = {}
    attrs = {name: _attrs(study, name) for name in _used(study)}
    for one in study.all_metrics.values():
        for asked in signature("metrics", one.family, one.function).inputs:
            key, value, words = MADE.get(asked, ("", "", ""))
            of = [name for name, known in attrs.items() if known.get(key) == value]
            if of:
                where = f" ({', '.join(of)})" if len(of) < len(attrs) else ""
                found.setdefault(one.name, []).append(f"{words}{where}.")
    return found


def predicted(study: Study, classifier: str, images: list[str]) -> dict[str, Predicted]:
    """Return a classifier's predictions on some images, by image; empty in a draft without predictions."""
    if f"predict@{classifier}" in study.missing:
        return {}
    path = study.path("predictions", classifier)
    if study.is_draft and not path.exists():
        return {}
    store, classes = read(path, f"the predictions of {classifier}"), study.card(classifier)["classes"]
    at = {str(image): row for row, image in enumerate(values(store, "image").tolist())}
    rows = np.array([at[image] for image in images if image in at], dtype=int)
    names = ("label", "probability", "top_class", "top_probability")
    columns = [values(store, name, rows).tolist() for name in names]
    return {
        image: Predicted(
            classes[label],
            probability,
            [(classes[one], share) for one, share in zip(top, shares, strict=True) if one >= 0],
            bool(store.attrs.get("several", False)),
        )
        for image, label, probability, top, shares in zip(
            [image for image in images if image in at], *columns, strict=True
        )
    }


def _used(study: Study) -> list[str]:
    return list(dict.fromkeys(entry["dataset"] for entry in study.params["classifiers"].values()))


def _attrs(study: Study, dataset: str) -> dict[str, Any]:
    if f"collect@{dataset}" in study.missing:
        return {}
    return dict(read(study.path("datasets", dataset), f"the dataset {dataset}").attrs)
