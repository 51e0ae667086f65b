"""The costs of methods and metrics, and the Pareto front of methods in cost and mean rank."""

from collections.abc import Mapping

import numpy as np
import xarray as xr

from atlas.statistics.rankings.pareto import front

KINDS = ("forward", "backward", "head")
OF_METHODS, OF_METRICS = KINDS, (*KINDS, "explained")


def cost_table(
    methods: Mapping[str, xr.Dataset], metrics: Mapping[str, xr.Dataset], summary: xr.Dataset, scoring: list[str]
) -> xr.Dataset:
    """Return the costs on all classifiers, and mark the methods on the Pareto front of cost and mean rank.

    Args:
        methods: By classifier, forward, backward and head passes of one map over `method`; classifiers without known
            costs are missing.
        metrics: By classifier, the same and `explained` of one score over `metric`.
        summary: The classifiers, the methods, whether they are controls, their mean ranks and whether they have most
            rankings.
        scoring: The metrics to include.

    Returns:
        `method_forward`, `method_backward`, `method_head` over `classifier method` and `metric_forward`,
        `metric_backward`, `metric_head`, `metric_explained` over `classifier metric`: 0 or more, lower is better.
        `front` over `classifier method`: 1 if no other method has at most as many passes (forward plus backward) and at
        most as high a mean rank, with one of them lower. Head passes are not counted there, as they run only a small
        part of a network. Controls are neither on the front nor dominate a method, and the same holds for methods that
        lack a ranking that another one has: their mean ranks are over other rankings.

    Undefined (NaN) where no cost is known: for a method that cannot serve a classifier, or a metric that scores no
    method there. Without a cost or a mean rank, a method is not on the front.

    Reference: nourelahi2022explainable, for the front.
    """
    classifiers = summary["classifier"].values.tolist()
    known = [
        ("method", methods, OF_METHODS, summary["method"].values.tolist()),
        ("metric", metrics, OF_METRICS, scoring),
    ]
    columns: dict[str, tuple[tuple[str, ...], np.ndarray]] = {}
    coords = {"classifier": classifiers}
    for dim, found, kinds, names in known:
        coords[dim] = np.array(names, np.dtypes.StringDType())
        for kind in kinds:
            values = np.full((len(classifiers), len(names)), np.nan)
            for place, classifier in enumerate(classifiers):
                if classifier in found:
                    values[place] = found[classifier][kind].sel({dim: names}).values
            columns[f"{dim}_{kind}"] = ("classifier", dim), values
    passes = columns["method_forward"][1] + columns["method_backward"][1]
    ranks = summary["mean_rank"].transpose("classifier", "method").values
    whole = summary["mean_rank_mostly"].transpose("classifier", "method").values > 0
    ranked = np.where(summary["control"].values | ~whole, np.nan, ranks)
    on = [front(np.stack(both), better=["lower", "lower"]) for both in zip(passes, ranked, strict=True)]
    columns["front"] = ("classifier", "method"), np.array(on, np.int8).reshape(ranks.shape)
    return xr.Dataset(columns, coords)
