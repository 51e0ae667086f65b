"""Compare classifiers: one group of mean scores against another."""

import numpy as np
import xarray as xr
from jaxtyping import Bool, Float

from atlas.statistics.comparisons.significance import Rule, mann_whitney

FIELDS = ("change", "better_count", "worse_count", "apart", "count", "p")
EVERY = "all"  # methods of all families except controls


def members(summary: xr.Dataset) -> dict[str, Bool[np.ndarray, " method"]]:
    """Return which methods belong to each family; `all` is every method except controls."""
    families = summary["method_family"].values
    own = {family: families == family for family in dict.fromkeys(families.tolist())}
    return {**own, EVERY: ~summary["control"].values}


def ranked_means(summary: xr.Dataset) -> xr.DataArray:
    """Return the mean scores of ranked methods; NaN where a mean is over too few scores to be ranked."""
    return summary["mean"].where(summary["rank"].notnull())


def compare(summary: xr.Dataset, groups: list[list[str]], *, rule: Rule) -> xr.Dataset:
    """Compare the first classifier of each group with the second, the third and so on, by metric and method family.

    Args:
        summary: Mean scores with their intervals and ranks; means that are not ranked are left out.
        groups: Classifiers evaluated on the same images, such as a plain one and one trained to be robust.
        rule: How the Mann–Whitney test computes p: permutation, or wilcox_test, which reproduces the paper's tables.

    Returns:
        One comparison for each position in the groups, over all groups that have it. Empty if no group has two. The
        family `all` is every method except controls.

    Reference: nourelahi2022explainable, whose samples are cells: one mean score a classifier and method.

    Differs from the paper: a method without a mean score on one of two classifiers is left out on both sides.
    """
    own = members(summary)
    metrics = summary["metric"].values.tolist()
    places = range(1, max(map(len, groups), default=0))
    pairs = [[(group[0], group[place]) for group in groups if len(group) > place] for place in places]
    labels = [", ".join(f"{one} to {other}" for one, other in pair) for pair in pairs]
    columns = {"mean": ranked_means(summary), "low": summary["low"], "high": summary["high"]}
    found = {name: one.transpose("metric", "classifier", "method").values for name, one in columns.items()}
    place = {name: at for at, name in enumerate(summary["classifier"].values.tolist())}
    signs = [1 if better == "higher" else -1 for better in summary["better"].values.tolist()]

    def side(every: list[tuple[str, str]], at: int, metric: int, chosen: np.ndarray) -> dict[str, np.ndarray]:
        rows = [place[pair[at]] for pair in every]
        return {name: values[metric][rows][:, chosen] for name, values in found.items()}

    cells = [
        [
            [_cell(side(every, 0, metric, one), side(every, 1, metric, one), sign, rule) for one in own.values()]
            for metric, sign in enumerate(signs)
        ]
        for every in pairs
    ]
    values = np.array(cells).reshape(len(pairs), len(metrics), len(own), len(FIELDS))
    dims = ("comparison", "metric", "method_family")
    variables = {}
    for at, name in enumerate(FIELDS):
        whole = name not in ("change", "p")
        variables[name] = (dims, values[..., at].astype(np.int32) if whole else values[..., at])
    return xr.Dataset(variables, {"comparison": labels, "metric": metrics, "method_family": list(own)})


def _cell(
    start: dict[str, np.ndarray], end: dict[str, np.ndarray], sign: int, rule: Rule
) -> Float[np.ndarray, " field"]:
    """Compare mean, low and high of a family's methods on two lists of classifiers."""
    change = end["mean"] - start["mean"]
    both = ~np.isnan(change)
    turned = sign * change[both]
    if not both.any():
        return np.array([np.nan, 0, 0, 0, 0, np.nan])
    apart = (start["high"] < end["low"]) | (end["high"] < start["low"])
    p = mann_whitney(end["mean"][both], start["mean"][both], rule=rule)
    counts = ((turned > 0).sum(), (turned < 0).sum(), (apart & both).sum(), both.sum())
    return np.array([change[both].mean(), *counts, p])
