"""How many images are enough: how intervals narrow as the images grow in number."""

from functools import lru_cache

import numpy as np
import xarray as xr
from jaxtyping import Float, Int

from stages.statistics.bootstrap import LEAST, Weights, interval, pool, resampled_means
from stages.statistics.tables import DIAGNOSTIC, METRIC, Judged, units

SIZES = (10, 20, 50, 100, 200, 500, 1000, 2000, 5000)
# Of each size: a width is to be known to about a tenth, as sizes are twice apart.
RESAMPLES = 200


def precision_table(judged: list[Judged], summary: xr.Dataset, *, level: float, seed: int) -> xr.Dataset:
    """Say by every metric how many images (or grids) tell methods apart: intervals narrow beside what they differ by.

        enough = the smallest size from which on width < spread / 2

    Methods that are ranked count, and controls do not: they lie far from all others, so that telling these from them
    takes few images.

    Args:
        judged: One entry a classifier and metric.
        summary: Means with their intervals, ranks, and which methods are controls.
        level: Share of the resamples inside an interval.
        seed: Of the drawing.

    Returns:
        By size, `width`: the median over methods of the width of the mean's percentile interval if there were so many
        units, of 200 draws. `width_now`, that of the summary's intervals, over `units`, the images or grids on which
        the method with most of them has a score; `width_count` methods have a width: five units make one. `spread`:
        the standard deviation (ddof 1) of the `spread_count` means. All in the units of the metric. `enough`: a
        number of units; NaN where 5000 are not enough, where width or spread is undefined, and where `width_now` is 0:
        most methods have one score on all units, and no draw says how rare others are. Means over few units
        differ by chance too: their spread comes out too large, and `enough` too small.

    Reference: by definition; bickel1997resampling (widths).
    """
    ranking = [one for one in judged if one.attrs.get("role", METRIC) != DIAGNOSTIC]
    classifiers = summary["classifier"].values.tolist()
    metrics = list(dict.fromkeys(one.metric for one in ranking))
    coords = {"classifier": classifiers, "metric": metrics, "size": list(SIZES)}
    cells = tuple(coords)[:2]
    width = np.full([len(labels) for labels in coords.values()], np.nan)
    columns = {name: np.full(width.shape[:2], np.nan) for name in ("width_now", "spread", "enough")}
    numbers = {name: np.zeros(width.shape[:2], np.int32) for name in ("units", "width_count", "spread_count")}
    sizes = np.array(SIZES)
    for one in ranking:
        here = classifiers.index(one.classifier), metrics.index(one.metric)
        board = summary.sel(classifier=one.classifier, metric=one.metric)
        chosen = ~np.isnan(board["rank"].values) & ~board["control"].values
        if not chosen.any():
            continue
        scores = units(one)[..., chosen]
        found = widths(scores, sizes, resamples=RESAMPLES, level=level, seed=seed)
        known = ~np.isnan(found).any(axis=0)
        means, low, high = (board[name].values[chosen] for name in ("mean", "low", "high"))
        numbers["units"][here] = (~np.isnan(scores)).any(axis=1).sum(axis=0).max()
        numbers["width_count"][here], numbers["spread_count"][here] = known.sum(), means.size
        if known.any():
            width[here] = np.median(found[:, known], axis=1)
            columns["width_now"][here] = np.median((high - low)[known])
        if means.size > 1:
            columns["spread"][here] = means.std(ddof=1)
        wish = float(columns["spread"][here]) / 2
        if columns["width_now"][here] > 0:
            columns["enough"][here] = enough(width[here][:, None], sizes, wish=wish)[0]
    variables = {name: (cells, values) for name, values in {**columns, **numbers}.items()}
    drawn = {"resamples": RESAMPLES, "level": level, "seed": seed, "intervals": "percentile"}
    attrs = {"bootstrap": drawn, "least": LEAST}
    return xr.Dataset({"width": (tuple(coords), width), **variables}, coords, attrs)


def widths(
    scores: Float[np.ndarray, "unit part cell"],
    sizes: Int[np.ndarray, " size"],
    *,
    resamples: int,
    level: float,
    seed: int,
) -> Float[np.ndarray, "size cell"]:
    """Give the width of the mean's percentile interval if there were so many images, by drawing so many.

    Args:
        scores: NaN where undefined; an image has one part, a grid one a tile. For a difference between two methods,
            the differences of their scores.
        sizes: Numbers of units, which may be above that of the units there are: they are drawn with replacement, so
            that a size near it is not narrow for want of others.
        resamples: Draws by size.
        level: Share of the resamples inside.
        seed: Of the drawing.

    Returns:
        In the units of the scores, about as 1 / √size. NaN where fewer than five units have a defined score. Units
        without one are drawn too: a metric that is defined on few images needs more of them.

    Reference: bickel1997resampling (fewer than all, with replacement).
    """
    sums, counts = pool(scores)
    found = np.full((len(sizes), sums.shape[1]), np.nan)
    for place, size in enumerate(sizes.tolist() if len(sums) else []):
        drawn = _drawn(len(sums), size, resamples, seed)
        low, high = interval(resampled_means(drawn, sums, counts), counts, level=level)
        found[place] = high - low
    return found


def enough(
    widths: Float[np.ndarray, "size cell"], sizes: Int[np.ndarray, " size"], *, wish: float
) -> Float[np.ndarray, " cell"]:
    """Give the smallest size from which on the interval is narrow enough.

    Args:
        widths: Of the intervals.
        sizes: Numbers of units, increasing.
        wish: The width that an interval is to be below.

    Returns:
        A number of units; at every larger size the width is below the wish too, so that one lucky draw does not
        decide. NaN where the largest size is not enough, or widths are undefined.
    """
    # From the largest size down, as long as every width is below the wish.
    lasting = np.logical_and.accumulate((widths < wish)[::-1])[::-1]
    return np.where(lasting.any(axis=0), sizes[lasting.argmax(axis=0)], np.nan)


@lru_cache(maxsize=2 * len(SIZES))  # of images and of grids: every metric takes the same draws
def _drawn(units: int, size: int, resamples: int, seed: int) -> Weights:
    found = np.random.default_rng([seed, units, size]).multinomial(size, np.full(units, 1 / units), size=resamples)
    weights = found.astype(np.float64)
    weights.setflags(write=False)
    return weights
