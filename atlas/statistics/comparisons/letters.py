"""The compact letter display of a leaderboard: methods that share a letter do not differ significantly."""

from string import ascii_lowercase

import numpy as np
from jaxtyping import Float


def letters(adjusted: Float[np.ndarray, "method method"], *, alpha: float) -> list[str]:
    """Assign letters to methods such that two methods share one exactly if they do not differ significantly.

    A letter is a set of methods of which no two differ. Sets are grown from the best method on, until every such pair
    is in one; a set whose pairs are all in others is dropped. That "not different" is not transitive is no problem: a
    method between two that differ has both their letters.

    Args:
        adjusted: Symmetric p-values of every two methods, adjusted for their number, the best method first; the
            diagonal is not read. NaN where two were not compared: they are not shown to differ, and share a letter.
        alpha: p-values up to this are significant.

    Returns:
        One text per method, its letters in order of their sets' best methods; after z come a1, b1 and so on. Empty
        where a method was compared with none.

    Reference: piepho2004algorithm.

    Differs from the paper: sets are grown pair by pair, so that there are at most as many as pairs; the number of all
    maximal sets can be exponential.
    """
    number = len(adjusted)
    apart = adjusted <= alpha
    compared = np.flatnonzero((~np.isnan(adjusted) & ~np.eye(number, dtype=bool)).any(axis=1)).tolist()
    sets: list[set[int]] = []
    for first in compared:
        for second in compared:
            alone = second == first
            if second < first or (not alone and apart[first, second]) or any({first, second} <= one for one in sets):
                continue
            sets.append(_grown({first, second}, compared, apart))
    for one in sets[::-1]:
        others = [other for other in sets if other is not one]
        if all(any({first, second} <= other for other in others) for first in one for second in one):
            sets = others
    sets.sort(key=sorted)
    return ["".join(_letter(place) for place, one in enumerate(sets) if method in one) for method in range(number)]


def _grown(found: set[int], methods: list[int], apart: np.ndarray) -> set[int]:
    """Add every method that differs from none in the set, worse ones first."""
    start = min(found)
    for method in sorted(methods, key=lambda at: (at < start, at)):
        if not apart[method, [member for member in found if member != method]].any():
            found = found | {method}
    return found


def _letter(place: int) -> str:
    return ascii_lowercase[place % 26] + (str(place // 26) if place >= 26 else "")
