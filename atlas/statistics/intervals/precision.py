"""How many images suffice: how intervals narrow with the number of images."""

import numpy as np
import xarray as xr
from jaxtyping import Float, Int

from atlas.statistics.intervals.bootstrap import LEAST, pool
from atlas.statistics.intervals.means import SKEWED, intervals
from atlas.statistics.tables import DIAGNOSTIC, METRIC, MetricScores
from atlas.statistics.units import units

SIZES = (10, 20, 50, 100, 200, 500, 1000, 2000, 5000)


def precision_table(scored: list[MetricScores], summary: xr.Dataset, *, level: float) -> xr.Dataset:
    """Return for every metric how many images (or grids) distinguish methods: the intervals' width against the methods'
    spread.

        sample_size = the smallest size from which on width < spread / 2

    Ranked methods are used, without controls, which lie far from all others, so that few images distinguish them.

    Args:
        scored: One entry per classifier and metric.
        summary: Means with their intervals, ranks, and which methods are controls.
        level: The coverage probability for the mean.

    Returns:
        By size, `width`: the median over methods of the width that the mean's interval would have with that many units.
        `width_now`, that of the summary's intervals, over `units`, the largest number of images or grids on which a
        method has a score; `width_count` methods have a width, which takes five units. `spread`: the standard deviation
        (ddof 1) of the `spread_count` means. All in the units of the metric. `sample_size`: a number of units; NaN if
        5000 are not enough, if width or spread is undefined, or if `width_now` is 0: then most methods have the same
        score on all units, and it is unknown how rare other scores are. Means over few units also differ by chance:
        their spread is then overestimated, and `sample_size` underestimated. `skewness`, the median over all methods of
        |G₁|, and `reliable_size` = 7 · skewness, rounded up: with fewer units, intervals contain the mean less often
        than stated, by simulation. NaN for hits, whose intervals do not depend on it, and where no mean has an
        interval.

    Reference: by definition; hall1992removal, agresti1998approximate (widths).
    """
    ranking = [one for one in scored if one.attrs.get("role", METRIC) != DIAGNOSTIC]
    classifiers = summary["classifier"].values.tolist()
    metrics = list(dict.fromkeys(one.metric for one in ranking))
    coords = {"classifier": classifiers, "metric": metrics, "size": list(SIZES)}
    cells = tuple(coords)[:2]
    width = np.full([len(labels) for labels in coords.values()], np.nan)
    columns = {
        name: np.full(width.shape[:2], np.nan)
        for name in ("width_now", "spread", "sample_size", "skewness", "reliable_size")
    }
    numbers = {name: np.zeros(width.shape[:2], np.int32) for name in ("units", "width_count", "spread_count")}
    sizes = np.array(SIZES)
    for one in ranking:
        here = classifiers.index(one.classifier), metrics.index(one.metric)
        board = summary.sel(classifier=one.classifier, metric=one.metric)
        chosen = ~np.isnan(board["rank"].values) & ~board["control"].values
        numbers["units"][here] = (~np.isnan(units(one.scores))).any(axis=1).sum(axis=0).max()
        skewness = np.abs(board["skewness"].values[board["low"].notnull().values])
        if skewness.size and not one.binary:
            columns["skewness"][here] = np.median(skewness)
            columns["reliable_size"][here] = np.ceil(SKEWED * columns["skewness"][here])
        if not chosen.any():
            continue
        scores = units(one.scores)[..., chosen]
        found = widths(scores, sizes, binary=one.binary, level=level)
        known = ~np.isnan(found).all(axis=0)
        means, low, high = (board[name].values[chosen] for name in ("mean", "low", "high"))
        numbers["width_count"][here], numbers["spread_count"][here] = known.sum(), means.size
        if known.any():
            width[here] = np.median(found[:, known], axis=1)
            columns["width_now"][here] = np.median((high - low)[known])
        if means.size > 1:
            columns["spread"][here] = means.std(ddof=1)
        target = float(columns["spread"][here]) / 2
        if columns["width_now"][here] > 0:
            columns["sample_size"][here] = sample_size(width[here][:, None], sizes, target=target)[0]
    variables = {name: (cells, values) for name, values in {**columns, **numbers}.items()}
    return xr.Dataset(
        {"width": (tuple(coords), width), **variables}, coords, {"level": level, "least": LEAST, "skewed": SKEWED}
    )


def widths(
    scores: Float[np.ndarray, "unit part cell"], sizes: Int[np.ndarray, " size"], *, binary: bool, level: float
) -> Float[np.ndarray, "size cell"]:
    """Return the width of the mean's interval for other numbers of images, with the present variance and skewness.

    Args:
        scores: NaN where undefined; an image has one part, a grid one per tile.
        sizes: Numbers of units.
        binary: Whether every score is 0 or 1.
        level: The coverage probability for the mean.

    Returns:
        In the units of the scores, about as 1 / √size. NaN if fewer than five units have a defined score. Units without
        one are counted, too: a metric that is defined on few images needs more of them.

    Reference: hall1992removal, agresti1998approximate.
    """
    sums, counts = pool(scores)
    known = (counts > 0).sum(axis=0) >= LEAST
    found = np.full((len(sizes), sums.shape[1]), np.nan)
    for place, size in enumerate(sizes.tolist() if len(sums) else []):
        low, high = intervals(sums, counts, binary=binary, level=level, times=size / len(sums))
        found[place] = np.where(known, high - low, np.nan)
    return found


def sample_size(
    widths: Float[np.ndarray, "size cell"], sizes: Int[np.ndarray, " size"], *, target: float
) -> Float[np.ndarray, " cell"]:
    """Return the smallest size from which on the interval is narrow enough.

    Args:
        widths: Widths of the intervals.
        sizes: Numbers of units, increasing.
        target: The width that an interval should be below.

    Returns:
        A number of units; at every larger size the width is also below the target, so that a single lucky value does
        not decide. NaN if the largest size is not enough, or widths are undefined.
    """
    # From the largest size down, as long as every width is below the target.
    lasting = np.logical_and.accumulate((widths < target)[::-1])[::-1]
    return np.where(lasting.any(axis=0), sizes[lasting.argmax(axis=0)], np.nan)
