"""A classifier's accuracy against the median of its methods' scores, and the Pareto front of the two."""

from typing import NamedTuple

import numpy as np
import xarray as xr
from matplotlib.figure import Figure

from atlas.report.charts.boxes import EVERY
from atlas.report.charts.theme import INK, PAPER, fit, locate, marker, series, style, svg

# With fewer classifiers of a dataset, a table suffices.
FEWEST = 3
WIDTH, HEIGHT = 3.7, 2.4
ACCURACIES = {"accuracy": "accuracy", "adversarial_accuracy": "accuracy under attack"}


class Standing(NamedTuple):
    """A classifier's median by a metric with its quartiles, its rank, its accuracies, and the fronts that it is on."""

    classifier: str
    dataset: str
    median: float
    first: float
    third: float
    rank: float
    accuracies: dict[str, float]
    fronts: dict[str, bool]


def standings(comparison: xr.Dataset, datasets: list[str], metric: str) -> list[Standing]:
    """Return every classifier's accuracies and the median of all its methods except controls.

    Args:
        comparison: Medians, quartiles, accuracies and fronts.
        datasets: The datasets of the classifiers.
        metric: The metric's name.
    """
    table = comparison.sel({"metric": metric, "method_family": EVERY})
    columns = [table[name].values.tolist() for name in ("median", "quartile_low", "quartile_high", "median_rank")]
    sides = [
        [dict(zip(ACCURACIES, one, strict=True)) for one in np.stack([table[name + end] for name in ACCURACIES], -1)]
        for end in ("", "_front")
    ]
    return [
        Standing(*one) for one in zip(comparison["classifier"].values.tolist(), datasets, *columns, *sides, strict=True)
    ]


def drawn(listed: list[Standing]) -> list[tuple[str, str]]:
    """Return the datasets and accuracies with enough classifiers for a chart."""
    return [
        (dataset, name)
        for dataset in dict.fromkeys(one.dataset for one in listed)
        for name in ACCURACIES
        if len(_placed(listed, dataset, name)) >= FEWEST
    ]


def chart(listed: list[Standing], dataset: str, accuracy: str, metric: str, better: str) -> str:
    """Draw the classifiers of a dataset: median with quartiles, and accuracy; a ring marks the front.

    Args:
        listed: Every classifier, in the order of its series.
        dataset: The dataset's name.
        accuracy: Which accuracy.
        metric: The metric's name.
        better: The direction of better scores.
    """
    placed = _placed(listed, dataset, accuracy)
    with style(f"front_{metric}_{dataset}_{accuracy}"):
        figure = Figure(figsize=(WIDTH, HEIGHT))
        axes = figure.add_subplot()
        for place, one in placed:
            at = 100 * one.accuracies[accuracy]
            axes.hlines(at, one.first, one.third, color=series(place), lw=1, alpha=0.7, zorder=2)
            if one.fronts[accuracy]:
                axes.plot(one.median, at, "o", ms=12, mfc="none", mec=INK, mew=1.2, zorder=3)
            axes.plot(one.median, at, marker(place), ms=6, mfc=series(place), mec=PAPER, mew=0.6, zorder=4)
        axes.margins(y=0.14)
        locate(axes.xaxis, nbins=6)
        arrow = "better →" if better == "higher" else "← better"
        axes.set_xlabel(f"median over methods on {dataset}   ({arrow})")
        axes.set_ylabel(f"{ACCURACIES[accuracy]}, %")
        fit(axes)
        best = ", ".join(one.classifier for _, one in placed if one.fronts[accuracy])
        return svg(figure, f"{ACCURACIES[accuracy]} against the median by {metric} on {dataset}; on the front: {best}.")


def _placed(listed: list[Standing], dataset: str, accuracy: str) -> list[tuple[int, Standing]]:
    """Return the classifiers that have both numbers, with their series numbers."""
    return [
        (place, one)
        for place, one in enumerate(listed)
        if one.dataset == dataset and not np.isnan([one.median, one.accuracies[accuracy]]).any()
    ]
