"""Write the report: one page of HTML that holds all it shows, a picture and a table for a README."""

import json
import shutil
import uuid
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape

from stages import params
from stages.figures import order, overview, page, pictures, words
from stages.figures.page import Shown
from stages.gaps import is_draft, missing
from stages.problem import Problem
from stages.stores import read, replace

TEMPLATES = Path(page.__file__).parent


def main(study: Path) -> None:
    """Write the report on data/results/ into data/report/."""
    given = params.load(study)
    report(study, given, **params.settings("report", given.get("report", {}), "report", "report"))


def report(study: Path, given: dict, *, title: str, question: str, images: int, pixels: int, unmoved: float) -> None:
    """Write data/report/: index.html, atlas.png and leaderboard.md.

    Args:
        study: The folder of params.yaml.
        given: What it says.
        title: Of the page.
        question: What the study asks, in a sentence.
        images: How many images of each classifier are shown with their maps.
        pixels: What a picture has at most a side; larger ones are reduced.
        unmoved: Similarity of maps, after the classifier or the class was exchanged, above which a method is flagged.
    """
    if images < 1 or pixels < 1:
        raise Problem(f"params.yaml: report: images and pixels must be at least 1, got {images} and {pixels}")
    tables = results(study, given)
    methods = described(study, given)
    shown = {name: chosen(study, given, name, images) for name in given["classifiers"]}
    first = next((listed[0] for listed in shown.values() if listed), None)
    with ProcessPoolExecutor(mp_context=get_context("fork")) as processes:
        atlas = first and processes.submit(overview.png, tables["summary"], first, title)
        sections = page.results(tables, processes, unmoved=unmoved)
    filled = {
        **sections,
        "title": title,
        "question": question,
        "percent": f"{100 * sections['bootstrap']['level']:.3g}%",
        "cards": [card(study, given, name) for name in given["classifiers"]],
        "panels": page.gallery(shown, sections["methods"], side=pixels),
        "ramps": [pictures.legend(pictures.SEQUENTIAL), pictures.legend(pictures.DIVERGING)],
        "brightest": pictures.BRIGHTEST,
        "excluded": excluded(given),
        "draft": is_draft(study),
        "missing": missing(study),
        "trace": page.settings(given, methods, tables["summary"]),
    }
    text = environment().get_template("report.html.j2").render(filled)
    files = {"index.html": text.encode(), "leaderboard.md": words.leaderboard(tables["summary"]).encode()}
    if atlas:
        files["atlas.png"] = atlas.result()
    write(study, files)


def results(study: Path, given: dict) -> dict[str, xr.Dataset]:
    """Read the results.

    Raises:
        Problem: they are missing, or are of another list of classifiers, methods or metrics than params.yaml's.
    """
    folder = study / "data" / "results"
    found = {}
    for name in ("summary", "agreement", "comparison", "curves"):
        path = folder / f"{name}.zarr"
        if name == "curves" and not path.exists():
            continue
        try:
            found[name] = xr.open_zarr(path, consolidated=False, chunks=None).load()
        except (OSError, KeyError, ValueError) as error:
            raise Problem(f"{path}: cannot be read ({error}); run stages.aggregate again") from None
    wanted = [name for listed in params.entries(given, "methods").values() for name in listed]
    if found["summary"]["method"].values.tolist() != wanted:
        raise Problem(f"{folder}: made for other methods than params.yaml's; run stages.aggregate again")
    return found


def described(study: Path, given: dict) -> dict[str, dict[str, str]]:
    """Read what the map stores say of their methods."""
    found = {}
    for family, listed in params.entries(given, "methods").items():
        there = [one for one in given["classifiers"] if f"attribute@{one}-{family}" not in missing(study)]
        for name in listed if there else []:
            found[name] = dict(read(params.path(study, "maps", there[0], family, name), f"the maps of {name}").attrs)
    return found


def chosen(study: Path, given: dict, classifier: str, number: int) -> list[Shown]:
    """Read the first images of a classifier, no class twice while there are others, and their maps."""
    store = read(params.path(study, "images", classifier) / "images", "the evaluation images")
    targets = store["target"][:]
    first = np.sort(np.unique(targets, return_index=True)[1])
    rows = np.concatenate([first, np.setdiff1d(np.arange(len(targets)), first)])[:number]
    ids, classes = store["image"][:], about(study, classifier).get("classes", {})
    maps = {}
    for family, listed in params.entries(given, "methods").items():
        for method in listed if f"attribute@{classifier}-{family}" not in missing(study) else []:
            path = params.path(study, "maps", classifier, family, method) / "images"
            group = read(path, f"the maps of {method}")
            if "unsupported" not in group.attrs:
                maps[method] = group["attribution"].oindex[rows]
    return [
        Shown(
            str(ids[row]),
            _class(classes, int(targets[row])),
            store["pixels"][int(row)],
            {name: values[place] for name, values in maps.items()},
        )
        for place, row in enumerate(rows)
    ]


def about(study: Path, classifier: str) -> dict[str, Any]:
    """Read a classifier's card."""
    path = params.path(study, "classifiers", classifier) / "card.json"
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise Problem(f"{path}: cannot be read ({error}); run stages.train again") from None


def card(study: Path, given: dict, classifier: str) -> dict[str, Any]:
    """Gather what the page says of a classifier."""
    known = about(study, classifier)
    images = read(params.path(study, "images", classifier) / "images", "the evaluation images")["image"].shape[0]
    grids = read(params.path(study, "grids", classifier) / "grids", "the grids")["grid"].shape[0]
    measured = {name: known.get(name, float("nan")) for name in ("accuracy", "adversarial_accuracy")}
    sizes = {name: known.get(name, 0) for name in ("judged_on", "attacked")}
    attacks = {"attack": known.get("adversary"), "trained_against": known.get("recipe", {}).get("adversary")}
    dataset = given["classifiers"][classifier]["dataset"]
    known = {name: page.spelled(attack or {}) for name, attack in attacks.items()}
    return {"name": classifier, "dataset": dataset, "images": images, "grids": grids, **measured, **sizes, **known}


def excluded(given: dict) -> list[tuple[str, list[str]]]:
    """List the methods that a metric's entry leaves out."""
    entries = [one for listed in params.entries(given, "metrics").values() for one in listed.values()]
    return [(one.name, one.options["exclude"]) for one in entries if one.options["exclude"]]


def environment() -> Environment:
    """Prepare the template's language: how numbers are spelled, everything escaped."""
    found = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    found.tests["undefined_number"] = lambda value: bool(np.isnan(value))
    found.filters["breakable"] = lambda name: Markup("_<wbr>").join(escape(part) for part in name.split("_"))
    found.filters["digits"] = order.digits
    found.filters["share"] = lambda value: "n/a" if np.isnan(value) else f"{100 * value:.1f}%"
    found.filters["blank"] = lambda value: "" if np.isnan(value) else value
    return found


def write(study: Path, files: dict[str, bytes]) -> None:
    """Write the report beside its place, then put it there by rename."""
    folder = study / "data" / "report"
    partial = folder.with_name(f".report.{uuid.uuid4().hex}.partial")
    try:
        partial.mkdir(parents=True)
        for name, data in files.items():
            (partial / name).write_bytes(data)
        replace(partial, folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _class(classes: Any, target: int) -> str:
    return str(classes[target]) if isinstance(classes, list) else f"class {target}"


if __name__ == "__main__":
    params.command(main)
