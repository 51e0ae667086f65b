"""What a change to methods does to a metric: means of ratios."""

from typing import Literal

import numpy as np
from jaxtyping import Float, Int


def mean_ratio(
    changed: Float[np.ndarray, "base cell"],
    base: Float[np.ndarray, "base cell"],
    *,
    kind: Literal["arithmetic", "geometric"],
) -> tuple[Float[np.ndarray, " cell"], Int[np.ndarray, " cell"]]:
    """Average changed / base over base methods.

    Args:
        changed: Mean scores of the changed methods, above 0; NaN where a method has none.
        base: Mean scores of the methods that they were made of, above 0.
        kind: Which mean. One large ratio carries the arithmetic one, and that of the inverse ratios is not its
            inverse; the geometric one has neither fault.

    Returns:
        1 where the change does nothing; NaN where no ratio is defined, as for a base of 0 or less. And the number of
        ratios.

    Reference: huang2024guided, which prints arithmetic means over five families.
    """
    known = (changed > 0) & (base > 0)
    ratios = np.divide(changed, base, out=np.ones(known.shape), where=known)
    number = known.sum(axis=0)
    total = (ratios if kind == "arithmetic" else np.log(ratios)).sum(axis=0, where=known)
    mean = np.divide(total, number, out=np.full(number.shape, np.nan), where=number > 0)
    return mean if kind == "arithmetic" else np.exp(mean), number
