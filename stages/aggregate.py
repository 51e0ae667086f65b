"""Gather scores and similarities into the results: labelled tables, also as Parquet files, and numbers for DVC."""

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from atlas.cache import score_store
from atlas.cache.keys import SIZE, digest
from atlas.cache.locks import drop, temporary_path
from atlas.cache.score_store import Found
from atlas.cache.stacks import Place
from atlas.cache.stores import UNREADABLE, replace
from atlas.cache.zipped import RESULTS
from atlas.results import chunks, parquet, plots, stores
from atlas.statistics import coordinates, costs, labels, tables
from atlas.statistics.boxes import EVERY, REACH, boxes, fronts
from atlas.statistics.by_image import image_table
from atlas.statistics.comparisons.contrasts import contrast_table, control_table, letter_table, omnibus_table
from atlas.statistics.comparisons.groups import compare
from atlas.statistics.intervals.precision import precision_table
from atlas.statistics.rankings.overall import missing_rankings, orders
from atlas.statistics.tables import MetricScores
from atlas.statistics.units import PICTURE, pictures
from atlas.study import params
from atlas.study.command import command
from atlas.study.errors import UserError
from atlas.study.schema.settings import Entry, canonical
from atlas.study.schema.types import Count, PartShare, Weights
from atlas.study.study import ACCURACIES, Study

Reasons = dict[str, dict[str, dict[str, str]]]  # by classifier, method and metric
Absent = dict[str, dict[str, str]]  # by classifier and metric: which declared input is missing
METRICS = "metrics.json"
MEASURED = "alone: a map on the first image, a score on the first map that the metric scores"


def main(folder: Path) -> None:
    """Aggregate the scores of all classifiers, methods and metrics into data/results/."""
    study = Study(folder)
    aggregate(study, **params.settings("aggregate", study.params.get("aggregate", {}), "stages/aggregate", "aggregate"))


def aggregate(study: Study, *, resamples: Count, level: PartShare, min_count: int, weights: Weights) -> None:
    """Write data/results/, data/plots/ and data/metrics.json.

    The tables' attribute `pictures` gives, by classifier whose images may have several labels, the number of rows and
    of pictures, which are the units of all uncertainty.

    Args:
        study: The study.
        resamples: Bootstrap resamples of the images, each with all its rows, for the intervals of ranks.
        level: The coverage probability of the intervals.
        min_count: The number of images, or grids, with a defined score that a metric needs to rank a method.
    """
    if resamples < 1 or not 0 < level < 1:
        raise UserError(
            f"params.yaml: aggregate: expected resamples >= 1 and 0 < level < 1, got {resamples} and {level}"
        )
    raw, reasons, absent = read_scores(study)
    scored = [one for each in raw for one in tables.derive(each)]
    methods = {name: entry.family for name, entry in study.all_methods.items()}
    attrs = {one.metric: {**one.attrs, "unit": "tile" if one.grids else "image"} for one in scored}
    drawn: dict[str, Any] = {"resamples": resamples, "level": level, "seed": study.seed}
    notes = {"bootstrap": drawn, "min_count": min_count, "weights": weights, "unsupported": reasons, "absent": absent}
    if several := pictures(scored):
        notes["pictures"] = several

    def named(table: xr.Dataset) -> xr.Dataset:
        table = coordinates.name_metrics(coordinates.name_methods(table, methods), attrs)
        datasets = [study.classifier(name)["dataset"] for name in table["classifier"].values.tolist()]
        return table.assign_coords(dataset=("classifier", datasets))

    summary = named(tables.summary_table(scored, **drawn, min_count=min_count, weights=weights))
    summary = summary.assign(missing_rankings(summary["rank"].sel(metric=summary["role"] == tables.METRIC)))
    summary = summary.assign(orders(summary))
    contrasts = contrast_table(scored, summary, level=level)
    summary = summary.assign(omnibus_table(summary, alpha=1 - level))
    summary = summary.assign_coords(letters=letter_table(contrasts, summary, alpha=1 - level))
    summary = labels.label(coordinates.name_keys(summary, scored), "summary", notes)
    signs = {one.metric: one.sign for one in scored if one.attrs.get("role", tables.METRIC) == tables.METRIC}
    agreement = xr.merge(
        [
            tables.agreement_table(summary, signs),
            image_table(scored, summary, list(signs)),
            tables.similarity_table(read_similarity(study), list(methods)),
        ],
        join="outer",
        compat="no_conflicts",
    )
    curves = [one for one in raw if "fraction" in one.scores.dims]
    datasets = {"scores": labels.label(named(tables.score_table(scored)), "scores", notes), "summary": summary}
    if curves:
        datasets["curves"] = labels.label(named(tables.curve_table(curves, level=level)), "curves", notes)
    certified = [one for one in raw if "level" in one.scores.dims]
    if certified:
        table = named(tables.certified_table(certified, level=level))
        datasets["certified"] = labels.label(table, "certified", notes)
    turned = {"orientation": "scores of lower-is-better metrics are negated first, so that 1 is the same preference"}
    datasets["agreement"] = labels.label(agreement, "agreement", turned)
    groups = same_images(study)
    accuracies = {name: study.accuracies(name) for name in study.params["classifiers"]}
    compared = compare(summary, groups, rule="permutation").merge(fronts(boxes(summary), summary, accuracies))
    compared = coordinates.name_metrics(compared, attrs)
    datasets["comparison"] = labels.label(compared, "comparison", {"same_images": groups, "reach": REACH})
    paired = {"adjusted": "Holm's, over the pairs of a metric", "level": level}
    datasets["contrasts"] = labels.label(named(contrasts), "contrasts", paired)
    precise = precision_table(scored, summary, level=level)
    datasets["precision"] = labels.label(coordinates.name_metrics(precise, attrs), "precision", precise.attrs)
    datasets["controls"] = labels.label(control_table(summary, controls(study)), "controls", {})
    of_methods, of_metrics = read_costs(study)
    ours = [name for name in study.all_metrics if name in attrs]
    cost = named(costs.cost_table(of_methods, of_metrics, summary, ours))
    datasets["cost"] = labels.label(cost, "cost", {"measured": MEASURED})
    write(study, datasets, scored)


def controls(study: Study) -> list[tuple[str, str]]:
    """Pair the controls that should rank last with those that should rank above them: maps of noise, and edges."""
    listed = study.all_methods.values()
    last, before = ([one.name for one in listed if one.function == function] for function in ("uniform", "canny"))
    return [(one, other) for one in last for other in before]


def same_images(study: Study) -> list[list[str]]:
    """Group the classifiers that are evaluated on the same images: same dataset, same selection rules."""
    groups: dict[str, list[str]] = {}
    for name, entry in study.params["classifiers"].items():
        groups.setdefault(canonical([entry["dataset"], entry.get("images")]), []).append(name)
    return list(groups.values())


def read_scores(study: Study) -> tuple[list[MetricScores], Reasons, Absent]:
    """Read every metric's scores on every classifier, why methods have none, and which inputs metrics lack.

    Raises:
        UserError: a store is missing or unreadable, is inconsistent with the others, or holds an infinite score.
    """
    scored: list[MetricScores] = []
    reasons: Reasons = {}
    absent: Absent = {}
    methods = {family: list(listed) for family, listed in study.methods.items()}
    metrics = list(study.all_metrics.values())
    gone = study.missing
    for classifier in study.params["classifiers"]:
        made = [family for family in methods if f"score@{classifier}-{family}" not in gone]
        stores = {family: score_store.find(study.path("scores", classifier, family)) for family in made}
        for metric in metrics:
            found, why = _read(classifier, metric, methods, stores, gone)
            if isinstance(found, str):
                absent.setdefault(classifier, {})[metric.name] = found
                continue
            scored += [found] if found else []
            for method, reason in sorted(why.items()):
                reasons.setdefault(classifier, {}).setdefault(method, {})[metric.name] = reason
    if not scored:
        raise UserError(
            f"{study.file}: no metric scores any method; expected at least one metric and one method that it scores"
        )
    return scored, reasons, absent


def _read(
    classifier: str, metric: Entry, families: dict[str, list[str]], stores: dict[str, Found], gone: dict[str, str]
) -> tuple[MetricScores | str | None, dict[str, str]]:
    methods = [name for listed in families.values() for name in listed]
    joined: MetricScores | None = None
    rows: dict[str, list] = {}
    reasons: dict[str, str] = {}
    parts: list[list[str] | bytes] = []
    for family, listed in families.items():
        scored = [name for name in listed if name not in metric.options["exclude"]]
        if family not in stores:
            reasons |= dict.fromkeys(scored, gone[f"score@{classifier}-{family}"])
        if not scored or family not in stores:
            continue
        path, places, absent_here = stores[family]
        if metric.name in absent_here:
            return absent_here[metric.name], {}
        try:
            place = places[metric.name]
            own = chunks.read(place.folder / "method").values.tolist()
            score = chunks.read(place.folder / "score", place.span)
            keys = chunks.read(place.folder / "key", (place.at, place.at + 1)).values[0, ..., :SIZE]
            labels = _labels(place, score)
            values = score_store.shaped(score.values, place, own)
        except UNREADABLE as error:
            raise UserError(f"{path}: no scores of {metric.name} ({error}); run stages.score again") from None
        reasons |= place.attrs["unsupported"]
        if np.isinf(values).any():
            raise UserError(f"{path}: {metric.name} holds an infinite score; a score is a number, or NaN if undefined")
        here = {name: at for at, name in enumerate(place.attrs["methods"]) if name in listed}
        if joined is None:
            rows = labels
            joined = _unscored(classifier, metric.name, score_store.known(place), {"method": methods, **rows})
        if labels != rows:
            raise UserError(f"{classifier}: {metric.name}: families were scored on different rows; run stages.score")
        to, at = [methods.index(name) for name in here], list(here.values())
        made = keys[[own.index(name) for name in here]][:, : place.attrs["count"]]
        joined.scores.values[to] = values[at]
        joined.asked.values[to] = made.any(axis=-1)
        parts += [list(here), made.tobytes()]
    if joined:
        joined.attrs["keys"] = digest(*parts).hex()
    return joined, reasons


def _labels(place: Place, score: chunks.Stored) -> dict[str, Any]:
    """Read the labels of the rows that a metric scores, and those of its points."""
    found: dict[str, Any] = {}
    for dim, length in [*zip(score.dims, score.values.shape, strict=True)][2:]:
        folder = place.folder / dim
        found[dim] = chunks.read(folder).values.tolist() if folder.exists() else list(range(length))
    first = score.dims[2]
    found[first] = found[first][: place.attrs["count"]]
    found |= place.attrs["along"]
    if (place.folder / PICTURE).exists():
        found[PICTURE] = "image", chunks.read(place.folder / PICTURE).values.tolist()[: place.attrs["count"]]
    return found


def _unscored(classifier: str, metric: str, attrs: dict[str, Any], labels: dict[str, Any]) -> MetricScores:
    """Return a table for a metric without scores on a classifier: all undefined, and none requested."""
    labels["method"] = np.array(labels["method"], np.dtypes.StringDType())
    dims = [name for name in labels if name != PICTURE]
    rows = [dim for dim in dims if dim not in ("fraction", "threshold", "radius", "level")]
    shape = [len(labels[dim]) for dim in dims]
    scores = xr.DataArray(np.full(shape, np.nan, "float32"), labels, dims)
    asked = xr.DataArray(np.zeros(shape[: len(rows)], bool), {dim: labels[dim] for dim in rows}, rows)
    return MetricScores(classifier, metric, attrs, scores, asked)


def read_similarity(study: Study) -> dict[str, xr.Dataset]:
    """Read the similarity of the maps of every two methods, for each classifier.

    Raises:
        UserError: a store is missing or cannot be read.
    """
    found = {}
    for classifier in study.params["classifiers"]:
        if f"correlate@{classifier}" in study.missing:
            empty = xr.DataArray(np.zeros((0, 0, 0)), {"method": [], "other": []}, ("method", "other", "image"))
            found[classifier] = xr.Dataset({"pearson": empty, "spearman": empty})
            continue
        path = study.path("similarity", classifier)
        found[classifier] = _opened(path, "", ["pearson", "spearman"], "correlate")
    return found


def read_costs(study: Study) -> tuple[dict[str, xr.Dataset], ...]:
    """Read the costs of methods and of metrics, for each classifier; what has no cost is NaN.

    Raises:
        UserError: a store is missing or unreadable, or lists other methods or metrics.
    """
    found: tuple[dict[str, xr.Dataset], ...] = {}, {}
    for classifier in [name for name in study.params["classifiers"] if f"cost@{name}" not in study.missing]:
        path = study.path("cost", classifier)
        tables = ("methods", study.all_methods, costs.OF_METHODS), ("metrics", study.all_metrics, costs.OF_METRICS)
        for (kind, names, kinds), costly in zip(tables, found, strict=True):
            table = _opened(path, kind, [*kinds, "key"], "cost")
            if not set(names) <= set(table[kind[:-1]].values):
                raise UserError(f"{path}: made for other {kind} than params.yaml's; run stages.cost again")
            costly[classifier] = table[list(kinds)].where(table["key"].any("byte"))
    return found


def _opened(path: Path, group: str, names: list[str], verb: str) -> xr.Dataset:
    try:
        return xr.open_zarr(path, group=group, consolidated=False, chunks=None)[names].load()
    except (OSError, KeyError, ValueError) as error:
        raise UserError(f"{path}: cannot be read ({error}); run stages.{verb} again") from None


def write(study: Study, datasets: dict[str, xr.Dataset], scored: list[MetricScores]) -> None:
    """Write everything to temporary places, then rename it into place."""
    data = study.folder / "data"
    data.mkdir(exist_ok=True)
    partial = temporary_path(data / "aggregate")
    try:
        (partial / "results").mkdir(parents=True)
        stores.write(datasets, partial / "results" / RESULTS.name)
        summary = datasets["summary"]
        parquet.write(scored, partial / "results" / "scores.parquet")
        plots.long_form(summary).to_parquet(partial / "results" / "summary.parquet", index=False)
        for name in [name for name in datasets if name not in ("scores", "summary")]:
            parquet.write_table(datasets[name], partial / "results" / f"{name}.parquet")
        plots.write(summary, datasets.get("curves"), partial / "plots")
        numbers = headline(summary, datasets["comparison"])
        (partial / METRICS).write_text(json.dumps(numbers, indent=1) + "\n")
        for name in ("results", "plots"):
            replace(partial / name, data / name)
        os.replace(partial / METRICS, data / METRICS)
    finally:
        drop(partial)


def headline(summary: xr.Dataset, comparison: xr.Dataset) -> dict[str, Any]:
    """Return the numbers that revisions are compared by, to six digits, for `dvc metrics`.

    Args:
        summary: Mean ranks of the methods.
        comparison: Accuracies of the classifiers, and medians over their methods.

    Returns:
        `accuracy` and `adversarial_accuracy` by classifier; `overall_rank` by method; `mean_rank` by classifier and
        method; `median`, over all methods but controls, of the mean scores by classifier and metric. Undefined values
        are left out, as JSON has no NaN, and so are diagnostics of metrics.
    """
    medians = comparison["median"].sel(method_family=EVERY, metric=summary["role"].values != tables.DIAGNOSTIC)
    found = {name: _numbers(comparison[name], "classifier") for name in ACCURACIES}
    found["overall_rank"] = _numbers(summary["overall_rank"], "method")
    found["mean_rank"] = _numbers(summary["mean_rank"], "classifier", "method")
    return {**found, "median": _numbers(medians, "classifier", "metric")}


def _numbers(table: xr.DataArray, first: str, *others: str) -> dict[str, Any]:
    """Return the defined numbers of a table as a tree, by the labels of its dimensions."""
    if others:
        return {label: _numbers(table.sel({first: label}), *others) for label in table[first].values.tolist()}
    listed = zip(table[first].values.tolist(), table.values.tolist(), strict=True)
    return {label: float(f"{value:.6g}") for label, value in listed if not np.isnan(value)}


if __name__ == "__main__":
    command(main)
