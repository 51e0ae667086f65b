"""Which methods a metric distinguishes, whether all metrics together do, and where they place controls."""

from typing import Any

import numpy as np
import xarray as xr

from atlas.statistics.comparisons.letters import letters
from atlas.statistics.comparisons.pairs import Pairs, compare_pairs
from atlas.statistics.comparisons.significance import friedman, nemenyi
from atlas.statistics.rankings.controls import Places, count_places
from atlas.statistics.tables import DIAGNOSTIC, METRIC, MetricScores
from atlas.statistics.units import units


def contrast_table(scored: list[MetricScores], summary: xr.Dataset, *, level: float) -> xr.Dataset:
    """Compare every two methods by every metric on every classifier, image by image.

    A grid is one unit, as its tiles share its pixels. Differences of means are over tiles, like means. Methods that are
    not ranked, because too few of their scores are defined, are not compared. Holm's adjustment is over the pairs of
    methods for one metric on one classifier.

    Args:
        scored: One entry per classifier and metric.
        summary: Ranks.
        level: The coverage probability of the intervals of differences.
    """
    ranking = [one for one in scored if one.attrs.get("role", METRIC) != DIAGNOSTIC]
    coords: dict[str, Any] = {
        "classifier": summary["classifier"].values,
        "method": summary["method"].values,
        "metric": list(dict.fromkeys(one.metric for one in ranking)),
        "method_other": summary["method"].values,
    }
    shape = [len(labels) for labels in coords.values()]
    numbers = {name: np.zeros(shape, np.int32) for name in Pairs._fields if name.endswith("count")}
    columns = {name: numbers.get(name, np.full(shape, np.nan)) for name in Pairs._fields}
    classifiers = coords["classifier"].tolist()
    for one in ranking:
        ranked = ~np.isnan(summary["rank"].sel(classifier=one.classifier, metric=one.metric).values)
        if not ranked.any():
            continue
        found = compare_pairs(np.where(ranked, units(one.scores), np.nan), binary=one.binary, level=level)
        # The probability of being better, not of being larger.
        found = found if one.sign > 0 else found._replace(superiority=1 - found.superiority)
        here = classifiers.index(one.classifier), slice(None), coords["metric"].index(one.metric)
        for name, values in found._asdict().items():
            columns[name][here] = values
    return xr.Dataset({name: (tuple(coords), values) for name, values in columns.items()}, coords)


def letter_table(contrasts: xr.Dataset, summary: xr.Dataset, *, alpha: float) -> xr.DataArray:
    """Return the letters of every leaderboard: methods that share a letter do not differ significantly.

    Args:
        contrasts: Adjusted p-values.
        summary: Ranks; metrics that rank nothing get no letters, nor do those with so few images that no two methods
            could differ significantly, whatever their scores.
        alpha: p-values up to this are significant.
    """
    ranks = summary["rank"].transpose("classifier", "metric", "method")
    contrasts = contrasts.transpose("classifier", "metric", "method", "method_other")
    found = np.full(ranks.shape, "", dtype=object)
    metrics = {name: place for place, name in enumerate(summary["metric"].values.tolist())}
    for at in range(len(ranks)):
        for place, name in enumerate(contrasts["metric"].values.tolist()):
            matrix, count = (contrasts[key].values[at, place] for key in ("p_adjusted", "count"))
            pairs = (~np.isnan(matrix)).sum() / 2
            if 2 * 0.5 ** count.max() * pairs > alpha:
                continue
            order = np.argsort(ranks.values[at, metrics[name]], kind="stable")  # NaN comes last
            found[at, metrics[name], order] = letters(matrix[np.ix_(order, order)], alpha=alpha)
    message = xr.DataArray(found.astype(np.dtypes.StringDType()), ranks.coords, ranks.dims)
    return message.transpose("classifier", "method", "metric")


def omnibus_table(summary: xr.Dataset, *, alpha: float) -> dict[str, xr.DataArray]:
    """Test on each classifier whether metrics, as cases, agree on the ranks of methods more than by chance.

    Friedman's test and Nemenyi's critical difference of mean ranks, over the methods that every metric ranks. Controls
    are left out, as they lie far from all others in any case. Metrics share images, so they are not fully independent
    cases.

    Args:
        summary: Ranks.
        alpha: The probability that some of equal methods are distinguished.
    """
    ranks = summary["rank"].sel({"metric": summary["role"] == METRIC, "method": ~summary["control"]})
    ranks = ranks.transpose("classifier", "metric", "method")
    rows = []
    for one in ranks.values:
        table = one[~np.isnan(one).all(axis=1)]
        table = table[:, ~np.isnan(table).any(axis=0)]
        tested = friedman(table, better="lower")
        cases, methods = table.shape
        apart = nemenyi(methods, cases, alpha=alpha) if methods > 1 and cases else np.nan
        rows.append((tested.statistic, tested.p, cases, methods, apart))
    columns = np.array(rows, dtype=np.float64).reshape(-1, 5).T
    names = ("friedman", "friedman_p", "friedman_metrics", "friedman_methods", "critical_difference")
    coords = {"classifier": summary["classifier"].values}
    found = {name: xr.DataArray(values, coords, ("classifier",)) for name, values in zip(names, columns, strict=True)}
    whole = ("friedman_metrics", "friedman_methods")
    return {name: one.astype(np.int32) if name in whole else one for name, one in found.items()}


def control_table(summary: xr.Dataset, pairs: list[tuple[str, str]]) -> xr.Dataset:
    """Count, by metric, the classifiers on which one control is last and another second-last.

    Args:
        summary: Ranks.
        pairs: Names of two methods: one that should rank last, such as a uniform map, and one that should rank just
            above it, such as edges.
    """
    methods = summary["method"].values.tolist()
    metrics = summary["metric"].values[summary["role"].values != DIAGNOSTIC].tolist()
    found = []
    for one, other in pairs:
        places = {"last": methods.index(one), "second_last": methods.index(other)}
        for metric in metrics:
            ranks = summary["rank"].sel(metric=metric).transpose("classifier", "method").values
            found.append(count_places(ranks, **places, better="lower"))
    values = np.array(found, dtype=np.int32).reshape(len(pairs), len(metrics), len(Places._fields))
    coords = {"controls": [f"{one}, {other}" for one, other in pairs], "metric": metrics}
    return xr.Dataset({name: (tuple(coords), values[..., place]) for place, name in enumerate(Places._fields)}, coords)
