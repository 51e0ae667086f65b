"""The contents of the report's page, section by section, as plain values for its template."""

import json
from concurrent.futures import Executor
from itertools import repeat
from typing import Any

import numpy as np
import xarray as xr

from atlas.report.charts import curve_plot, dot_plot, heat, theme
from atlas.report.sections import agreement as agreed
from atlas.report.sections import compared, refused, sanity, summary_text
from atlas.report.sections.sample_size import few, sample_sizes
from atlas.report.sorting import apart, behind, by_metric, overall, ranked, ranking_metrics, shared, unranked

# Suffixes of the diagnostics of a curve metric.
OF_CURVES = ("monotonicity", "smoothness")


def results(tables: dict[str, xr.Dataset], processes: Executor, *, sanity_threshold: float) -> dict[str, Any]:
    """Return the sections that are computed from the results only.

    Args:
        tables: summary, agreement, contrasts, precision, comparison, controls and, if there are any, curves.
        processes: Processes that draw the charts, in parallel with everything else.
        sanity_threshold: Similarity of maps above which a randomization check flags a method.
    """
    summary, agreement = tables["summary"], tables["agreement"]
    order, metrics = overall(summary), ranking_metrics(summary)
    curves = tables.get("curves")
    curved = [] if curves is None else curves["metric"].values.tolist()
    # The longest charts first, so that the processes end at about the same time.
    charts = processes.map(curve_charts, repeat(curves), curved)
    across = processes.submit(dot_plot.mean_ranks, summary, order)
    boards = processes.map(leaderboard, repeat(behind(summary, tables["contrasts"])), metrics)
    side_by_side = compared.section(summary, tables["comparison"], processes)
    checked = sanity.checks(summary, curves, sanity_threshold)
    images = sample_sizes(tables["precision"], summary)
    found = {
        "answer": [*summary_text.answer(summary, agreement), *summary_text.few(images)],
        "partly": summary_text.partly(summary),
        "ranks": ranks(summary, order),
        "family_ranks": family_ranks(summary, order),
        "family_boards": [family_board(summary, family) for family in summary["family"].values.tolist()],
        "metrics": metrics,
        "ranked": ranked(summary),
        "apart": apart(summary),
        "min_count": summary.attrs["min_count"],
        "omnibus": summary_text.omnibus(summary),
        "places": places(tables["controls"], metrics),
        "sanity": checked,
        "sanity_threshold": sanity_threshold,
        "flagged": sanity.flagged(checked),
        "keys": theme.keys(summary["classifier"].values.tolist()),
        "compared": side_by_side,
        "diagnostics": diagnostics(summary),
        "agreement": agreed.agreements(agreement),
        "sample_sizes": images,
        "few": few(tables["precision"]),
        "skewed": tables["precision"].attrs["skewed"],
        "similarity": agreed.similarities(agreement, summary),
        "refused": refused.methods(summary),
        "unranked": unranked(summary),
        "bootstrap": summary.attrs["bootstrap"],
        "pictures": summary.attrs.get("pictures", {}),
        "weights": summary.attrs["weights"],
        "classifiers": summary["classifier"].values.tolist(),
        "methods": [
            {"name": name, "family": family, "control": control}
            for name, family, control in zip(
                *(summary[column].values.tolist() for column in ("method", "method_family", "control")), strict=True
            )
        ],
    }
    return {**found, "overview": across.result(), "leaderboards": list(boards), "curves": list(charts)}


def ranks(summary: xr.Dataset, order: list[str]) -> list[tuple[str, heat.Matrix]]:
    """Return the rank of every method by every applicable metric, one matrix per classifier."""
    apart, found = refused.inapplicable(summary), []
    for classifier in summary["classifier"].values.tolist():
        metrics = [name for name in ranking_metrics(summary) if name not in apart.get(classifier, {})]
        one = summary.sel({"classifier": classifier, "method": order, "metric": metrics})
        own, low, high = (one[name].transpose("method", "metric").values for name in ("rank", "rank_low", "rank_high"))
        found.append((classifier, heat.ranks(own, low, high, order, metrics)))
    return found


def family_ranks(summary: xr.Dataset, order: list[str]) -> list[tuple[str, heat.Matrix]]:
    """Return the mean rank of every method by the metrics of each family, one matrix per classifier."""
    families = summary["family"].values.tolist()
    found = []
    for classifier in summary["classifier"].values.tolist():
        one = summary.sel({"classifier": classifier, "method": order})
        ends = (one[f"family_rank{end}"].transpose("method", "family").values for end in ("", "_low", "_high"))
        own, low, high = ends
        found.append((classifier, heat.ranks(own, low, high, order, families, places=1)))
    return found


def family_board(summary: xr.Dataset, family: str) -> dict[str, Any]:
    """Return the mean ranks by the metrics of one family, and their numbers, by classifier; in the overall order."""
    names = overall(summary)
    one = summary.sel({"family": family, "method": names})
    ends = ("", "_low", "_high", "_metrics", "_lacking")
    columns = [one[f"family_rank{end}"].transpose("method", "classifier").values.tolist() for end in ends]
    fields = ("rank", "low", "high", "metrics", "lacking")
    rows = []
    for method, control, *lines in zip(names, one["control"].values.tolist(), *columns, strict=True):
        cells = [dict(zip(fields, cell, strict=True)) for cell in zip(*lines, strict=True)]
        rows.append({"method": method, "control": control, "cells": cells})
    return {"family": family, "rows": rows}


def leaderboard(summary: xr.Dataset, metric: str) -> dict[str, Any]:
    """Return one metric's chart and table, best first; the summary has the methods' distance to the best."""
    order = by_metric(summary, metric)
    one = summary.sel({"metric": metric, "method": order})
    fields = ["mean", "low", "high", "count", "asked", "rank", "rank_low", "rank_high", "letters"]
    fields += ["behind", "behind_low", "behind_high", "behind_count"]
    columns = {name: one[name].transpose("method", "classifier").values.tolist() for name in fields}
    rows = []
    for place, method in enumerate(order):
        cells = [
            dict(zip(fields, row, strict=True)) for row in zip(*(columns[name][place] for name in fields), strict=True)
        ]
        control, family = (one[name].values.tolist()[place] for name in ("control", "method_family"))
        rows.append({"method": method, "control": control, "family": family, "cells": cells})
    about = {name: str(one[name].values) for name in ("better", "unit", "metric_family", "metric_units")}
    about |= {"long_name": str(one["metric_long_name"].values), "reference": str(one["metric_reference"].values)}
    counts = one["count"].values[one["asked"].values > 0]
    spread = (int(counts.min()), int(counts.max())) if counts.size else (0, 0)
    missing = int((one["asked"] - one["count"]).sum())
    chart = dot_plot.metric(summary, metric, order)
    found = {**about, "name": metric, "chart": chart, "rows": rows, "counts": spread, "undefined": missing}
    classifiers = one["classifier"].values.tolist()
    return {**found, "shared": [(name, over) for name in classifiers if (over := shared(one.sel(classifier=name)))]}


def places(controls: xr.Dataset, metrics: list[str]) -> list[dict[str, Any]]:
    """Return for each metric the number of classifiers on which it ranks controls where they belong."""
    names = list(controls.data_vars)
    found = []
    for pair in controls["controls"].values.tolist():
        table = controls.sel({"controls": pair, "metric": metrics})
        columns = [table[name].values.tolist() for name in names]
        rows = [dict(zip(names, numbers, strict=True)) for numbers in zip(*columns, strict=True)]
        last, second_last = pair.split(", ")
        total = {name: sum(row[name] for row in rows) for name in names}
        found.append(
            {"last": last, "second_last": second_last, "rows": list(zip(metrics, rows, strict=True)), "total": total}
        )
    return found


def diagnostics(summary: xr.Dataset) -> list[dict[str, Any]]:
    """Average the diagnostics of each curve metric over methods and classifiers, controls included."""
    names = summary["metric"].values[summary["role"].values == "diagnostic"].tolist()
    found: dict[str, dict[str, Any]] = {}
    for name in names:
        base, _, word = name.rpartition("_")
        if word not in OF_CURVES:
            continue
        values = summary["mean"].sel(metric=name).values
        known = values[~np.isnan(values)]
        found.setdefault(base, {"metric": base})[word] = known.mean() if known.size else np.nan
        found[base]["cells"] = known.size
    return list(found.values())


def curve_charts(curves: xr.Dataset, metric: str) -> dict[str, Any]:
    """Return one curve metric's charts, by classifier."""
    one = curves.sel(metric=metric)
    charts = [(name, curve_plot.curves(curves, metric, name)) for name in curves["classifier"].values.tolist()]
    about = {"long_name": str(one["metric_long_name"].values), "better": str(one["better"].values)}
    return {"metric": metric, **about, "charts": charts}


def settings(given: dict, methods: dict[str, dict[str, str]], summary: xr.Dataset) -> dict[str, Any]:
    """Return the sources of every number: the entries of params.yaml and their references."""
    rows = [
        {
            "name": name,
            "family": one["family"],
            "settings": formatted(json.loads(one["settings"])),
            "reference": one["reference"],
            "long_name": one["long_name"],
        }
        for name, one in methods.items()
    ]
    scoring = [
        {
            "name": name,
            "family": str(one["metric_family"].values),
            "settings": formatted(json.loads(str(one["metric_settings"].values))),
            "reference": str(one["metric_reference"].values),
            "long_name": str(one["metric_long_name"].values),
            "keys": list(zip(*(one[part].values.tolist() for part in ("classifier", "key_digest")), strict=True)),
        }
        for name in summary["metric"].values.tolist()
        for one in [summary.sel(metric=name)]
    ]
    engine = ", ".join(f"{key} {value}" for key, value in given["engine"].items())
    return {"methods": rows, "metrics": scoring, "seed": given["seed"], "engine": engine}


def formatted(settings: dict[str, Any]) -> str:
    """Format settings in one line."""
    return ", ".join(f"{key} = {value}" for key, value in settings.items())
