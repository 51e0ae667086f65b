"""The Pareto front: the items that no other item dominates."""

from collections.abc import Sequence
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float


def front(
    columns: Float[np.ndarray, "column item"], *, better: Sequence[Literal["higher", "lower"]]
) -> Bool[np.ndarray, " item"]:
    """Return which items are on the Pareto front: no other is at least as good in every column and better in one.

    Args:
        columns: One row per column, such as the mean by a metric, or the accuracy of a classifier.
        better: The direction of each column.

    Returns:
        Items that are equal in every column are on it together. An item with a NaN never is, and dominates none.

    Reference: nourelahi2022explainable, which lists a part of its fronts.
    """
    signs = np.array([1 if direction == "higher" else -1 for direction in better])[:, None]
    signed = columns * signs
    # NaN compares as false, so it is never at least as good.
    one, other = signed[:, :, None], signed[:, None, :]
    beaten = ((other >= one).all(axis=0) & (other > one).any(axis=0)).any(axis=1)
    return ~beaten & ~np.isnan(signed).any(axis=0)
