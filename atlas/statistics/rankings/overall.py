"""Mean ranks with intervals: over the metrics on a classifier, over a family of metrics, over all classifiers."""

from collections.abc import Iterable, Sequence

import numpy as np
import xarray as xr
from jaxtyping import Float

from atlas.statistics.intervals.bootstrap import mean_rank_interval
from atlas.statistics.rankings.agreement import kendall
from atlas.statistics.rankings.ranks import mean_rank
from atlas.study.schema.types import Weights

Places = Float[np.ndarray, "draw method"]
Cell = tuple[int, int]
ENDS = ("", "_low", "_high", "_metrics", "_otherwise")


def mean_ranks(
    places: dict[Cell, Places], classifiers: int, use: dict[int, str], *, level: float, weights: Weights
) -> dict[str, tuple[tuple[str, ...], np.ndarray]]:
    """Average ranks over metrics; resample r of one metric is combined with resample r of every other.

        r' = 1 + (r − 1) · (N − 1) / (k − 1),   r̄ = mean over families of the mean over their metrics of r'

    r is a method's place among the k that a metric ranks on a classifier, ties at the average of their places, and N is
    the number of methods that any metric of the average ranks. So the last of few counts as much as the last of many,
    every ranking distributes the same sum, and a method that a metric does not rank loses only that ranking.

    Args:
        places: For each classifier and metric, r by the original scores, then in every resample.
        classifiers: The number of classifiers.
        use: The metrics that rank, by index, and their families.
        level: Share of the resamples inside an interval.
        weights: What has equal weight: families of metrics, or each metric, whatever its family.

    Returns:
        mean_rank (classifier, method), overall_rank (method), over all classifiers, and family_rank (classifier,
        method, family), 1 to N, lower is better, NaN where no metric ranks a method; each with the ends _low and _high
        of its interval, for the mean rank that as many other images of the same kind would give, with _metrics, the
        number of rankings it is over, and with _otherwise, r̄ by the other weights. N is mean_rank_methods,
        overall_rank_methods and family_rank_methods. Families are in the order of their first metrics.

    Reference: by definition.
    """
    families, methods = list(dict.fromkeys(use.values())), next(iter(places.values())).shape[1]
    one_by_one = [[(at, metric) for metric in use] for at in range(classifiers)]

    def over(scope: Iterable[Cell]) -> tuple[np.ndarray, int]:
        cells = [cell for cell in scope if cell in places and not np.isnan(places[cell][0]).all()]
        return _over([places[cell] for cell in cells], [use[metric] for _, metric in cells], methods, level, weights)

    def by_family(scope: list[Cell]) -> list[tuple[np.ndarray, int]]:
        return [over([cell for cell in scope if use[cell[1]] == family]) for family in families]

    here, whole = [over(scope) for scope in one_by_one], over(cell for scope in one_by_one for cell in scope)
    of_families = [by_family(scope) for scope in one_by_one]
    shape = classifiers, len(families), len(ENDS), methods
    tables = np.array([[table for table, _ in row] for row in of_families]).reshape(shape)
    found = {
        "mean_rank": (("classifier", "method"), np.stack([table for table, _ in here], axis=1)),
        "overall_rank": (("method",), whole[0]),
        "family_rank": (("classifier", "method", "family"), tables.transpose(2, 0, 3, 1)),
    }
    numbers = np.array([[number for _, number in row] for row in of_families]).reshape(shape[:2])
    among = {
        "mean_rank_methods": (("classifier",), np.array([number for _, number in here])),
        "overall_rank_methods": ((), np.array(whole[1])),
        "family_rank_methods": (("classifier", "family"), numbers),
    }
    ends = {f"{name}{end}": (dims, one[at]) for name, (dims, one) in found.items() for at, end in enumerate(ENDS)}
    return {**ends, **among}


def _over(
    places: list[Places], families: list[str], methods: int, level: float, weights: Weights
) -> tuple[Float[np.ndarray, "end method"], int]:
    """Average some rankings; return r̄ with its ends, the number of rankings, r̄ by the other weights, and N."""
    if not places:
        return np.vstack([np.full((3, methods), np.nan), np.zeros(methods), np.full(methods, np.nan)]), 0
    stacked = np.stack(places)
    ranked = ~np.isnan(stacked[:, 0])
    number = int(ranked.any(axis=0).sum())
    scaled = 1 + (stacked - 1) * ((number - 1) / (ranked.sum(axis=1) - 1))[:, None, None]
    every = [families.index(family) for family in families]
    lots = {"families": every, "metrics": [0] * len(families)}
    averaged = _weighed(scaled, lots[weights])
    other = _weighed(scaled[:, :1], lots["metrics" if weights == "families" else "families"])[0]
    low, high = mean_rank_interval(averaged[1:], averaged[0], number, level=level)
    return np.stack([averaged[0], low, high, ranked.sum(axis=0), other]), number


def _weighed(scaled: Float[np.ndarray, "ranking draw method"], lots: Sequence[int]) -> Places:
    """Average over the rankings of each group, then over groups."""
    of_lots = [mean_rank(scaled[np.array(lots) == lot].swapaxes(0, 1))[0] for lot in dict.fromkeys(lots)]
    return mean_rank(np.stack(of_lots, axis=1))[0]


def missing_rankings(ranks: xr.DataArray) -> dict[str, xr.DataArray]:
    """Count the rankings that a method lacks: those that rank another method that is no control, but not this one.

    Each loses the method that ranking only. But a mean over few rankings depends on which ones these are, so only a
    method that has at least as many as it lacks may be called best.

    Args:
        ranks: The ranks by the metrics of mean ranks over classifier, method and metric, NaN where a method is not
            ranked; `control` marks controls, `metric_family` is a metric's family.

    Returns:
        mean_rank_lacking (classifier, method), overall_rank_lacking (method) and family_rank_lacking (classifier,
        method, family): 0 if a method lacks none, or there is no such ranking; and with _mostly for _lacking, 1 if a
        method is ranked at all, and by at least as many as it lacks, otherwise 0.
    """
    known = ranks.notnull().transpose("classifier", "method", "metric")
    lacks = known.sel({"method": ~ranks["control"].values}).any("method") & ~known
    lacks = lacks.transpose(*known.dims)
    families = list(dict.fromkeys(ranks["metric_family"].values.tolist()))

    def counted(table: xr.DataArray) -> dict[str, tuple[tuple[str, ...], np.ndarray]]:
        chosen = [ranks["metric_family"].values == family for family in families]
        by_family = [table.values[..., one].sum(axis=-1) for one in chosen]
        nothing = np.zeros((*table.shape[:2], 0))
        return {
            "mean_rank": (("classifier", "method"), table.values.sum(axis=-1)),
            "overall_rank": (("method",), table.values.sum(axis=(0, 2))),
            "family_rank": (("classifier", "method", "family"), np.stack(by_family, axis=-1) if families else nothing),
        }

    coords = {**{dim: ranks[dim].values for dim in known.dims[:2]}, "family": families}
    found, has = {}, counted(known)
    for name, (dims, number) in counted(lacks).items():
        own = {dim: coords[dim] for dim in dims}
        found[f"{name}_lacking"] = xr.DataArray(number.astype(np.int32), own, dims)
        mostly = (has[name][1] > 0) & (has[name][1] >= number)
        found[f"{name}_mostly"] = xr.DataArray(mostly.astype(np.int8), own, dims)
    return found


def orders(summary: xr.Dataset) -> dict[str, xr.DataArray]:
    """Return how far the order of methods depends on the weights: Kendall's τ-b between both mean ranks.

    Args:
        summary: Mean ranks, also by the other weights.

    Returns:
        mean_rank_kendall (classifier) and overall_rank_kendall: −1 to 1, 1 if the order is the same. NaN if fewer than
        two methods are ranked, or all tie.

    Reference: kendall1945treatment.
    """
    found = {}
    for name in ("mean_rank", "overall_rank"):
        one, other = (summary[each].transpose(..., "method") for each in (name, f"{name}_otherwise"))
        pairs = np.stack([one.values, other.values], axis=-2).reshape(-1, 2, one.sizes["method"])
        taus = np.array([kendall(pair)[0][0, 1] for pair in pairs])
        found[f"{name}_kendall"] = one.isel(method=0, drop=True).copy(data=taus.reshape(one.shape[:-1]))
    return found
