"""Labelled tables of results: from the scores of one metric on one classifier to datasets over all of them."""

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import xarray as xr

from atlas.statistics import curves
from atlas.statistics.comparisons.groups import ranked_means
from atlas.statistics.intervals.bootstrap import draw, mean, pool
from atlas.statistics.intervals.means import are_hits, intervals
from atlas.statistics.rankings.agreement import kendall, mean_and_sd, spearman
from atlas.statistics.rankings.overall import mean_ranks
from atlas.statistics.summary import Summary, summarize
from atlas.statistics.units import parts, units
from atlas.study.schema.types import Weights

# Roles of metrics: ranking methods; ranking some methods, apart from the mean ranks; not ranking.
METRIC = "metric"
DIAGNOSTIC = "diagnostic"
CURVE = ("mean", "low", "high", "count")


class MetricScores(NamedTuple):
    """The scores of one metric on one classifier, by all methods.

    `scores` has the dimensions method, then image, or grid and tile, then fraction or threshold if there is one. If an
    image may have several labels, a row of `image` is one label, and the coordinate `picture` numbers the pictures.
    `asked` marks the scores that were requested: the others are NaN because they were not requested, not because they
    are undefined.
    """

    classifier: str
    metric: str
    attrs: dict[str, Any]
    scores: xr.DataArray
    asked: xr.DataArray
    threshold: xr.DataArray | None = None

    @property
    def sign(self) -> int:
        """1 where higher is better, else -1."""
        return 1 if self.attrs["better"] == "higher" else -1

    @property
    def grids(self) -> bool:
        """Whether grids were scored, not images."""
        return "grid" in self.scores.dims

    @property
    def binary(self) -> bool:
        """Whether every score is a hit or a miss."""
        return are_hits(self.scores.values)


def derive(scored: MetricScores) -> list[MetricScores]:
    """Reduce curves and hits to one number per row; a metric with one number per row is unchanged.

    A curve yields its area, under the metric's own name, and two diagnostics of the metric, which rank no method:
    `<metric>_monotonicity` and `<metric>_smoothness`. Hits are taken at each method's best threshold, certified results
    at the first radius and the metric's `level`.
    """
    rule = scored.attrs.get("summary")
    if rule is None:
        return [scored]
    if rule == "best_threshold":
        chosen = [curves.best_threshold(one.values) for one in scored.scores]
        place = scored.scores["threshold"].values[[position for _, position in chosen]]
        scores = scored.scores.isel(threshold=0, drop=True).copy(data=np.stack([hits for hits, _ in chosen]))
        return [scored._replace(scores=scores, threshold=xr.DataArray(place, {"method": scores["method"]}))]
    if rule == "area":
        return list(_of_curves(scored))
    if rule == "level":
        scores = scored.scores.sel(level=scored.attrs["level"]).isel(radius=0)
        return [scored._replace(scores=scores.drop_vars(["level", "radius"]))]
    raise ValueError(f"the metric {scored.metric} is to be summarized by '{rule}'; known: area, best_threshold, level")


def _of_curves(scored: MetricScores) -> Iterator[MetricScores]:
    fraction, better = scored.scores["fraction"].values, scored.attrs["better"]
    plain = scored.scores.isel(fraction=0, drop=True)
    given, name = scored.scores.values, scored.attrs["long_name"]
    yield scored._replace(scores=plain.copy(data=curves.area(given, fraction)))
    for word, values, direction in (
        ("monotonicity", curves.monotonicity(given, better=better), "higher"),
        ("smoothness", curves.smoothness(given), "lower"),
    ):
        attrs = {
            **scored.attrs,
            "long_name": f"{name}: {word} of the curve",
            "units": "1" if word == "monotonicity" else scored.attrs["units"],
            "better": direction,
            "reference": "nieradzik2024reliable",
            "role": DIAGNOSTIC,
        }
        yield MetricScores(scored.classifier, f"{scored.metric}_{word}", attrs, plain.copy(data=values), scored.asked)


def score_table(scored: list[MetricScores]) -> xr.Dataset:
    """Return every score by classifier, method, metric and row: images in one variable, grids in another.

    A second variable marks requested scores, 1 or 0: where it is 1, NaN means undefined; where it is 0, the method
    cannot serve the classifier, according to the dataset's attribute `unsupported`, or the score was not requested.
    """
    tables, metrics = {}, {one.metric: None for one in scored}
    for start, grids in (("", False), ("grid_", True)):
        chosen = [one for one in scored if one.grids is grids]
        if not chosen:
            continue
        scores = _stacked(chosen, [one.scores for one in chosen], metrics, np.float32(np.nan))
        comment = f"NaN: undefined where {start}asked is 1, else unsupported (the dataset's attribute) or not asked for"
        tables[f"{start}score"] = scores.assign_attrs(comment=comment)
        tables[f"{start}asked"] = _stacked(chosen, [one.asked for one in chosen], metrics, np.int8(0))
    return xr.Dataset(tables)


def _stacked(
    scored: list[MetricScores], tables: list[xr.DataArray], metrics: dict[str, None], fill: np.generic
) -> xr.DataArray:
    """Join tables by name; rows keep the order of their first appearance."""
    rows = [str(name) for name in scored[0].scores.dims if name != "method"]
    labels = {row: list(dict.fromkeys(v for one in scored for v in one.scores[row].values.tolist())) for row in rows}
    classifiers = list(dict.fromkeys(one.classifier for one in scored))
    method = scored[0].scores["method"].values
    coords: dict[str, Any] = {"classifier": classifiers, "method": method, "metric": list(metrics), **labels}
    shape = [len(values) for values in coords.values()]
    table = xr.DataArray(np.full(shape, fill), coords, list(coords))
    places = {name: {label: i for i, label in enumerate(table[name].values.tolist())} for name in coords}
    for one, values in zip(scored, tables, strict=True):
        at = [[places[row][label] for label in values[row].values.tolist()] for row in rows]
        here = places["classifier"][one.classifier], places["metric"][one.metric]
        table.values[here[0], :, here[1]][np.ix_(range(len(method)), *at)] = values.values
    return table


def summary_table(
    scored: list[MetricScores], *, resamples: int, level: float, seed: int, min_count: int, weights: Weights
) -> xr.Dataset:
    """Return mean, interval, counts and rank of every method by every metric on every classifier, and mean ranks.

    Mean ranks are over all metrics that rank, on one classifier and on all, and over those of one family.

    Args:
        scored: One entry per classifier and metric.
        resamples: Bootstrap resamples of the images (or grids), the same ones for every method, for ranks. A picture
            is drawn with all its rows, if it has one per label.
        level: The coverage probability for means, and the share of the resamples inside an interval of ranks.
        seed: Seed of the resampling.
        min_count: The number of images, or grids, with a defined score that a metric needs to rank a method.
        weights: What has equal weight in a mean rank.
    """
    classifiers = list(dict.fromkeys(one.classifier for one in scored))
    metrics = list(dict.fromkeys(one.metric for one in scored))
    methods = scored[0].scores["method"].values
    coords: dict[str, Any] = {"classifier": classifiers, "method": methods, "metric": metrics}
    fields = (*Summary._fields, "asked", "threshold")
    columns = {name: np.full([len(values) for values in coords.values()], np.nan) for name in fields}
    places: dict[tuple[int, int], np.ndarray] = {}
    for one in scored:
        here = classifiers.index(one.classifier), slice(None), metrics.index(one.metric)
        rows = units(one.scores)
        drawn = draw(len(rows), resamples=resamples, seed=seed)
        options: dict[str, Any] = {"better": one.attrs["better"], "level": level, "min_count": min_count}
        table, places[here[0], here[2]] = summarize(rows, drawn, **options)
        for name, values in table._asdict().items():
            columns[name][here] = values
        columns["asked"][here] = one.asked.sum([name for name in one.asked.dims if name != "method"])
        if one.threshold is not None:
            columns["threshold"][here] = one.threshold
    dims = tuple(coords)
    families = {one.metric: one.attrs["family"] for one in scored if one.attrs.get("role", METRIC) == METRIC}
    use = {position: families[metric] for position, metric in enumerate(metrics) if metric in families}
    coords["family"] = list(dict.fromkeys(use.values()))
    variables = {name: (dims, values) for name, values in columns.items()}
    averaged = mean_ranks(places, len(classifiers), use, level=level, weights=weights)
    return _with_integer_counts(xr.Dataset({**variables, **averaged}, coords))


def curve_table(scored: list[MetricScores], *, level: float) -> xr.Dataset:
    """Average curves over images, point by point, with bands; NaN at fractions where a metric was not scored.

    For bands, all rows of a picture are one unit.
    """
    labels = {
        "classifier": list(dict.fromkeys(one.classifier for one in scored)),
        "method": scored[0].scores["method"].values.tolist(),
        "metric": list(dict.fromkeys(one.metric for one in scored)),
        "fraction": sorted({at for one in scored for at in one.scores["fraction"].values.tolist()}),
    }
    columns = {name: np.full([len(values) for values in labels.values()], np.nan) for name in CURVE}
    for one in scored:
        here = labels["classifier"].index(one.classifier), labels["metric"].index(one.metric)
        at, binary = np.searchsorted(labels["fraction"], one.scores["fraction"].values), one.binary
        for method, scores in enumerate(parts(one.scores)):
            sums, counts = pool(scores)
            low, high = intervals(sums, counts, binary=binary, level=level)
            for name, values in zip(CURVE, (mean(sums, counts), low, high, counts.sum(axis=0)), strict=True):
                columns[name][here[0], method, here[1], at] = values
    return _with_integer_counts(xr.Dataset({name: (tuple(labels), values) for name, values in columns.items()}, labels))


def certified_table(scored: list[MetricScores], *, level: float) -> xr.Dataset:
    """Average certified results over images or grids at every radius and level, with intervals; for these, all rows of
    a picture are one unit.

    Args:
        scored: Metrics with the dimensions radius and level.
        level: The coverage probability for means.
    """
    labels = {
        "classifier": list(dict.fromkeys(one.classifier for one in scored)),
        "method": scored[0].scores["method"].values.tolist(),
        "metric": list(dict.fromkeys(one.metric for one in scored)),
        "radius": sorted({at for one in scored for at in one.scores["radius"].values.tolist()}),
        "level": sorted({at for one in scored for at in one.scores["level"].values.tolist()}),
    }
    columns = {name: np.full([len(values) for values in labels.values()], np.nan) for name in CURVE}
    for one in scored:
        here = labels["classifier"].index(one.classifier), labels["metric"].index(one.metric)
        at = np.ix_(*(np.searchsorted(labels[dim], one.scores[dim].values) for dim in ("radius", "level")))
        shape, binary = one.scores.shape[-2:], one.binary
        for method, scores in enumerate(parts(one.scores)):
            sums, counts = pool(scores.reshape(*scores.shape[:2], shape[0] * shape[1]))
            low, high = intervals(sums, counts, binary=binary, level=level)
            for name, values in zip(CURVE, (mean(sums, counts), low, high, counts.sum(axis=0)), strict=True):
                columns[name][here[0], method, here[1]][at] = values.reshape(shape)
    return _with_integer_counts(xr.Dataset({name: (tuple(labels), values) for name, values in columns.items()}, labels))


def _with_integer_counts(table: xr.Dataset) -> xr.Dataset:
    """Return a table whose counts are integers, 0 where they are missing."""
    for name in table.data_vars:
        if name == "asked" or str(name).endswith(("count", "_metrics", "_methods")):
            table[name] = table[name].fillna(0).astype(np.int32)
    return table


def agreement_table(summary: xr.Dataset, signs: dict[str, int]) -> xr.Dataset:
    """Compare rankings: of metrics on one classifier, of classifiers by one metric, and of metrics over all cells.

    Args:
        summary: Mean scores and ranks; unranked means are left out.
        signs: The metrics to compare, with 1 if higher is better, otherwise -1, by which means are multiplied.
    """
    names = list(signs)
    means = ranked_means(summary).sel(metric=names).values * np.array([signs[name] for name in names])
    ranks = summary["rank"].sel(metric=names).values
    between, between_count = _matrices(kendall, ranks.transpose(0, 2, 1))
    across, across_count = _matrices(kendall, ranks.transpose(2, 0, 1))
    rho, rho_count = spearman(means.transpose(2, 0, 1).reshape(len(names), -1))
    metrics, others = ("classifier", "metric", "metric_other"), ("metric", "classifier", "classifier_other")
    variables: dict[str, Any] = {
        "kendall": (metrics, between),
        "kendall_count": (metrics, between_count),
        "kendall_classifiers": (others, across),
        "kendall_classifiers_count": (others, across_count),
        "kendall_classifiers_mean_count": ("metric", (~np.isnan(across.diagonal(axis1=1, axis2=2))).sum(axis=1)),
        "spearman": (metrics[1:], rho),
        "spearman_count": (metrics[1:], rho_count),
    }
    for word, diagonal in (("", True), ("_off_diagonal", False)):
        pairs = np.array([mean_and_sd(matrix, diagonal=diagonal) for matrix in across])
        variables[f"kendall_classifiers_mean{word}"] = ("metric", pairs[:, 0])
        variables[f"kendall_classifiers_sd{word}"] = ("metric", pairs[:, 1])
    classifiers = summary["classifier"].values
    coords = {"classifier": classifiers, "classifier_other": classifiers, "metric": names, "metric_other": names}
    return xr.Dataset(variables, coords)


def _matrices(function: Any, tables: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    pairs = [function(table) for table in tables]
    return np.stack([matrix for matrix, _ in pairs]), np.stack([number for _, number in pairs])


def similarity_table(similarities: dict[str, xr.Dataset], methods: list[str]) -> xr.Dataset:
    """Average the similarity of maps over images, with the number of images on which it is defined."""
    tables = []
    for classifier, one in similarities.items():
        columns = {}
        for name in ("pearson", "spearman"):
            ordered = one[name].reindex({"method": methods, "other": methods})
            values = ordered.transpose("method", "other", "image").values
            defined = ~np.isnan(values)
            number = defined.sum(axis=-1)
            total = np.where(defined, values, 0).sum(axis=-1, dtype=np.float64)
            mean = np.divide(total, number, out=np.full(total.shape, np.nan), where=number > 0)
            columns[f"map_{name}"] = (("classifier", "method", "method_other"), mean[None])
            columns[f"map_{name}_count"] = (("classifier", "method", "method_other"), number[None])
        coords = {"classifier": [classifier], "method": methods, "method_other": methods}
        tables.append(xr.Dataset(columns, coords))
    return xr.concat(tables, "classifier", join="exact")
