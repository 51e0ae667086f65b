"""What could not be scored: methods that cannot serve a classifier, metrics that cannot be applied to one."""

from typing import Any

import xarray as xr


def inapplicable(summary: xr.Dataset) -> dict[str, dict[str, str]]:
    """Return by classifier the metrics that can score no method, and why.

    Declared inputs are missing, or the metric refuses every method for the same reason. Methods that no metric scores
    have a different reason, and are ignored here.
    """
    found = {name: dict(reasons) for name, reasons in summary.attrs["absent"].items()}
    for classifier, methods in summary.attrs["unsupported"].items():
        asked = summary["asked"].sel(classifier=classifier) > 0
        scored = set(summary["method"].values[asked.any("metric").values].tolist())
        by_metric: dict[str, set[str]] = {}
        for method, reasons in methods.items():
            for metric, reason in reasons.items() if method in scored else ():
                by_metric.setdefault(metric, set()).add(reason)
        for metric, reasons in by_metric.items():
            there = metric in summary["metric"].values and bool(asked.sel(metric=metric).any())
            if len(reasons) == 1 and not there:
                found.setdefault(classifier, {})[metric] = next(iter(reasons))
    return found


def nowhere(summary: xr.Dataset) -> list[str]:
    """Return the metrics that cannot be applied to any classifier."""
    found = inapplicable(summary)
    listed = [set(found.get(name, {})) for name in summary["classifier"].values.tolist()]
    return sorted(set.intersection(*listed))


def without(tables: dict[str, xr.Dataset], metrics: list[str]) -> dict[str, xr.Dataset]:
    """Remove metrics, their diagnostics, and families that contain nothing else from the results."""
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
    """Remove metrics from the content of params.yaml."""
    left = {
        family: {name: entry for name, entry in listed.items() if name not in metrics}
        for family, listed in given["metrics"].items()
    }
    return {**given, "metrics": {family: listed for family, listed in left.items() if listed}}


def methods(summary: xr.Dataset) -> list[dict[str, Any]]:
    """Return the methods that cannot serve a classifier, why, and the metrics by which they have no score."""
    found, apart = [], inapplicable(summary)
    for classifier, listed in summary.attrs["unsupported"].items():
        for method, reasons in listed.items():
            own = {name: why for name, why in reasons.items() if name not in apart.get(classifier, {})}
            for reason in dict.fromkeys(own.values()):
                metrics = [name for name, why in own.items() if why == reason]
                found.append({"classifier": classifier, "method": method, "reason": reason, "metrics": metrics})
    return found


def metrics(summary: xr.Dataset) -> list[dict[str, Any]]:
    """Return the metrics that cannot be applied, once per reason; a reason of all classifiers is listed once."""
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
