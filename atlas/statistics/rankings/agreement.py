"""Measures of agreement between rankings."""

from itertools import chain, combinations_with_replacement
from typing import Literal

import numpy as np
from jaxtyping import Float, Int
from scipy.stats import rankdata

from atlas.statistics.rankings.ranks import larger

Table = Float[np.ndarray, "case item"]
Matrix = Float[np.ndarray, "case case"]


def kendall(values: Table) -> tuple[Matrix, Int[np.ndarray, "case case"]]:
    """Return Kendall's τ-b between every two rankings of the same items.

        τ = (concordant − discordant) / √((pairs not tied in one) · (pairs not tied in the other))

    Args:
        values: What the items are ranked by in each case, with signs such that all cases have the same direction; NaN
            where an item has none. Values that `rank` ties are tied here.

    Returns:
        −1 to 1, over the items that both cases have; NaN if fewer than two are left, or all are tied in one of them.
        Also the number of those items.

    Reference: kendall1945treatment.
    """
    first, second = np.triu_indices(values.shape[1], k=1)
    known = ~np.isnan(values)
    pairs = (known[:, first] & known[:, second]).astype(np.float64)
    one, other = values[:, first], values[:, second]
    order = larger(one, other).astype(np.float64) - larger(other, one)
    untied = (order**2) @ pairs.T
    scale = np.sqrt(untied * untied.T)
    tau = np.divide(order @ order.T, scale, out=np.full(scale.shape, np.nan), where=scale > 0)
    return tau, _shared(known)


def spearman(values: Table) -> tuple[Matrix, Int[np.ndarray, "case case"]]:
    """Return Spearman's ρ between every two rows: Pearson's r between their ranks, ties at their average.

    Args:
        values: One row per case, one column per item; NaN where an item has no value.

    Returns:
        −1 to 1, over the items that both rows have; NaN if fewer than two are left, or one row is constant on them.
        Also the number of those items.

    Reference: spearman1904proof.
    """
    known = ~np.isnan(values)
    rho = np.full((len(values), len(values)), np.nan)
    order = rankdata(np.where(known, values, np.inf), method="dense", axis=1).astype(np.int64)
    # Rows with the same gaps are ranked together, once for each set of items that they share with others.
    lots: dict[bytes, list[int]] = {}
    for row, items in enumerate(known):
        lots.setdefault(items.tobytes(), []).append(row)
    shared: dict[bytes, list[tuple[list[int], list[int]]]] = {}
    for one, other in combinations_with_replacement(lots.values(), 2):
        shared.setdefault((known[one[0]] & known[other[0]]).tobytes(), []).append((one, other))
    for items, pairs in shared.items():
        rows = sorted({row for pair in pairs for row in chain(*pair)})
        found = _pearson(np.stack([_average(one) for one in order[rows][:, np.frombuffer(items, bool)]]))
        place = {row: at for at, row in enumerate(rows)}
        for one, other in pairs:
            here, there = ([place[row] for row in lot] for lot in (one, other))
            rho[np.ix_(one, other)] = found[np.ix_(here, there)]
            rho[np.ix_(other, one)] = found[np.ix_(there, here)]
    return rho, _shared(known)


def spearman_between_metrics(
    scores: Float[np.ndarray, "method metric image"],
) -> tuple[Float[np.ndarray, "metric metric"], Int[np.ndarray, "metric metric"]]:
    """Return Spearman's ρ between every two metrics over images: whether they prefer the same maps of one method.

    Args:
        scores: Scores with signs such that all metrics have the same direction; NaN where undefined.

    Returns:
        −1 to 1, the mean over the methods for which it is defined, NaN if there are none; and the number of those
        methods. Unlike ρ over cells, it does not tell whether metrics prefer the same methods.

    Reference: spearman1904proof.
    """
    found = np.stack([spearman(rows)[0] for rows in scores])
    number = (~np.isnan(found)).sum(axis=0)
    total = np.where(np.isnan(found), 0, found).sum(axis=0)
    return np.divide(total, number, out=np.full(total.shape, np.nan), where=number > 0), number


def krippendorff(values: Table, *, scale: Literal["ordinal", "interval"]) -> tuple[float, int]:
    """Return Krippendorff's α: how far all cases agree on the values of the items.

        α = 1 − (disagreement within items) / (disagreement expected if values were assigned to items by chance)

    Args:
        values: One row per case (rater), one column per item; NaN where the case has no value for it.
        scale: Which differences count: squared ones of the values (interval), or of their ranks among all values
            (ordinal).

    Returns:
        1 for full agreement, 0 for chance, less for more disagreement than by chance. NaN if no item has two values, or
        all are equal. Also the number of values on items with at least two; the others cannot be compared.

    Reference: krippendorff2011computing; here as variances, which gives the same: α = 1 − (n − 1) / n ·
    Σᵢ mᵢ / (mᵢ − 1) · SSᵢ / SS, with mᵢ of n values on item i. The ordinal differences are those of average ranks.
    """
    known = ~np.isnan(values)
    paired = known & (known.sum(axis=0) >= 2)
    number = int(paired.sum())
    places = np.where(paired, values, np.nan)
    if scale == "ordinal":
        places[paired] = rankdata(values[paired])
    everything = _squares(places.reshape(-1, 1))[0]
    if not everything > 0:
        return np.nan, number
    raters = paired.sum(axis=0)
    within = (_squares(places) * raters / np.maximum(raters - 1, 1)).sum()
    return float(1 - (number - 1) / number * within / everything), number


def mean_and_sd(matrix: Matrix, *, diagonal: bool) -> tuple[float, float]:
    """Return the mean and standard deviation of a matrix of agreements.

    Args:
        matrix: Agreements; NaN entries are left out.
        diagonal: Whether the diagonal, which is 1, is included.

    Returns:
        Mean and standard deviation (of the entries themselves, ddof 0); NaN if there are no entries off the diagonal,
        as a ranking always agrees with itself.

    Reference: nieradzik2024reliable, whose printed numbers are reproduced with the diagonal and with ddof 0.
    """
    known, off = ~np.isnan(matrix), ~np.eye(len(matrix), dtype=bool)
    if not (known & off).any():
        return np.nan, np.nan
    entries = matrix[known if diagonal else known & off]
    return float(entries.mean()), float(entries.std())


def _squares(values: np.ndarray) -> np.ndarray:
    """Return the sum of squared deviations from each column's mean, over values that are not NaN; 0 for none."""
    known = ~np.isnan(values)
    mean = np.where(known, values, 0).sum(axis=0) / np.maximum(known.sum(axis=0), 1)
    return (np.where(known, values - mean, 0) ** 2).sum(axis=0)


def _average(order: Int[np.ndarray, " item"]) -> Float[np.ndarray, " item"]:
    """Rank whole numbers, ties at their average, by counting them."""
    number = np.bincount(order)
    return (number.cumsum() - (number - 1) / 2)[order]


def _pearson(ranks: Table) -> Matrix:
    """Return Pearson's r between every two rows of ranks, all with the same mean, so that it is exact."""
    away = ranks - (ranks.shape[1] + 1) / 2
    products = away @ away.T
    squares = np.diag(products)
    scale = np.sqrt(squares[:, None] * squares)
    return np.divide(products, scale, out=np.full(scale.shape, np.nan), where=scale > 0)


def _shared(known: np.ndarray) -> np.ndarray:
    return known.astype(np.int64) @ known.astype(np.int64).T
