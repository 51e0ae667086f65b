"""How many images are enough: how intervals narrow as the images grow in number."""

import numpy as np
from jaxtyping import Float, Int

from stages.statistics.bootstrap import interval, pool, resampled_means


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
    units = len(sums)
    found = np.full((len(sizes), sums.shape[1]), np.nan)
    for place, size in enumerate(sizes.tolist() if units else []):
        drawn = np.random.default_rng([seed, units, size]).multinomial(size, np.full(units, 1 / units), size=resamples)
        low, high = interval(resampled_means(drawn.astype(np.float64), sums, counts), counts, level=level)
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
