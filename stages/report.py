"""Write the report: a self-contained HTML page, a picture and a table for a README, and tables for papers."""

import math
from concurrent.futures import Executor, ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import xarray as xr

from atlas.cache.locks import drop, temporary_path
from atlas.cache.stores import read, replace, values
from atlas.inputs.certification import Votes
from atlas.report import papers, template
from atlas.report.certification import certificates, certified_results, published
from atlas.report.images import gallery, overview, pictures
from atlas.report.images.gallery import Shown
from atlas.report.sections import costs, inputs, page, refused, summary_text
from atlas.study import cards, params
from atlas.study.errors import UserError
from atlas.study.missing import is_draft, missing
from atlas.study.schema.smoothing import Smoothing
from atlas.study.schema.types import Count, Range


def main(study: Path) -> None:
    """Write the report on data/results/ into data/report/."""
    given = params.load(study)
    report(study, given, **params.settings("report", given.get("report", {}), "stages/report", "report"))


def report(
    study: Path,
    given: dict,
    *,
    title: str,
    question: str,
    images: int,
    pixels: Count,
    sanity_threshold: Annotated[float, Range(-1, 1)],
) -> None:
    """Write data/report/: index.html, atlas.png, leaderboard.md and, for papers, tables/.

    Args:
        study: The folder of params.yaml.
        given: The content of params.yaml.
        title: The page's title.
        question: What the study asks, in a sentence.
        images: How many images of each classifier are shown with their maps.
        pixels: The largest side of a picture; larger ones are reduced.
        sanity_threshold: Similarity of maps, after the classifier or the class was exchanged, above which a method is
            flagged.
    """
    if images < 1 or pixels < 1:
        raise UserError(f"params.yaml: report: images and pixels must be at least 1, got {images} and {pixels}")
    found = results(study, given)
    inapplicable = refused.metrics(found["summary"])
    tables, given = left(found, given)
    methods = described(study, given)
    shown = {name: first_images(study, given, name, images) for name in given["classifiers"]}
    first = next((listed[0] for listed in shown.values() if listed), None)
    with ProcessPoolExecutor(mp_context=get_context("fork")) as processes:
        atlas = first and processes.submit(overview.png, tables["summary"], first, title)
        sections = page.results(tables, processes, sanity_threshold=sanity_threshold)
        of_votes = tables.get("certified")
        known = costs.section(tables["cost"], tables["summary"], processes)
        marked = None if of_votes is None else certified(study, given, of_votes, images, pixels, processes)
        panels = gallery.gallery(shown, sections["methods"], side=pixels, processes=processes)
    filled = {
        **sections,
        "title": title,
        "question": question,
        "percent": f"{100 * sections['bootstrap']['level']:.3g}%",
        "cards": inputs.classifiers(study, given),
        "datasets": inputs.datasets(study, given),
        "made_of_the_other": inputs.made_of_the_other(study, given),
        "inapplicable": inapplicable,
        "panels": panels,
        "ramps": [pictures.legend(pictures.SEQUENTIAL), pictures.legend(pictures.DIVERGING)],
        "brightest": pictures.BRIGHTEST,
        "costs": known,
        "certified": marked,
        "excluded": excluded(given),
        "draft": is_draft(study),
        "missing": missing(study),
        "trace": page.settings(given, methods, tables["summary"]),
    }
    text = template.environment().get_template("report.html.j2").render(filled)
    files = {"index.html": text.encode(), "leaderboard.md": summary_text.leaderboard(tables["summary"]).encode()}
    files |= {f"tables/{name}": table.encode() for name, table in papers.tables(tables["summary"]).items()}
    if atlas:
        files["atlas.png"] = atlas.result()
    write(study, files)


def results(study: Path, given: dict) -> dict[str, xr.Dataset]:
    """Read the results.

    Raises:
        UserError: they are missing, or list other classifiers, methods or metrics than params.yaml.
    """
    folder = study / "data" / "results"
    found = {}
    for name in (
        "summary",
        "agreement",
        "contrasts",
        "precision",
        "comparison",
        "controls",
        "cost",
        "curves",
        "certified",
    ):
        path = folder / f"{name}.zarr"
        if name in ("curves", "certified") and not path.exists():
            continue
        try:
            found[name] = xr.open_zarr(path, consolidated=False, chunks=None).load()
        except (OSError, KeyError, ValueError) as error:
            raise UserError(f"{path}: cannot be read ({error}); run stages.aggregate again") from None
    summary, gone = found["summary"], missing(study)
    methods = [name for listed in params.entries(given, "methods").values() for name in listed]
    metrics = [one for listed in params.entries(given, "metrics").values() for one in listed.values()]
    absent = refused.nowhere(summary)
    metrics = [one for one in metrics if one.name not in absent or one.name in summary["metric"].values]
    wanted = {
        "method": methods,
        "classifier": list(given["classifiers"]),
        "metric": [one.name for one in metrics if set(methods) - set(one.options["exclude"])],
    }
    for kind, names in wanted.items():
        there = summary[kind].values.tolist()
        if kind == "metric":  # without metrics derived from curves
            there = [name for name in there if name in names or name.rpartition("_")[0] not in names]
        # A draft may lack the scores of some metrics.
        if there != names and not (gone and set(there) <= set(names)):
            raise UserError(f"{folder}: made for other {kind}s than params.yaml's; run stages.aggregate again")
    return found


def left(tables: dict[str, xr.Dataset], given: dict) -> tuple[dict[str, xr.Dataset], dict]:
    """Remove the metrics that apply to no classifier from the results and from the entries of params.yaml."""
    metrics = refused.nowhere(tables["summary"])
    return refused.without(tables, metrics), refused.entries(given, metrics)


def described(study: Path, given: dict) -> dict[str, dict[str, str]]:
    """Read the attributes of the map stores, which describe their methods."""
    found = {}
    for family, listed in params.entries(given, "methods").items():
        there = [one for one in given["classifiers"] if f"attribute@{one}-{family}" not in missing(study)]
        for name in listed if there else []:
            found[name] = dict(read(params.path(study, "maps", there[0], family, name), f"the maps of {name}").attrs)
    return found


def certified(
    study: Path, given: dict, table: xr.Dataset, images: int, pixels: int, processes: Executor
) -> dict[str, Any]:
    """Gather the page's part on certified maps: results, pictures, and published values."""
    sizes = {name: pixels_of(study, name) for name in given["classifiers"]}
    known, test = certified_results.found(table, given, sizes), certified_results.first_test(given)
    shown, cast = {}, {}
    for name in given["classifiers"]:
        rows = first_rows(study, name, images, among=test.smoothing.pictures["images"])
        shown[name] = chosen(study, given, name, rows, [])
        cast[name] = votes(study, given, name, test.smoothing, rows)
    return {
        **certificates.section(known, given, processes),
        "panels": certificates.panels(shown, cast, test, side=pixels),
        "published": published.joined(known, given),
    }


def first_images(study: Path, given: dict, classifier: str, number: int) -> list[Shown]:
    """Read the first images of a classifier, without repeating a class while there are others, and all their maps."""
    rows = first_rows(study, classifier, number)
    return chosen(
        study, given, classifier, rows, [name for one in params.entries(given, "methods").values() for name in one]
    )


def first_rows(study: Path, classifier: str, number: int, *, among: int | None = None) -> np.ndarray:
    """Choose the first images of a classifier, without repeating a class while there are others.

    Args:
        study: The folder of params.yaml.
        classifier: The classifier's name.
        number: The largest number of images.
        among: Choose among this many first images; None: among all. The order does not depend on it.
    """
    targets = read(params.path(study, "images", classifier) / "images", "the evaluation images")["target"][:among]
    first = np.sort(np.unique(targets, return_index=True)[1])
    return np.concatenate([first, np.setdiff1d(np.arange(len(targets)), first)])[:number]


def chosen(study: Path, given: dict, classifier: str, rows: np.ndarray, methods: list[str]) -> list[Shown]:
    """Read some images of a classifier, and the defined maps by those of the methods that can serve it."""
    store = read(params.path(study, "images", classifier) / "images", "the evaluation images")
    ids, targets, classes = store["image"][:], store["target"][:], cards.card(study, classifier).get("classes", {})
    rows, maps = rows[rows < len(ids)], {}
    known = inputs.predicted(study, classifier, [str(one) for one in ids[rows]])
    for family, listed in params.entries(given, "methods").items():
        for method in listed if f"attribute@{classifier}-{family}" not in missing(study) else []:
            if method not in methods:
                continue
            path = params.path(study, "maps", classifier, family, method) / "images"
            group = read(path, f"the maps of {method}")
            if "unsupported" not in group.attrs:
                maps[method] = group["attribution"].oindex[rows]
    return [
        Shown(
            str(ids[row]),
            _class(classes, int(targets[row])),
            store["pixels"][int(row)],
            {name: own[place] for name, own in maps.items() if np.isfinite(own[place]).all()},
            known.get(str(ids[row])),
        )
        for place, row in enumerate(rows)
    ]


def pixels_of(study: Path, classifier: str) -> int:
    """Return the number of pixels of a classifier's images."""
    return math.prod(read(params.path(study, "images", classifier) / "images", "the images")["pixels"].shape[-2:])


def votes(study: Path, given: dict, classifier: str, smoothing: Smoothing, rows: np.ndarray) -> dict[str, Votes]:
    """Read the votes on the maps of some images, by method; methods without votes are left out.

    Raises:
        UserError: votes are missing, and the study is not a draft.
    """
    settings, found = smoothing.settings, {}
    how = {"firsts": settings["n0"], "draws": settings["n"]}
    how |= {name: settings[name] for name in ("sigma", "levels", "form")}
    for family, listed in params.entries(given, "methods").items():
        for method in listed if f"certify@{classifier}-{family}" not in missing(study) else []:
            path = params.path(study, "votes", classifier, family, method) / smoothing.name / "images"
            if method not in smoothing.methods or not len(rows) or (is_draft(study) and not path.exists()):
                continue
            group = read(path, f"the votes on the maps of {method}")
            if "unsupported" not in group.attrs:
                counts = {name: values(group, name, rows) for name in ("first", "rest", "tied")}
                found[method] = Votes(**counts, **how)
    return found


def excluded(given: dict) -> list[tuple[str, list[str]]]:
    """Return the metrics with methods that their entries exclude."""
    entries = [one for listed in params.entries(given, "metrics").values() for one in listed.values()]
    return [(one.name, one.options["exclude"]) for one in entries if one.options["exclude"]]


def write(study: Path, files: dict[str, bytes]) -> None:
    """Write the report to a temporary place, then rename it into place."""
    folder = study / "data" / "report"
    partial = temporary_path(folder)
    try:
        for name, data in files.items():
            (partial / name).parent.mkdir(parents=True, exist_ok=True)
            (partial / name).write_bytes(data)
        replace(partial, folder)
    finally:
        drop(partial)


def _class(classes: Any, target: int) -> str:
    return str(classes[target]) if isinstance(classes, list) else f"class {target}"


if __name__ == "__main__":
    params.command(main)
