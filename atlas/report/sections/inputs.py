"""The page's part on datasets and classifiers: what was left out, where weights come from, predictions."""

from pathlib import Path
from typing import Any

import numpy as np

from atlas.cache.stores import read, values
from atlas.report.images.gallery import Predicted
from atlas.report.sections.page import spelled
from atlas.study import cards, params
from atlas.study.missing import is_draft, missing
from atlas.study.schema.signatures import signature

DIGITS = 12  # digits shown of a SHA-256
# Notes for metrics whose boxes or masks were derived from the other kind.
MADE = {
    "masks": ("mask_from", "boxes", "The mask of an image is the union of its boxes, as the dataset has no masks"),
    "boxes": ("boxes_from", "mask", "The box of an image is the one around its mask, as the dataset has no boxes"),
}


def classifiers(study: Path, given: dict) -> list[dict[str, Any]]:
    """Return the page's facts on each classifier."""
    return [_classifier(study, given, name) for name in given["classifiers"]]


def _classifier(study: Path, given: dict, name: str) -> dict[str, Any]:
    known, entry = cards.card(study, name), given["classifiers"][name]
    images = read(params.path(study, "images", name) / "images", "the evaluation images")["image"].shape[0]
    grids = 0
    if entry["grids"] is not None:
        grids = read(params.path(study, "grids", name) / "grids", "the grids")["grid"].shape[0]
    source, recipe = known.get("source"), known.get("recipe")
    return {
        "name": name,
        "dataset": entry["dataset"],
        "images": images,
        "grids": grids,
        **cards.accuracies(study, name),
        "top5": known.get("top5", np.nan) if source else np.nan,
        **{count: known.get(count, 0) for count in ("judged_on", "attacked")},
        "attack": spelled(known.get("adversary") or {}),
        "trained_here": recipe is not None,
        "trained_against": spelled((recipe or {}).get("adversary") or {}),
        "source": source and {"name": source.get("file") or source.get("tag"), "sha256": source["sha256"][:DIGITS]},
        "warning": known.get("warning") or "",
    }


def datasets(study: Path, given: dict) -> list[dict[str, Any]]:
    """Return the datasets with pictures that could not be used, with their names and reasons."""
    attrs = {name: _attrs(study, name) for name in _used(given)}
    return [{"name": name, "left_out": known["left_out"]} for name, known in attrs.items() if known.get("left_out")]


def made_of_the_other(study: Path, given: dict) -> dict[str, list[str]]:
    """Return for each metric that declares boxes, or masks, whether a dataset derives them from the other."""
    found: dict[str, list[str]] = {}
    attrs = {name: _attrs(study, name) for name in _used(given)}
    for one in [one for listed in params.entries(given, "metrics").values() for one in listed.values()]:
        for asked in signature("metrics", one.family, one.function).inputs:
            key, value, words = MADE.get(asked, ("", "", ""))
            of = [name for name, known in attrs.items() if known.get(key) == value]
            if of:
                where = f" ({', '.join(of)})" if len(of) < len(attrs) else ""
                found.setdefault(one.name, []).append(f"{words}{where}.")
    return found


def predicted(study: Path, classifier: str, images: list[str]) -> dict[str, Predicted]:
    """Return a classifier's predictions on some images, by image; empty in a draft without predictions."""
    if f"predict@{classifier}" in missing(study):
        return {}
    path = params.path(study, "predictions", classifier)
    if is_draft(study) and not path.exists():
        return {}
    store, classes = read(path, f"the predictions of {classifier}"), cards.card(study, classifier)["classes"]
    at = {str(image): row for row, image in enumerate(values(store, "image").tolist())}
    rows = np.array([at[image] for image in images if image in at], dtype=int)
    names = ("label", "probability", "top_class", "top_probability")
    columns = [values(store, name, rows).tolist() for name in names]
    return {
        image: Predicted(
            classes[label],
            probability,
            [(classes[one], share) for one, share in zip(top, shares, strict=True) if one >= 0],
            store.attrs.get("several", False),
        )
        for image, label, probability, top, shares in zip(
            [image for image in images if image in at], *columns, strict=True
        )
    }


def _used(given: dict) -> list[str]:
    return list(dict.fromkeys(entry["dataset"] for entry in given["classifiers"].values()))


def _attrs(study: Path, dataset: str) -> dict[str, Any]:
    if f"collect@{dataset}" in missing(study):
        return {}
    return dict(read(params.path(study, "datasets", dataset), f"the dataset {dataset}").attrs)
