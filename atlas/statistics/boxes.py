"""Box plot statistics of the mean scores of a classifier's methods."""

from typing import Any, NamedTuple

import numpy as np
import xarray as xr
from jaxtyping import Float

from atlas.statistics.comparisons.groups import EVERY, members, ranked_means
from atlas.statistics.rankings.pareto import front
from atlas.statistics.rankings.ranks import rank_medians

# In interquartile ranges: values further from the box are beyond the whiskers.
REACH = 1.5
FIELDS = ("median", "quartile_low", "quartile_high", "whisker_low", "whisker_high", "median_rank", "median_count")


class Whiskers(NamedTuple):
    """The lowest and the highest value within reach of a box's whiskers, by group."""

    low: Float[np.ndarray, " group"]
    high: Float[np.ndarray, " group"]


def whiskers(
    values: Float[np.ndarray, "group value"], first: Float[np.ndarray, " group"], third: Float[np.ndarray, " group"]
) -> Whiskers:
    """Return the ends of a box's whiskers: the outermost values within 1.5 interquartile ranges of the box.

        low = min of v ≥ Q₁ − 1.5 (Q₃ − Q₁), high = max of v ≤ Q₃ + 1.5 (Q₃ − Q₁)

    Args:
        values: One row per group; NaN where there is no value.
        first, third: Quartiles of each group.

    Returns:
        In the values' units; NaN where a group has no value.

    Reference: tukey1977exploratory.

    Differs from nourelahi2022explainable, whose box plots do not say how far whiskers reach.
    """
    reach = REACH * (third - first)
    # NaN compares as false and is never within reach.
    reached = (values >= (first - reach)[:, None]) & (values <= (third + reach)[:, None])
    some = reached.any(axis=1)
    low, high = np.where(reached, values, np.inf).min(axis=1), np.where(reached, values, -np.inf).max(axis=1)
    return Whiskers(np.where(some, low, np.nan), np.where(some, high, np.nan))


def boxes(summary: xr.Dataset) -> xr.Dataset:
    """Return median, quartiles and whiskers of the mean scores of each family's methods, by classifier and metric.

    Args:
        summary: Mean scores with their ranks and directions (unranked means are left out), and the classifiers'
            datasets and the methods' families.

    Returns:
        Over classifier, metric and method_family, where `all` is every method except controls; also the number of
        methods with a mean score, which are those in the box, and the rank of the median among the classifiers of the
        same dataset. NaN where no method has one.

    Reference: nourelahi2022explainable, which ranks architectures by such medians.
    """
    means = ranked_means(summary).transpose("metric", "classifier", "method").values
    own, better = members(summary), summary["better"].values.tolist()
    datasets = summary["dataset"].values
    found = np.full((len(FIELDS), len(datasets), len(better), len(own)), np.nan)
    for dataset in np.unique(datasets):
        rows = np.flatnonzero(datasets == dataset)
        for metric, direction in enumerate(better):
            for family, chosen in enumerate(own.values()):
                values = means[metric][np.ix_(rows, chosen)]
                at = rank_medians(values, better=direction)
                ends = whiskers(values, at.low, at.high)
                found[:, rows, metric, family] = (at.median, at.low, at.high, *ends, at.rank, at.count)
    dims = ("classifier", "metric", "method_family")
    variables = dict(zip(FIELDS, ((dims, values) for values in found), strict=True))
    variables["median_count"] = (dims, found[-1].astype(np.int32))
    coordinates = {"classifier": summary["classifier"].values, "metric": summary["metric"].values}
    return xr.Dataset(variables, {**coordinates, "method_family": list(own)})


def fronts(boxed: xr.Dataset, summary: xr.Dataset, accuracies: dict[str, dict[str, float]]) -> xr.Dataset:
    """Return which classifiers are on the Pareto front of accuracy and median over all methods except controls.

    Args:
        boxed: Medians by classifier, metric and method_family.
        summary: The summary of the same means, with directions and datasets.
        accuracies: By name, the accuracy of each classifier on clean images and under attack, 0 to 1, higher is better.

    Returns:
        The medians' table with each accuracy over classifier, and its `_front` over classifier and metric: whether no
        other classifier of the same dataset is at least as good in both and better in one. False where the median or
        the accuracy is NaN.

    Reference: nourelahi2022explainable.

    Differs from the paper: medians over methods, not means; and the complete front, of which it lists a part.
    """
    datasets, names = summary["dataset"].values, boxed["classifier"].values.tolist()
    better = summary["better"].values.tolist()
    medians = boxed["median"].sel(method_family=EVERY).transpose("metric", "classifier").values
    variables: dict[str, Any] = {}
    for accuracy in dict.fromkeys(key for known in accuracies.values() for key in known):
        values = np.array([accuracies[name][accuracy] for name in names], np.float64)
        on = np.zeros(medians.shape, bool)
        for dataset in np.unique(datasets):
            rows = np.flatnonzero(datasets == dataset)
            for metric, direction in enumerate(better):
                on[metric, rows] = front(np.stack([medians[metric, rows], values[rows]]), better=[direction, "higher"])
        variables |= {accuracy: ("classifier", values), f"{accuracy}_front": (("classifier", "metric"), on.T)}
    return boxed.assign(variables)
