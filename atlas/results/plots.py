"""Lay out the summary as a table, and write the files that `dvc plots` shows."""

import csv
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import xarray as xr

if TYPE_CHECKING:
    from pandas import DataFrame


def long_form(summary: xr.Dataset) -> "DataFrame":
    """Return the summary as a table with a row for each classifier, method and metric."""
    cells = [name for name in summary.data_vars if summary[name].dims == summary["mean"].dims]
    columns = ["letters", "better", "role", "metric_family", "method_family", "control", "unit"]
    table = summary[cells].to_dataframe().reset_index()
    return table[["classifier", "method", "metric", *cells, *columns]]


def write(summary: xr.Dataset, curves: xr.Dataset | None, folder: Path) -> None:
    """Write the files that `dvc plots` shows, one for each family of metrics, best methods first."""
    for part in ("scores", "curves"):
        (folder / part).mkdir(parents=True)
    ends = {"mean_rank": "mean_rank", "mean_rank_low": "low", "mean_rank_high": "high"}
    ranks = summary[list(ends)].to_dataframe().reset_index().rename(columns=ends)
    columns = ["classifier", "method", "mean_rank", "low", "high"]
    _write_csv(folder / "mean_rank.csv", columns, ranks.sort_values(["classifier", "mean_rank"], kind="stable"))
    table = long_form(summary).sort_values(["classifier", "rank"], kind="stable")
    places = {name: at for at, name in enumerate(summary["metric"].values.tolist())}
    table = table.sort_values("metric", key=lambda names: names.map(places), kind="stable")
    for family, rows in table.groupby("metric_family", sort=False):
        columns = ["metric", "classifier", "method", "mean", "low", "high", "count", "rank"]
        _write_csv(folder / "scores" / f"{family}.csv", columns, rows)
    if curves is None:
        return
    order = ["metric", "classifier", "method", "fraction"]
    points = curves[["mean", "low", "high"]].to_dataframe(dim_order=order).reset_index().dropna(subset=["mean"])
    for family, rows in points.groupby("metric_family", sort=False):
        _write_csv(folder / "curves" / f"{family}.csv", [*order, "mean", "low", "high"], rows)


def _write_csv(path: Path, columns: list[str], rows: "DataFrame") -> None:
    with path.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(columns)
        writer.writerows(_plain(rows[columns].itertuples(index=False)))


def _plain(rows: Iterable[tuple]) -> Iterable[list[object]]:
    return ([f"{cell:.6g}" if isinstance(cell, float) else cell for cell in row] for row in rows)
