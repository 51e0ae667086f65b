"""Changes between two summaries of the same study: scores, ranks, counts, letters, settings, names."""

import json
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

CELL = ("classifier", "metric", "method")
FIELDS = ("mean", "low", "high", "count", "rank")
# Mean ranks are listed like metrics, under their names in the summary.
MEAN_RANK, OVERALL_RANK = "mean_rank", "overall_rank"
MEAN_RANKS = (MEAN_RANK, OVERALL_RANK)
EVERY = "all classifiers"
COLUMNS = (
    *CELL,
    "better",
    "state",
    *(f"{name}_{side}" for name in (*FIELDS, "letters") for side in ("before", "after")),
    "turned",
    "change",
    "widths",
    "rank_change",
    "apart",
)
SAME, CHANGED, CAME, WENT = "same", "changed", "came", "went"


def changes(before: xr.Dataset, after: xr.Dataset) -> pd.DataFrame:
    """Compare two summaries: one row for each classifier, metric and method of either.

    change = mean after − mean before; widths = |change| / ((width before + width after) / 2), with the widths of the
    means' intervals; apart = high before < low after or high after < low before.

    Args:
        before: Means, intervals, counts, ranks and letters, by classifier, method and metric; and mean ranks, on each
            classifier and on all.
        after: The same from another run.

    Returns:
        The cell; `better`, the direction of its metric; `state`: "same", "changed" (mean, interval, count, rank or
        letters differ), "came" or "went" (its classifier, method or metric exists on one side only). Then both sides of
        mean, low, high, count, rank and letters; `turned`, whether the mean of a cell on both sides is defined on one
        side only; `change`, in the units of the metric; `widths`, 0 or above; `rank_change`, below 0 where it rose;
        `apart`. What is derived from a number that is undefined on either side is NaN, and `apart` is undefined if an
        interval is. Rows of the metric "mean_rank" are mean ranks, whose "count" counts metrics; those of
        "overall_rank", on "all classifiers", are ranks over all of them, whose "count" counts rankings. Rows are
        sorted: first turned ones, then intervals apart, then by change in widths, largest first; a change between two
        intervals without width is infinite. Letters are those of significance among the methods of one side, named from
        the best method on: another set of methods may rename those after it. They are not compared if a side has none.

    Requiring that two intervals of level 1 − α do not overlap is stricter than a test at α. Each interval is over the
    images of its own run; even if these are the same images, scores are not paired, which makes it stricter still:
    overlapping intervals do not show that nothing changed. There is no correction for the number of cells.

    Reference: by definition; efron1993introduction (intervals).
    """
    sides = [_rows(one) for one in (before, after)]
    table = sides[0].join(sides[1], how="outer", lsuffix="_before", rsuffix="_after", sort=False)
    better = [side["better"].reindex(table.index) for side in sides]
    table["better"] = better[1].fillna(better[0])
    numbers = {(name, side): table[f"{name}_{side}"] for name in FIELDS for side in ("before", "after")}
    low, high = ([numbers[name, side] for side in ("before", "after")] for name in ("low", "high"))
    table["change"] = numbers["mean", "after"] - numbers["mean", "before"]
    table["rank_change"] = numbers["rank", "after"] - numbers["rank", "before"]
    width = ((high[0] - low[0]) + (high[1] - low[1])) / 2
    size = table["change"].abs()
    table["widths"] = (size / width).where(size > 0, size)
    apart = ((high[0] < low[1]) | (high[1] < low[0])).astype("boolean")
    table["apart"] = apart.mask(pd.concat([*low, *high], axis=1).isna().any(axis=1))
    pairs = [(numbers[name, "before"], numbers[name, "after"]) for name in FIELDS]
    same = np.logical_and.reduce([(one == other) | (one.isna() & other.isna()) for one, other in pairs])
    letters = table["letters_before"], table["letters_after"]
    same &= (letters[0] == letters[1]) | letters[0].isna() | letters[1].isna()
    table["state"] = np.where(same, SAME, CHANGED)
    for side, other, word in ((0, 1, WENT), (1, 0, CAME)):
        table.loc[sides[side].index.difference(sides[other].index), "state"] = word
    means = numbers["mean", "before"], numbers["mean", "after"]
    table["turned"] = (means[0].isna() != means[1].isna()) & (table["state"] == CHANGED)
    table = table.astype({"count_before": "Int64", "count_after": "Int64"}).reset_index()
    order = {"turned": False, "apart": False, "widths": False} | dict.fromkeys(CELL, True)
    table = table.sort_values(list(order), ascending=list(order.values()), na_position="last", kind="stable")
    return table[list(COLUMNS)].reset_index(drop=True)


def settings(before: xr.Dataset, after: xr.Dataset) -> pd.DataFrame:
    """Return the settings that differ: those of metrics in both summaries, and those of the aggregation.

    Returns:
        `of` ("aggregate", or a metric), `setting`, and both sides' values as JSON, empty where a side does not have the
        setting.
    """
    sides = []
    for one in (before, after):
        others = {name: value for name, value in one.attrs.items() if name in ("min_count", "weights")}
        sides.append({"aggregate": {**one.attrs["bootstrap"], **others}, **_settings(one)})
    rows = []
    for of in sides[0]:
        if of not in sides[1]:
            continue
        values = [{name: json.dumps(value, sort_keys=True) for name, value in side[of].items()} for side in sides]
        for name in dict.fromkeys([*values[0], *values[1]]):
            pair = [one.get(name, "") for one in values]
            if pair[0] != pair[1]:
                rows.append([of, name, *pair])
    return pd.DataFrame(rows, columns=["of", "setting", "before", "after"])


def names(before: xr.Dataset, after: xr.Dataset) -> pd.DataFrame:
    """Return the classifiers, methods and metrics that only one of the summaries has.

    Returns:
        `what` ("classifier", "metric" or "method"), `name`, and `state`: "came" or "went".
    """
    rows = []
    for what in CELL:
        sides = [one[what].values.tolist() for one in (before, after)]
        rows += [[what, name, WENT] for name in sides[0] if name not in sides[1]]
        rows += [[what, name, CAME] for name in sides[1] if name not in sides[0]]
    return pd.DataFrame(rows, columns=["what", "name", "state"])


def _rows(summary: xr.Dataset) -> pd.DataFrame:
    """Return a row for each cell, including mean ranks; letters are None if the summary has none."""
    table = summary[list(FIELDS)].to_dataframe().reset_index()
    table = table.assign(letters=table["letters"].astype(object) if "letters" in table else None)
    tables = [table[[*CELL, "better", *FIELDS, "letters"]]]
    ends = {"mean": "", "low": "_low", "high": "_high", "count": "_metrics"}
    for kind in MEAN_RANKS:
        columns = {name: summary[f"{kind}{end}"] for name, end in ends.items()}
        ranks = xr.Dataset(columns).to_dataframe().reset_index()
        named = {"metric": kind, "better": "lower", "rank": np.nan, "letters": ""}
        named |= {"classifier": EVERY} if kind == OVERALL_RANK else {}
        tables.append(ranks.assign(**named)[tables[0].columns])
    both = pd.concat(tables)
    return both.astype(dict.fromkeys(FIELDS, float) | dict.fromkeys([*CELL, "better"], str)).set_index(list(CELL))


def _settings(summary: xr.Dataset) -> dict[str, dict[str, Any]]:
    """Return each metric's settings, together with its direction."""
    columns = (summary[name].values.tolist() for name in ("metric", "metric_settings", "better"))
    return {
        metric: {**json.loads(settings), "better": better} for metric, settings, better in zip(*columns, strict=True)
    }
