"""What no other item beats in every column."""

from collections.abc import Sequence
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float


def front(
    columns: Float[np.ndarray, "column item"], *, better: Sequence[Literal["higher", "lower"]]
) -> Bool[np.ndarray, " item"]:
    """Return which items are on the Pareto front: none is at least as good in every column and better in one.

    Args:
        columns: One row a column, as the mean by a metric, or the accuracy of a classifier.
        better: Which way is better, column by column.

    Returns:
        Items that are alike in every column are on it together. One with a NaN never is, and beats none.

    Reference: nourelahi2022explainable, which names a part of its fronts.
    """
    signs = np.array([1 if way == "higher" else -1 for way in better])[:, None]
    signed = columns * signs
    # NaN compares false, so it is never at least as good.
    one, other = signed[:, :, None], signed[:, None, :]
    beaten = ((other >= one).all(axis=0) & (other > one).any(axis=0)).any(axis=1)
    return ~beaten & ~np.isnan(signed).any(axis=0)
