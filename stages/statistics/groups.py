"""Whether classifiers differ: one group of mean scores against another."""

import numpy as np
import xarray as xr
from jaxtyping import Float
from scipy.stats import mannwhitneyu

FIELDS = {
    "change": ("mean change of the mean scores", "of the metric (metric_units)", ""),
    "better": ("methods whose mean score is better on the second classifier", "1", ""),
    "apart": ("methods whose intervals on the two classifiers do not overlap", "1", ""),
    "count": ("methods (times pairs of classifiers) with a mean score on both", "1", ""),
    "p": ("two-sided p-value of the Mann-Whitney test between the two groups of means", "1", "mann1947test"),
}


def mann_whitney(one: Float[np.ndarray, " first"], other: Float[np.ndarray, " second"]) -> float:
    """Test whether one group's values tend to be larger than another's (Mann–Whitney U, two-sided).

    Args:
        one: One value a (classifier, method), for instance its mean score; NaN values are left out.
        other: The same for the other group.

    Returns:
        The p-value: exact where no values are tied, else the normal approximation with tie and continuity
        corrections. NaN where a group is empty.

    Reference: mann1947test; the branches are those by which nourelahi2022explainable prints its p-values.
    """
    one, other = one[~np.isnan(one)], other[~np.isnan(other)]
    if not (one.size and other.size):
        return float("nan")
    both = np.concatenate([one, other])
    tied = np.unique(both).size < both.size
    # Where all values are one value, the approximation divides by a variance of zero.
    if tied and np.ptp(both) == 0:
        return 1.0
    return float(mannwhitneyu(one, other, alternative="two-sided", method="asymptotic" if tied else "exact").pvalue)


def compare(summary: xr.Dataset, groups: list[list[str]]) -> xr.Dataset:
    """Compare the first classifier of each group with the second, the third and so on, by metric and method family.

    Args:
        summary: Mean scores with their intervals.
        groups: Classifiers judged on the same images, as a plain one and one that was trained to be robust.

    Returns:
        One comparison for each place in the groups, over all groups that have it. Empty where no group has two.
    """
    families = list(dict.fromkeys(summary["method_family"].values.tolist()))
    metrics = summary["metric"].values.tolist()
    places = range(1, max(map(len, groups), default=0))
    pairs = [[(group[0], group[place]) for group in groups if len(group) > place] for place in places]
    labels = [", ".join(f"{one} to {other}" for one, other in pair) for pair in pairs]
    cells = [[[_cell(summary, pair, metric, family) for family in families] for metric in metrics] for pair in pairs]
    values = np.array(cells).reshape(len(pairs), len(metrics), len(families), len(FIELDS))
    dims = ("comparison", "metric", "method_family")
    variables = {}
    for place, (name, (long_name, units, reference)) in enumerate(FIELDS.items()):
        whole = name in ("better", "apart", "count")
        attrs = {"long_name": long_name, "units": units} | ({"reference": reference} if reference else {})
        variables[name] = (dims, values[..., place].astype(np.int32) if whole else values[..., place], attrs)
    return xr.Dataset(variables, {"comparison": labels, "metric": metrics, "method_family": families})


def _cell(summary: xr.Dataset, pairs: list[tuple[str, str]], metric: str, family: str) -> Float[np.ndarray, " field"]:
    table = summary.sel(metric=metric).isel({"method": summary["method_family"].values == family})
    table = table.transpose("classifier", "method")
    start, end = (table.sel(classifier=[pair[side] for pair in pairs]) for side in (0, 1))
    change = end["mean"].values - start["mean"].values
    both = ~np.isnan(change)
    if not both.any():
        return np.array([np.nan, 0, 0, 0, np.nan])
    sign = 1 if str(table["better"].values) == "higher" else -1
    apart = (start["high"].values < end["low"].values) | (end["high"].values < start["low"].values)
    p = mann_whitney(end["mean"].values[both], start["mean"].values[both])
    return np.array([change[both].mean(), (sign * change[both] > 0).sum(), (apart & both).sum(), both.sum(), p])
