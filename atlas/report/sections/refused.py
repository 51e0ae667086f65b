"""What could not be judged: methods that cannot serve a classifier, metrics that cannot apply to one."""

from typing import Any

import xarray as xr


def inapplicable(summary: xr.Dataset) -> dict[str, dict[str, str]]:
    """Return by classifier the metrics that can judge no method, and why.

    There are none of the inputs that they declare, or they refuse every method for the same reason. Methods that no
    metric judges have a reason of their own, and count for nothing here.
    """
    found = {name: dict(reasons) for name, reasons in summary.attrs["absent"].items()}
    for classifier, methods in summary.attrs["unsupported"].items():
        asked = summary["asked"].sel(classifier=classifier) > 0
        judged = set(summary["method"].values[asked.any("metric").values].tolist())
        by_metric: dict[str, set[str]] = {}
        for method, reasons in methods.items():
            for metric, reason in reasons.items() if method in judged else ():
                by_metric.setdefault(metric, set()).add(reason)
        for metric, reasons in by_metric.items():
            there = metric in summary["metric"].values and bool(asked.sel(metric=metric).any())
            if len(reasons) == 1 and not there:
                found.setdefault(classifier, {})[metric] = next(iter(reasons))
    return found


def nowhere(summary: xr.Dataset) -> list[str]:
    """List the metrics that can apply to no classifier."""
    found = inapplicable(summary)
    listed = [set(found.get(name, {})) for name in summary["classifier"].values.tolist()]
    return sorted(set.intersection(*listed))


def without(tables: dict[str, xr.Dataset], metrics: list[str]) -> dict[str, xr.Dataset]:
    """Leave metrics, what is derived of their curves, and families of nothing else out of the results."""
    found, summary = {}, tables["summary"]
    derived = summary["metric"].values[summary["role"].values == "diagnostic"].tolist()
    gone = {*metrics, *(name for name in derived if name.rpartition("_")[0] in metrics)}
    for name, table in tables.items():
        for dim in {"metric", "metric_other"} & set(table.dims):
            table = table.sel({dim: [one for one in table[dim].values.tolist() if one not in gone]}) if gone else table
        if name == "summary":
            left = [one for one in table["family"].values.tolist() if one in table["metric_family"].values]
            table = table.sel(family=left)
        found[name] = table
    return found


def entries(given: dict, metrics: list[str]) -> dict:
    """Leave metrics out of what params.yaml says."""
    kept = {
        family: {name: entry for name, entry in listed.items() if name not in metrics}
        for family, listed in given["metrics"].items()
    }
    return {**given, "metrics": {family: listed for family, listed in kept.items() if listed}}


def methods(summary: xr.Dataset) -> list[dict[str, Any]]:
    """List which methods could not serve which classifier, why, and what they have no score by."""
    found, apart = [], inapplicable(summary)
    for classifier, listed in summary.attrs["unsupported"].items():
        for method, reasons in listed.items():
            own = {name: why for name, why in reasons.items() if name not in apart.get(classifier, {})}
            for reason in dict.fromkeys(own.values()):
                metrics = [name for name, why in own.items() if why == reason]
                found.append({"classifier": classifier, "method": method, "reason": reason, "metrics": metrics})
    return found


def metrics(summary: xr.Dataset) -> list[dict[str, Any]]:
    """List the metrics that cannot apply, once each reason; where it names a classifier and holds of others, of all."""
    found: dict[str, dict[str, dict[str, str]]] = {}
    for classifier, listed in inapplicable(summary).items():
        for metric, reason in listed.items():
            found.setdefault(reason.replace(classifier, "…"), {}).setdefault(metric, {})[classifier] = reason
    rows = []
    for general, by_metric in found.items():
        together: dict[tuple[str, ...], list[str]] = {}
        for metric, reasons in by_metric.items():
            together.setdefault(tuple(reasons), []).append(metric)
        for classifiers, names in together.items():
            reason = general if len(classifiers) > 1 else by_metric[names[0]][classifiers[0]]
            rows.append({"reason": reason, "metrics": names, "classifiers": list(classifiers)})
    return rows
