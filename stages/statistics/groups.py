"""Whether two groups of classifiers differ."""

import numpy as np
from jaxtyping import Float
from scipy.stats import mannwhitneyu


def mann_whitney(one: Float[np.ndarray, " first"], other: Float[np.ndarray, " second"]) -> float:
    """Test whether one group's values tend to be larger than another's (Mann–Whitney U, two-sided).

    Args:
        one: One value a (classifier, method), for instance its mean score; NaN values are left out.
        other: The same for the other group.

    Returns:
        The p-value: exact where no values are tied, else the normal approximation with tie and continuity
        corrections. NaN where a group is empty.

    Reference: mann1947test; the branches are those by which nourelahi2022explainable prints its p-values.
    """
    one, other = one[~np.isnan(one)], other[~np.isnan(other)]
    if not (one.size and other.size):
        return float("nan")
    both = np.concatenate([one, other])
    tied = np.unique(both).size < both.size
    return float(mannwhitneyu(one, other, alternative="two-sided", method="asymptotic" if tied else "exact").pvalue)
