"""Gather scores and similarities into the results: labelled tables, their parquet twins, numbers for DVC."""

import csv
import json
import shutil
import uuid
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import xarray as xr

from stages import params
from stages.gaps import missing
from stages.problem import Problem
from stages.settings import Entry, canonical
from stages.statistics import labels, tables
from stages.statistics.groups import compare
from stages.statistics.tables import Judged
from stages.stores import COMPRESSORS, replace

Reasons = dict[str, dict[str, dict[str, str]]]


def main(study: Path) -> None:
    """Aggregate the scores of all classifiers, methods and metrics into data/results/."""
    given = params.load(study)
    aggregate(study, given, **params.settings("aggregate", given.get("aggregate", {}), "aggregate", "aggregate"))


def aggregate(study: Path, given: dict, *, resamples: int, level: float, fewest: int) -> None:
    """Write data/results/, data/metrics.json and data/plots/.

    Args:
        study: The folder of params.yaml.
        given: What it says.
        resamples: Bootstrap resamples of the images.
        level: Share of the resamples inside an interval.
        fewest: Defined scores that a method needs to be ranked by a metric.
    """
    if resamples < 1 or not 0 < level < 1:
        raise Problem(f"params.yaml: aggregate: expected resamples >= 1 and 0 < level < 1, got {resamples} and {level}")
    raw, reasons = read_scores(study, given)
    judged = [one for each in raw for one in tables.derive(each)]
    methods = _families(given)
    attrs = {one.metric: {**one.attrs, "unit": "tile" if one.grids else "image"} for one in judged}
    options = {"resamples": resamples, "level": level, "seed": given["seed"]}
    notes = {"bootstrap": options, "fewest": fewest, "unsupported": reasons}

    def named(table: xr.Dataset) -> xr.Dataset:
        table = labels.name_metrics(labels.name_methods(table, methods), attrs)
        datasets = [given["classifiers"][name]["dataset"] for name in table["classifier"].values.tolist()]
        return table.assign_coords(dataset=("classifier", datasets))

    summary = labels.label(named(tables.summary_table(judged, **options, fewest=fewest)), "summary", notes)
    signs = {one.metric: one.sign for one in judged if one.attrs.get("role", tables.METRIC) == tables.METRIC}
    agreement = xr.merge(
        [tables.agreement_table(summary, signs), tables.similarity_table(read_similarity(study, given), list(methods))],
        join="outer",
        compat="no_conflicts",
    )
    curves = [one for one in raw if "fraction" in one.scores.dims]
    datasets = {"scores": named(tables.score_table(judged)).assign_attrs(notes), "summary": summary}
    if curves:
        datasets["curves"] = labels.label(named(tables.curve_table(curves, **options)), "curves", notes)
    certified = [one for one in raw if "level" in one.scores.dims]
    if certified:
        table = named(tables.certified_table(certified, **options))
        datasets["certified"] = labels.label(table, "certified", notes)
    turned = {"orientation": "scores of lower-is-better metrics are negated first, so that 1 is the same preference"}
    datasets["agreement"] = labels.label(agreement, "agreement", turned)
    datasets["comparison"] = labels.label(compare(summary, same_images(given)), "comparison", {})
    write(study, datasets, judged)


def same_images(given: dict) -> list[list[str]]:
    """Group the classifiers that are judged on the same images: one dataset, one rule of selection."""
    groups: dict[str, list[str]] = {}
    for name, entry in given["classifiers"].items():
        groups.setdefault(canonical([entry["dataset"], entry.get("images")]), []).append(name)
    return list(groups.values())


def read_scores(study: Path, given: dict) -> tuple[list[Judged], Reasons]:
    """Read every metric's scores on every classifier, and why methods could not be judged.

    Raises:
        Problem: a store is missing, cannot be read, disagrees with its like, or holds an infinite score.
    """
    judged: list[Judged] = []
    reasons: Reasons = {}
    methods = {family: list(listed) for family, listed in params.entries(given, "methods").items()}
    metrics = [metric for listed in params.entries(given, "metrics").values() for metric in listed.values()]
    gone = missing(study)
    asked = [(study, methods, classifier, metric, gone) for classifier in given["classifiers"] for metric in metrics]
    with ProcessPoolExecutor(mp_context=get_context("fork")) as processes:  # opening many small arrays takes its time
        read = list(processes.map(_read, *zip(*asked, strict=True)))
    for (_, _, classifier, metric, _), (found, why) in zip(asked, read, strict=True):
        judged += [found] if found else []
        for method, reason in sorted(why.items()):
            reasons.setdefault(classifier, {}).setdefault(method, {})[metric.name] = reason
    if not judged:
        raise Problem(f"{study / 'params.yaml'}: there is nothing to aggregate: no metric judges any method")
    return judged, reasons


def _read(
    study: Path, families: dict[str, list[str]], classifier: str, metric: Entry, gone: dict[str, str]
) -> tuple[Judged | None, dict[str, str]]:
    scores, asked = [], []
    reasons: dict[str, str] = {}
    for family, listed in families.items():
        judged = [name for name in listed if name not in metric.options["exclude"]]
        if (cell := f"score@{classifier}-{family}") in gone:
            reasons |= dict.fromkeys(judged, gone[cell])
        if not judged or cell in gone:
            continue
        path = params.path(study, "scores", classifier, family)
        try:
            group = xr.open_zarr(path, group=metric.name, consolidated=False, chunks=None)
        except (OSError, KeyError, ValueError) as error:
            raise Problem(f"{path}: no scores of {metric.name} ({error}); run stages.score again") from None
        reasons |= group.attrs.get("unsupported", {})
        score = group["score"].load()
        if np.isinf(score).any():
            raise Problem(f"{path}: {metric.name} holds an infinite score; a score is a number, or NaN if undefined")
        # `method` is also a keyword of xarray's sel, so it can only be selected by a mapping.
        here = {"method": [name for name in listed if name in score["method"].values]}
        scores.append(score.sel(here))
        rows = group["key"].any("byte") if "key" in group else xr.ones_like(score, bool)
        asked.append(rows.sel(here).load())
    if not scores:
        return None, reasons
    methods = {"method": [name for listed in families.values() for name in listed]}
    try:
        joined = xr.concat(scores, "method", join="exact", combine_attrs="override")
        wanted = xr.concat(asked, "method", join="exact", combine_attrs="override")
    except ValueError as error:
        raise Problem(f"{classifier}: {metric.name}: families were scored on different rows ({error})") from None
    every = wanted.reindex(methods, fill_value=False)
    return Judged(classifier, metric.name, dict(joined.attrs), joined.reindex(methods), every), reasons


def read_similarity(study: Path, given: dict) -> dict[str, xr.Dataset]:
    """Read how alike the maps of any two methods are, for each classifier.

    Raises:
        Problem: a store is missing or cannot be read.
    """
    found = {}
    for classifier in given["classifiers"]:
        if f"correlate@{classifier}" in missing(study):
            empty = xr.DataArray(np.zeros((0, 0, 0)), {"method": [], "other": []}, ("method", "other", "image"))
            found[classifier] = xr.Dataset({"pearson": empty, "spearman": empty})
            continue
        path = params.path(study, "similarity", classifier)
        try:
            found[classifier] = xr.open_zarr(path, consolidated=False, chunks=None)[["pearson", "spearman"]].load()
        except (OSError, KeyError, ValueError) as error:
            raise Problem(f"{path}: cannot be read ({error}); run stages.correlate again") from None
    return found


def write(study: Path, datasets: dict[str, xr.Dataset], judged: list[Judged]) -> None:
    """Write everything beside its place, then put it there by rename."""
    data = study / "data"
    data.mkdir(exist_ok=True)
    partial = data / f".aggregate.{uuid.uuid4().hex}.partial"
    try:
        for name, dataset in datasets.items():
            _write_zarr(dataset, partial / "results" / f"{name}.zarr")
        summary = datasets["summary"]
        _write_scores(judged, partial / "results" / "scores.parquet")
        long_form(summary).to_parquet(partial / "results" / "summary.parquet", index=False)
        (partial / "metrics.json").write_text(json.dumps(headline(summary), indent=1, sort_keys=True) + "\n")
        _write_plots(summary, datasets.get("curves"), partial / "plots")
        for name in ("results", "plots"):
            replace(partial / name, data / name)
        (partial / "metrics.json").replace(data / "metrics.json")
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def headline(summary: xr.Dataset) -> dict[str, dict[str, dict[str, float]]]:
    """Give mean scores and mean ranks by classifier and method, to six digits: what `dvc metrics` shows.

    Diagnostics of metrics are left out, and so is what is undefined: JSON has no NaN.
    """
    means = summary["mean"].sel(metric=summary["role"] != tables.DIAGNOSTIC)
    found: dict[str, dict[str, dict[str, float]]] = {}
    for classifier in summary["classifier"].values.tolist():
        for method in summary["method"].values.tolist():
            here = {"classifier": classifier, "method": method}
            named = zip(means["metric"].values.tolist(), means.sel(here).values.tolist(), strict=True)
            numbers = {"mean_rank": float(summary["mean_rank"].sel(here)), **dict(named)}
            defined = {name: float(f"{value:.6g}") for name, value in numbers.items() if not np.isnan(value)}
            if defined:
                found.setdefault(classifier, {})[method] = defined
    return found


def long_form(summary: xr.Dataset):
    """Give the summary as a table with a row for each classifier, method and metric."""
    cells = [name for name in summary.data_vars if summary[name].ndim == 3]
    columns = ["better", "role", "metric_family", "method_family", "control", "unit"]
    table = summary[cells].to_dataframe().reset_index()
    return table[["classifier", "method", "metric", *cells, *columns]]


def _write_zarr(dataset: xr.Dataset, path: Path) -> None:
    encoding = {}
    for name, variable in dataset.variables.items():
        if variable.dtype.kind in "UO":
            dataset[name] = variable.astype(np.dtypes.StringDType())
            continue
        # One classifier's scores by all methods and metrics are read together.
        chunks = tuple(1 if dim == "classifier" else size for dim, size in variable.sizes.items())
        encoding[name] = {"chunks": chunks, "compressors": COMPRESSORS} if variable.ndim else {}
    dataset.to_zarr(path, mode="w", zarr_format=3, consolidated=False, encoding=encoding)


def _write_scores(judged: list[Judged], path: Path) -> None:
    """Write one row a score that was asked for, metric by metric, so that a large study fits in memory."""
    names = pa.dictionary(pa.int32(), pa.string())
    words = ("classifier", "method", "metric", "image", "grid")
    schema = pa.schema([*((word, names) for word in words), ("tile", pa.int32()), ("score", pa.float32())])
    with pq.ParquetWriter(path, schema) as writer:
        for one in judged:
            frame = one.scores.rename("score").where(one.asked).to_series()[one.asked.to_series()].reset_index()
            frame = frame.assign(classifier=one.classifier, metric=one.metric)
            for word in words:
                frame[word] = frame[word].astype(str).astype("category") if word in frame else None
            frame["tile"] = frame.get("tile")
            writer.write_table(pa.Table.from_pandas(frame[schema.names], schema, preserve_index=False))


def _write_plots(summary: xr.Dataset, curves: xr.Dataset | None, folder: Path) -> None:
    folder.mkdir()
    ranks = summary[["mean_rank", "mean_rank_low", "mean_rank_high"]].to_dataframe().reset_index()
    ranks["cell"] = ranks["method"] + " on " + ranks["classifier"]
    columns = ["cell", "classifier", "method", "mean_rank", "mean_rank_low", "mean_rank_high"]
    _write_csv(folder / "mean_rank.csv", columns, ranks.sort_values(["classifier", "mean_rank"], kind="stable"))
    table = long_form(summary).sort_values(["classifier", "rank"], kind="stable")
    for metric, rows in table.groupby("metric", sort=False):
        columns = ["classifier", "method", "mean", "low", "high", "count", "rank"]
        _write_csv(folder / f"{metric}.csv", columns, rows)
    for metric in [] if curves is None else curves["metric"].values.tolist():
        one = curves[["mean", "low", "high"]].sel(metric=metric).to_dataframe().reset_index().dropna()
        _write_csv(folder / f"{metric}_curve.csv", ["classifier", "method", "fraction", "mean", "low", "high"], one)


def _write_csv(path: Path, columns: list[str], rows) -> None:
    with path.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(columns)
        writer.writerows(_plain(rows[columns].itertuples(index=False)))


def _plain(rows: Iterable[tuple]) -> Iterable[list[object]]:
    return ([f"{cell:.6g}" if isinstance(cell, float) else cell for cell in row] for row in rows)


def _families(given: dict) -> dict[str, str]:
    return {name: family for family, listed in params.entries(given, "methods").items() for name in listed}


if __name__ == "__main__":
    params.command(main)
