"""Comparisons of classifiers: how each family's means change, box plots of mean scores, and accuracy."""

from concurrent.futures import Executor
from typing import Any

import xarray as xr

from atlas.report.charts import boxes, fronts, heat
from atlas.report.sorting import digits, ranking_metrics

FIELDS = ("change", "better_count", "worse_count", "apart", "count", "p")
# Headings of the columns of an accuracy and its front; an accuracy that no classifier has gets none.
HEADS = {"accuracy": ("accuracy", "front"), "adversarial_accuracy": ("under attack", "front under attack")}
ABOUT = {"better": "better", "units": "metric_units", "family": "metric_family", "long_name": "metric_long_name"}


def section(summary: xr.Dataset, comparison: xr.Dataset, processes: Executor) -> dict[str, Any] | None:
    """Return the contents of the section; None if no two classifiers are evaluated on the same images.

    Args:
        summary: Mean scores.
        comparison: The comparison of classifiers from `aggregate`.
        processes: Processes that draw the charts.
    """
    if not comparison.sizes["comparison"]:
        return None
    metrics = ranking_metrics(summary)
    together = [name for group in comparison.attrs["same_images"] if len(group) > 1 for name in group]
    every = summary["classifier"].values.tolist()
    places = [every.index(name) for name in together]
    boards = [board(summary, comparison, metric, together) for metric in metrics]
    shown = [one for one in boards if one["rows"]]
    charts = [
        processes.submit(boxes.chart, one["rows"], places, one["name"], one["better"], one["units"]) for one in shown
    ]
    traded = [
        [
            processes.submit(fronts.chart, one["standings"], *of, one["name"], one["better"])
            for of in fronts.drawn(one["standings"])
        ]
        for one in shown
    ]
    for one, chart, beside in zip(shown, charts, traded, strict=True):
        one["chart"], one["fronts"] = chart.result(), [drawn.result() for drawn in beside]
    known = [name for name in fronts.ACCURACIES if comparison[name].notnull().any()]
    return {
        "accuracies": {HEADS[name][0]: name for name in known},
        "fronts": {HEADS[name][1]: name for name in known},
        "pairs": pairs(summary, comparison, metrics),
        "compared": comparison["comparison"].values.tolist(),
        "pooled": sum(len(group) > 1 for group in comparison.attrs["same_images"]) > 1,
        "classifiers": together,
        "boards": shown,
        "families": list(dict.fromkeys(one["family"] for one in shown)),
        "min_count": boxes.FEWEST,
        "reach": comparison.attrs["reach"],
        "traded": any(one["fronts"] for one in shown),
    }


def board(summary: xr.Dataset, comparison: xr.Dataset, metric: str, together: list[str]) -> dict[str, Any]:
    """Return one metric's boxes and standings, and the methods that it does not rank, by classifier."""
    one = summary.sel(metric=metric)
    about = {name: str(one[label].values) for name, label in ABOUT.items()}
    rows = boxes.rows(summary, comparison, metric, together)
    left_out = [
        (name, box.left_out)
        for row in rows[:1]  # all methods
        for name, box in zip(together, row.boxes, strict=True)
        if box.left_out
    ]
    standings = fronts.standings(comparison, summary["dataset"].values.tolist(), metric)
    return {"name": metric, **about, "rows": rows, "left_out": left_out, "standings": standings}


def pairs(summary: xr.Dataset, comparison: xr.Dataset, metrics: list[str]) -> list[dict[str, Any]]:
    """Return how each family's mean scores change between classifiers, by metric; shaded by the share that change."""
    families = [*boxes.families(summary), boxes.EVERY]
    found = []
    for label in comparison["comparison"].values.tolist():
        table = comparison.sel({"comparison": label, "metric": metrics, "method_family": families})
        columns = [table[name].transpose("metric", "method_family").values.tolist() for name in FIELDS]
        rows = [
            (metric, [_change(*cell, min_count=summary.attrs["min_count"]) for cell in zip(*numbers, strict=True)])
            for metric, *numbers in zip(metrics, *columns, strict=True)
        ]
        found.append({"compared": label, "families": families, "rows": rows})
    return found


def _change(change: float, better: int, worse: int, apart: int, number: int, p: float, *, min_count: int) -> heat.Cell:
    if not number:
        why = f"no method is ranked on both: that takes {min_count} or more images, or grids, with a score"
        return heat.Cell("", 0, False, why)
    text = f"{change:+.3g}".replace("-", "−") + f"\n{better} of {number}"
    text += f"\np {digits(p, 2)}" if number >= boxes.FEWEST else ""
    hint = (
        f"better for {better} of {number}, worse for {worse}, tied for {number - better - worse}; "
        f"intervals apart for {apart}; Mann–Whitney p = {p:.2g}"
    )
    return heat.Cell(text, heat.DEEPEST * abs(better - worse) / number, better < worse, hint)
