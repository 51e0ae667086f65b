"""Agreement of single images: whether they rank methods alike, and whether metrics prefer the same maps."""

import numpy as np
import xarray as xr
from scipy.stats import rankdata

from atlas.statistics.rankings.agreement import krippendorff, spearman_between_metrics
from atlas.statistics.tables import MetricScores
from atlas.statistics.units import by_unit


def image_table(scored: list[MetricScores], summary: xr.Dataset, metrics: list[str]) -> xr.Dataset:
    """Return how far images agree on the order of methods, and metrics on which maps of one method are good.

    Each image (or grid, by the mean over its tiles) ranks the methods that have a score on it, ties at their average.
    Krippendorff's α is over these ranks, with images as raters. Spearman's ρ between metrics is over images, not grids.

    Args:
        scored: One entry per classifier and metric.
        summary: Ranks; methods that are not ranked, because too few of their scores are defined, are left out of α.
        metrics: Names of the metrics to compare.

    Returns:
        `krippendorff`, 1 or below, with the number of ranks it is over; and `spearman_images`, −1 to 1, with the number
        of methods over which it is averaged. NaN where these are undefined, and ρ also where a metric is not over
        images.
    """
    classifiers = summary["classifier"].values.tolist()
    square = (len(classifiers), len(metrics), len(metrics))
    alpha, values = np.full(square[:2], np.nan), np.zeros(square[:2], np.int32)
    rho, methods = np.full(square, np.nan), np.zeros(square, np.int32)
    for at, classifier in enumerate(classifiers):
        here = {one.metric: one for one in scored if one.classifier == classifier and one.metric in metrics}
        for name, one in here.items():
            ranked = ~np.isnan(summary["rank"].sel(classifier=classifier, metric=name).values)
            places = ranks_within(np.where(ranked, by_unit(one.scores), np.nan))
            place = at, metrics.index(name)
            alpha[place], values[place] = krippendorff(places, scale="ordinal")
        on_images = [one for one in here.values() if not one.grids]
        if on_images:
            chosen = [metrics.index(one.metric) for one in on_images]
            rho[at][np.ix_(chosen, chosen)], methods[at][np.ix_(chosen, chosen)] = spearman_between_metrics(
                turned(on_images)
            )
    pairs = ("classifier", "metric", "metric_other")
    variables = {
        "krippendorff": (pairs[:2], alpha),
        "krippendorff_count": (pairs[:2], values),
        "spearman_images": (pairs, rho),
        "spearman_images_count": (pairs, methods),
    }
    return xr.Dataset(variables, {"classifier": classifiers, "metric": metrics, "metric_other": metrics})


def ranks_within(scores: np.ndarray) -> np.ndarray:
    """Rank the methods of each row, the lowest score first, ties at their average; NaN where there is no score."""
    known = ~np.isnan(scores)
    return np.where(known, rankdata(np.where(known, scores, np.inf), axis=1), np.nan)


def turned(scored: list[MetricScores]) -> np.ndarray:
    """Return scores by method, metric and image, with signs such that higher is better; NaN where there is no score."""
    images = {name: None for one in scored for name in one.scores["image"].values.tolist()}
    place = {name: at for at, name in enumerate(images)}
    table = np.full((scored[0].scores.shape[0], len(scored), len(images)), np.nan)
    for at, one in enumerate(scored):
        rows = [place[name] for name in one.scores["image"].values.tolist()]
        table[:, at, rows] = one.sign * one.scores.values.astype(np.float64)
    return table
