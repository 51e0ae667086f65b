"""Curves along the fraction of changed pixels, with bands, one small chart a method family."""

import numpy as np
import xarray as xr
from matplotlib.figure import Figure

from stages.figures.theme import SOFT, marker, series, style, svg

# What a fraction is of, where it is not of the pixels that were changed.
ALONG = {"randomization": "fraction of the classifier drawn anew"}


def curves(table: xr.Dataset, metric: str, classifier: str) -> list[tuple[str, str]]:
    """Draw the mean curves of each family's methods, the controls dashed behind them.

    Args:
        table: Mean, low and high over classifier, method, metric and fraction.
        metric: Which curve.
        classifier: On which classifier.

    Returns:
        Family and chart; families without a defined curve are left out.
    """
    one = table.sel(metric=metric, classifier=classifier).dropna("fraction", how="all", subset=["mean"])
    families = list(dict.fromkeys(one["method_family"].values.tolist()))
    top = float(np.nanmax(one["high"].fillna(one["mean"]).values, initial=0))
    bottom = float(np.nanmin(one["low"].fillna(one["mean"]).values, initial=0))
    found = []
    for family in families:
        members = one.isel({"method": one["method_family"].values == family}).dropna(
            "method", how="all", subset=["mean"]
        )
        if family != "control" and members.sizes["method"]:
            units = str(one["metric_units"].values)
            found.append(
                (family, _family(members, _controls(one), f"{metric}_{classifier}_{family}", units, bottom, top))
            )
    return found


def _controls(table: xr.Dataset) -> xr.Dataset:
    return table.isel({"method": table["control"].values}).dropna("method", how="all", subset=["mean"])


def _family(members: xr.Dataset, controls: xr.Dataset, name: str, units: str, bottom: float, top: float) -> str:
    x = members["fraction"].values
    along = ALONG.get(str(members["metric_family"].values), "fraction of pixels changed")
    with style(name):
        lines = -(-(members.sizes["method"] + controls.sizes["method"]) // 2)
        figure = Figure(figsize=(3.7, 2.25 + 0.19 * lines), layout="constrained")
        axes = figure.add_subplot()
        for number, control in enumerate(controls["method"].values.tolist()):
            line = controls["mean"].sel({"method": control})
            dash = (0, (1 + 3 * number, 2))
            axes.plot(x, line, color=SOFT, lw=1, ls=dash, label=control, zorder=1)
        for number, method in enumerate(members["method"].values.tolist()):
            line = members.sel({"method": method})
            axes.fill_between(x, line["low"], line["high"], color=series(number), alpha=0.18, lw=0)
            every = max(1, len(x) // 6)
            mark = {"marker": marker(number), "markevery": (number * every // 4, every), "ms": 4}
            axes.plot(x, line["mean"], color=series(number), lw=1.5, label=method, zorder=3, **mark)
        axes.set_xlim(0, 1)
        axes.set_ylim(bottom, top * 1.03)
        axes.set_xlabel(along)
        axes.set_ylabel("" if units == "1" else units)
        figure.legend(loc="outside lower center", ncols=2, handlelength=2.2, columnspacing=1.2, labelspacing=0.3)
        last = ", ".join(members["method"].values.tolist())
        return svg(figure, f"Mean curves with bands of {last}, and of the controls, dashed.")
