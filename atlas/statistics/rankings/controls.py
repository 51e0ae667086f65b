"""Check whether metrics rank controls, methods that know nothing of the classifier, last."""

from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import Float

from atlas.statistics.rankings.ranks import rank, worst_rank


class Places(NamedTuple):
    """Numbers of cases in which two controls are at the end: alone in their places, or as part of a tie."""

    cases: int
    last: int
    last_tied: int
    second_last: int
    second_last_tied: int
    both: int


def count_places(
    values: Float[np.ndarray, "case method"], *, last: int, second_last: int, better: Literal["higher", "lower"]
) -> Places:
    """Count the cases in which one control is last and another second-last.

    Args:
        values: One row per case, such as the mean scores by one metric on one classifier; NaN where a method has none.
        last: Index of the control that should rank last, such as random maps.
        second_last: Index of the control that should rank just above it, such as edges.
        better: The direction of better values.

    Returns:
        The number of cases in which both controls have a value, and in how many of them: the first is alone last; it
        shares the last place; the second is alone second-last; it shares that place; both are alone in their places.

    Reference: nieradzik2024reliable.
    """
    controls = values[:, [last, second_last]]
    cases = values[~np.isnan(controls).any(axis=1)]
    best, worst = (ranks(cases, better=better)[:, [last, second_last]] for ranks in (rank, worst_rank))
    place = (~np.isnan(cases)).sum(axis=1)[:, None] - [0, 1]
    there = (best <= place) & (place <= worst)
    alone = there & (best == worst)
    tied = there & ~alone
    first, second = alone.sum(axis=0), tied.sum(axis=0)
    both = alone.all(axis=1).sum()
    return Places(len(cases), *map(int, (first[0], second[0], first[1], second[1], both)))
