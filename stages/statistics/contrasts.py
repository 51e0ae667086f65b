"""Which methods a metric tells apart, whether all metrics together do, and where they put controls."""

import numpy as np
import xarray as xr

from stages.statistics.bootstrap import Kind, differences, draw
from stages.statistics.controls import Places, count_places
from stages.statistics.letters import letters
from stages.statistics.significance import friedman, nemenyi, pairwise
from stages.statistics.tables import DIAGNOSTIC, METRIC, Judged, by_unit, units

DIFFERENCES = ("difference", "difference_low", "difference_high")
PAIRED = ("p", "p_adjusted", "superiority", *DIFFERENCES)


def contrast_table(
    judged: list[Judged], summary: xr.Dataset, *, resamples: int, level: float, seed: int, intervals: Kind
) -> xr.Dataset:
    """Compare every two methods by every metric on every classifier, image by image.

    A grid is one unit, by the mean over its tiles: they share its pixels. Differences of means are over tiles, as means
    are, their intervals over the summary's resamples of whole grids. Methods that are not ranked, because too few of
    their scores are defined, are not compared. Holm's adjustment is over the pairs of one metric on one classifier.

    Args:
        judged: One entry a classifier and metric.
        summary: Their ranks.
        resamples: Bootstrap resamples of the images (or grids).
        level: Share of the resamples inside an interval.
        seed: Of the resampling.
        intervals: Which interval differences have.
    """
    ranking = [one for one in judged if one.attrs.get("role", METRIC) != DIAGNOSTIC]
    coords = {
        "classifier": summary["classifier"].values,
        "method": summary["method"].values,
        "metric": list(dict.fromkeys(one.metric for one in ranking)),
        "method_other": summary["method"].values,
    }
    shape = [len(labels) for labels in coords.values()]
    columns = {name: np.full(shape, np.nan) for name in PAIRED}
    number, defined = np.zeros((2, *shape), np.int32)
    classifiers = coords["classifier"].tolist()
    for one in ranking:
        ranked = ~np.isnan(summary["rank"].sel(classifier=one.classifier, metric=one.metric).values)
        if not ranked.any():
            continue
        found = pairwise(np.where(ranked, by_unit(one), np.nan))
        here = classifiers.index(one.classifier), slice(None), coords["metric"].index(one.metric)
        columns["p"][here], columns["p_adjusted"][here] = found.p, found.adjusted
        # The better one, not the larger one.
        columns["superiority"][here] = found.superiority if one.sign > 0 else 1 - found.superiority
        number[here] = found.count
        weights = draw(one.scores.shape[1], resamples=resamples, seed=seed)
        change = differences(np.where(ranked, units(one), np.nan), weights, level=level, kind=intervals)
        for name, values in zip(DIFFERENCES, change[:3], strict=True):
            columns[name][here] = values
        defined[here] = change.count
    columns |= {"count": number, "difference_count": defined}
    return xr.Dataset({name: (tuple(coords), values) for name, values in columns.items()}, coords)


def letter_table(contrasts: xr.Dataset, summary: xr.Dataset, *, alpha: float) -> xr.DataArray:
    """Give the letters of every leaderboard: methods that share one do not differ significantly.

    Args:
        contrasts: Adjusted p-values.
        summary: Ranks; its metrics that rank nothing get no letters, and neither do those whose images are so few
            that no two methods could differ, whatever their scores.
        alpha: p-values up to it are significant.
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
    told = xr.DataArray(found.astype(np.dtypes.StringDType()), ranks.coords, ranks.dims)
    return told.transpose("classifier", "method", "metric")


def omnibus_table(summary: xr.Dataset, *, alpha: float) -> dict[str, xr.DataArray]:
    """Test on each classifier whether metrics, each one case, rank methods otherwise than by chance.

    Friedman's test and Nemenyi's critical difference of mean ranks, over the methods that every metric ranks. Controls
    are left out, which lie far from all others whatever these do. Metrics share images, so that they are less than
    independent cases.

    Args:
        summary: Ranks.
        alpha: How often any two of equal methods may be told apart.
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
        pairs: Names of methods: one that belongs last, as a uniform map, and one that belongs before it, as edges.
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
