"""Mean ranks with their intervals: over the metrics of a classifier, of one family of them, and of all classifiers."""

import numpy as np
import xarray as xr
from jaxtyping import Float

from stages.statistics.bootstrap import mean_rank_interval
from stages.statistics.ranks import mean_rank

ENDS = ("", "_low", "_high", "_metrics")


def mean_ranks(
    ranks: Float[np.ndarray, "classifier method metric"],
    drawn: dict[tuple[int, int], Float[np.ndarray, "resample method"]],
    use: dict[int, str],
    *,
    level: float,
) -> dict[str, tuple[tuple[str, ...], np.ndarray]]:
    """Average ranks over metrics; resample r of one metric goes with r of another.

    Args:
        ranks: By the scores as they are.
        drawn: Of each classifier and metric that was judged, the ranks in every resample.
        use: The metrics that rank, by position, and their families.
        level: Share of the resamples inside an interval.

    Returns:
        mean_rank (classifier, method), overall_rank (method), over all classifiers, and family_rank (classifier,
        method, family), each with the ends _low and _high of its interval, of the mean rank that as many other images
        of the same kind would give, and with _metrics: how many rankings it is over. A family stands in the order in
        which its first metric does.
    """
    classifiers, families = range(len(ranks)), list(dict.fromkeys(use.values()))

    def over(scope: list[tuple[int, int]]) -> np.ndarray:
        cells = [cell for cell in scope if cell in drawn]
        if not cells:
            nothing = np.full((3, ranks.shape[1]), np.nan)
            return np.vstack([nothing, np.zeros(ranks.shape[1])])
        found = np.array([ranks[here, :, metric] for here, metric in cells])
        mean, counted = mean_rank(found)
        ranked = ~np.isnan(found)
        last, _ = mean_rank(np.where(ranked, ranked.sum(axis=1, keepdims=True), np.nan))
        samples, _ = mean_rank(np.stack([drawn[cell] for cell in cells], axis=1))
        return np.stack([mean, *mean_rank_interval(samples, mean, last, level=level), counted])

    here = np.stack([over([(one, metric) for metric in use]) for one in classifiers])
    whole = over([(one, metric) for one in classifiers for metric in use])
    of_families = [
        [over([(one, metric) for metric in use if use[metric] == family]) for family in families] for one in classifiers
    ]
    by_family = np.array(of_families).reshape(len(ranks), len(families), len(ENDS), ranks.shape[1])
    found = {
        "mean_rank": (("classifier", "method"), here.swapaxes(0, 1)),
        "overall_rank": (("method",), whole),
        "family_rank": (("classifier", "method", "family"), by_family.transpose(2, 0, 3, 1)),
    }
    return {f"{name}{end}": (dims, one[at]) for name, (dims, one) in found.items() for at, end in enumerate(ENDS)}


def lacking(ranks: xr.DataArray) -> dict[str, xr.DataArray]:
    """Count the rankings that a method lacks: those that rank another one, controls left out, but not it.

    Mean ranks over different rankings cannot be compared: only methods that lack none can be said to be best.

    Args:
        ranks: By the metrics of the mean ranks over classifier, method and metric, NaN where a method is not ranked;
            `control` says which methods are controls, `metric_family` which family a metric is of.

    Returns:
        mean_rank_lacking (classifier, method), overall_rank_lacking (method) and family_rank_lacking (classifier,
        method, family): 0 where a method lacks none, and where there is no such ranking.
    """
    known = ranks.notnull()
    lacks = known.sel({"method": ~ranks["control"].values}).any("method") & ~known
    names = ranks["metric_family"].values
    families = list(dict.fromkeys(names.tolist()))
    dims = ("classifier", "method")
    by_family = [lacks.sel(metric=names == family).sum("metric").transpose(*dims).values for family in families]
    shape = *(ranks.sizes[dim] for dim in dims), 0
    counted = {
        "mean_rank": (dims, lacks.sum("metric").transpose(*dims).values),
        "overall_rank": (dims[1:], lacks.sum(["classifier", "metric"]).values),
        "family_rank": ((*dims, "family"), np.stack(by_family, axis=-1) if families else np.zeros(shape)),
    }
    coords = {**{dim: ranks[dim].values for dim in dims}, "family": families}
    return {
        f"{name}_lacking": xr.DataArray(values.astype(np.int32), {dim: coords[dim] for dim in dims}, dims)
        for name, (dims, values) in counted.items()
    }
