"""Write the report: a self-contained HTML page, a picture and a table for a README, and tables for papers."""

import math
from concurrent.futures import Executor, ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import xarray as xr

from atlas.cache import zipped
from atlas.cache.locks import drop, temporary_path
from atlas.cache.stacks import place, read_rows
from atlas.cache.stores import array_of, read, replace, values
from atlas.inputs.certification import Votes
from atlas.report import papers, template
from atlas.report.certification import certificates, certified_results, published
from atlas.report.images import gallery, overview, pictures
from atlas.report.images.gallery import Shown
from atlas.report.sections import costs, inputs, page, refused, summary_text
from atlas.study import params
from atlas.study.command import command
from atlas.study.errors import UserError
from atlas.study.schema.smoothing import Smoothing
from atlas.study.schema.types import Count, Range
from atlas.study.study import Study


def main(folder: Path) -> None:
    """Write the report on data/results/ into data/report/."""
    study = Study(folder)
    report(study, **params.settings("report", study.params.get("report", {}), "stages/report", "report"))


def report(
    study: Study,
    *,
    title: str,
    question: str,
    images: int,
    pixels: Count,
    sanity_threshold: Annotated[float, Range(-1, 1)],
) -> None:
    """Write data/report/: index.html, atlas.png, leaderboard.md and, for papers, tables.zip.

    Args:
        study: The study.
        title: The page's title.
        question: What the study asks, in a sentence.
        images: How many images of each classifier are shown with their maps.
        pixels: The largest side of a picture; larger ones are reduced.
        sanity_threshold: Similarity of maps, after the classifier or the class was exchanged, above which a method is
            flagged.
    """
    if images < 1 or pixels < 1:
        raise UserError(f"params.yaml: report: images and pixels must be at least 1, got {images} and {pixels}")
    found = results(study)
    inapplicable = refused.metrics(found["summary"])
    tables, study = left(found, study)
    methods = described(study)
    shown = {name: first_images(study, name, images) for name in study.params["classifiers"]}
    first = next((listed[0] for listed in shown.values() if listed), None)
    with ProcessPoolExecutor(mp_context=get_context("fork")) as processes:
        atlas = first and processes.submit(overview.png, tables["summary"], first, title)
        sections = page.results(tables, processes, sanity_threshold=sanity_threshold)
        of_votes = tables.get("certified")
        known = costs.section(tables["cost"], tables["summary"], processes)
        marked = None if of_votes is None else certified(study, of_votes, images, pixels, processes)
        panels = gallery.gallery(shown, sections["methods"], side=pixels, processes=processes)
    filled = {
        **sections,
        "title": title,
        "question": question,
        "percent": f"{100 * sections['bootstrap']['level']:.3g}%",
        "cards": inputs.classifiers(study),
        "datasets": inputs.datasets(study),
        "made_of_the_other": inputs.made_of_the_other(study),
        "inapplicable": inapplicable,
        "panels": panels,
        "ramps": [pictures.legend(pictures.SEQUENTIAL), pictures.legend(pictures.DIVERGING)],
        "brightest": pictures.BRIGHTEST,
        "costs": known,
        "certified": marked,
        "excluded": excluded(study),
        "draft": study.is_draft,
        "missing": study.missing,
        "trace": page.settings(study.params, methods, tables["summary"]),
    }
    text = template.environment().get_template("report.html.j2").render(filled)
    files = {"index.html": text.encode(), "leaderboard.md": summary_text.leaderboard(tables["summary"]).encode()}
    if atlas:
        files["atlas.png"] = atlas.result()
    write(study, files, papers.tables(tables["summary"]))


def results(study: Study) -> dict[str, xr.Dataset]:
    """Read the results.

    Raises:
        UserError: they are missing, or list other classifiers, methods or metrics than params.yaml.
    """
    file = study.folder / zipped.RESULTS
    found = {name: zipped.read(file, name) for name in zipped.tables(file) if name != "scores"}
    summary, gone = found["summary"], study.missing
    methods, metrics = list(study.all_methods), list(study.all_metrics.values())
    absent = refused.nowhere(summary)
    metrics = [one for one in metrics if one.name not in absent or one.name in summary["metric"].values]
    wanted = {
        "method": methods,
        "classifier": list(study.params["classifiers"]),
        "metric": [one.name for one in metrics if set(methods) - set(one.options["exclude"])],
    }
    for kind, names in wanted.items():
        there = summary[kind].values.tolist()
        if kind == "metric":  # without metrics derived from curves
            there = [name for name in there if name in names or name.rpartition("_")[0] not in names]
        # A draft may lack the scores of some metrics.
        if there != names and not (gone and set(there) <= set(names)):
            raise UserError(f"{file}: made for other {kind}s than params.yaml's; run stages.aggregate again")
    return found


def left(tables: dict[str, xr.Dataset], study: Study) -> tuple[dict[str, xr.Dataset], Study]:
    """Remove the metrics that apply to no classifier from the results and from the entries of params.yaml."""
    metrics = refused.nowhere(tables["summary"])
    return refused.without(tables, metrics), Study(study.folder, refused.entries(study.params, metrics))


def described(study: Study) -> dict[str, dict[str, Any]]:
    """Read the attributes of the map stores, which describe their methods."""
    found = {}
    for family, listed in study.methods.items():
        there = [one for one in study.params["classifiers"] if f"attribute@{one}-{family}" not in study.missing]
        for name in listed if there else []:
            found[name] = place(study.path("maps", there[0], family), "images", name, "maps").attrs
    return found


def certified(study: Study, table: xr.Dataset, images: int, pixels: int, processes: Executor) -> dict[str, Any]:
    """Gather the page's part on certified maps: results, pictures, and published values."""
    sizes = {name: pixels_of(study, name) for name in study.params["classifiers"]}
    known, test = certified_results.found(table, study.params, sizes), certified_results.first_test(study.params)
    shown, cast = {}, {}
    for name in study.params["classifiers"]:
        rows = first_rows(study, name, images, among=test.smoothing.pictures["images"])
        shown[name] = chosen(study, name, rows, [])
        cast[name] = votes(study, name, test.smoothing, rows)
    return {
        **certificates.section(known, study.params, processes),
        "panels": certificates.panels(shown, cast, test, side=pixels),
        "published": published.joined(known, study.params),
    }


def first_images(study: Study, classifier: str, number: int) -> list[Shown]:
    """Read the first images of a classifier, without repeating a class while there are others, and all their maps."""
    rows = first_rows(study, classifier, number)
    return chosen(study, classifier, rows, list(study.all_methods))


def first_rows(study: Study, classifier: str, number: int, *, among: int | None = None) -> np.ndarray:
    """Choose the first images of a classifier, without repeating a class while there are others.

    Args:
        study: The study.
        classifier: The classifier's name.
        number: The largest number of images.
        among: Choose among this many first images; None: among all. The order does not depend on it.
    """
    store = read(study.path("images", classifier) / "images", "the evaluation images")
    targets = values(store, "target", slice(among))
    first = np.sort(np.unique(targets, return_index=True)[1])
    return np.concatenate([first, np.setdiff1d(np.arange(len(targets)), first)])[:number]


def chosen(study: Study, classifier: str, rows: np.ndarray, methods: list[str]) -> list[Shown]:
    """Read some images of a classifier, and the defined maps by those of the methods that can serve it."""
    store = read(study.path("images", classifier) / "images", "the evaluation images")
    ids, targets, classes = values(store, "image"), values(store, "target"), study.card(classifier).get("classes", {})
    rows, maps = rows[rows < len(ids)], {}
    known = inputs.predicted(study, classifier, [str(one) for one in ids[rows]])
    for family, listed in study.methods.items():
        for method in listed if f"attribute@{classifier}-{family}" not in study.missing else []:
            if method not in methods:
                continue
            stored = place(study.path("maps", classifier, family), "images", method, "maps")
            if "unsupported" not in stored.attrs:
                maps[method] = read_rows(stored, "attribution", rows)
    return [
        Shown(
            str(ids[row]),
            _class(classes, int(targets[row])),
            values(store, "pixels", slice(row, row + 1))[0],
            {name: own[place] for name, own in maps.items() if np.isfinite(own[place]).all()},
            known.get(str(ids[row])),
        )
        for place, row in enumerate(rows)
    ]


def pixels_of(study: Study, classifier: str) -> int:
    """Return the number of pixels of a classifier's images."""
    return math.prod(array_of(read(study.path("images", classifier) / "images", "the images"), "pixels").shape[-2:])


def votes(study: Study, classifier: str, smoothing: Smoothing, rows: np.ndarray) -> dict[str, Votes]:
    """Read the votes on the maps of some images, by method; methods without votes are left out.

    Raises:
        UserError: votes are missing, and the study is not a draft.
    """
    settings, found = smoothing.settings, {}
    how: dict[str, Any] = {name: settings[name] for name in ("n0", "n", "sigma", "levels", "form")}
    for family, listed in study.methods.items():
        for method in listed if f"certify@{classifier}-{family}" not in study.missing else []:
            path = study.path("votes", classifier, family)
            if method not in smoothing.methods or not len(rows) or (study.is_draft and not path.exists()):
                continue
            stored = place(path, *smoothing.stored_as(method, "images"), "votes")
            if "unsupported" not in stored.attrs:
                counts, tied = (read_rows(stored, name, rows) for name in ("counts", "tied"))
                found[method] = Votes(counts[:, 0], counts[:, 1], tied, **how)
    return found


def excluded(study: Study) -> list[tuple[str, list[str]]]:
    """Return the metrics with methods that their entries exclude."""
    entries = study.all_metrics.values()
    return [(one.name, one.options["exclude"]) for one in entries if one.options["exclude"]]


def write(study: Study, files: dict[str, bytes], of_papers: dict[str, str]) -> None:
    """Write the report to a temporary place, then rename it into place."""
    folder = study.folder / "data" / "report"
    partial = temporary_path(folder)
    try:
        partial.mkdir(parents=True)
        for name, data in files.items():
            (partial / name).write_bytes(data)
        zipped.write(partial / "tables.zip", {f"tables/{name}": one.encode() for name, one in of_papers.items()})
        replace(partial, folder)
    finally:
        drop(partial)


def _class(classes: Any, target: int) -> str:
    return str(classes[target]) if isinstance(classes, list) else f"class {target}"


if __name__ == "__main__":
    command(main)
