"""Score how concentrated a map is, whatever it shows."""

from typing import Annotated

import torch
from torch import Tensor

from atlas.metrics.shared.rows import by_row, finite
from atlas.model.arrays import Maps, Scores
from atlas.study.schema.types import Range

ATTRS = {
    "complexity": {
        "long_name": "Complexity",
        "units": "nat",
        "reference": "bhatt2020evaluating",
        "better": "lower",
    },
    "sparseness": {
        "long_name": "Sparseness",
        "units": "1",
        "reference": "chalasani2020concise",
        "better": "higher",
    },
    "effective_complexity": {
        "long_name": "Effective complexity",
        "units": "pixel",
        "reference": "nguyen2020quantitative",
        "better": "lower",
    },
}


def complexity(maps: Maps) -> Scores:
    """Measure the entropy of the share that each pixel has in the map.

        - Σ q ln q, q = |a| / Σ |a|

    Returns:
        Nats, 0 (one pixel has all) to ln(HW) (all have the same); lower is better.

    Undefined where the map is zero everywhere or not finite.

    Reference: Bhatt et al. 2020. A map of a single arbitrary pixel scores best: read it together with a metric of
    faithfulness.
    """
    return by_row(_entropy, maps)


def sparseness(maps: Maps) -> Scores:
    """Measure the Gini index of the map's absolute values.

        Σ_i (2i - n - 1) b_(i) / (n Σ b), b = |a| / max |a| + 1e-7, b_(1) <= ... <= b_(n), n = HW

    Returns:
        0 (all pixels have the same) to 1 - 1/n (one pixel has all); higher is better.

    Undefined where the map is zero everywhere or not finite.

    Differs from the paper (Chalasani et al. 2020): 1e-7, added after dividing by the largest value, as in
    Quantus, so that the offset has the same effect on a map in logits and on one in millionths of a logit. Quantus
    scores an empty map 0.
    """
    return by_row(_gini, maps)


def effective_complexity(maps: Maps, *, epsilon: Annotated[float, Range(0, 1, open_above=True)]) -> Scores:
    """Count the pixels whose attribution is not negligible.

        #{|a| / max |a| > ε}

    Args:
        epsilon: The share of the largest attribution that counts as negligible, 0 or more and below 1.

    Returns:
        Pixels, 1 to HW; lower is better. A uniform map has HW.

    Undefined where the map is zero everywhere or not finite.

    Differs from the paper (Nguyen and Martínez 2020), which counts how few of the highest pixels suffice to keep the
    expected loss of the prediction below ε. The threshold on attributions is Quantus's, which uses the largest of all
    maps of a call.
    """
    if not 0 <= epsilon < 1:
        raise ValueError(f"effective_complexity: epsilon is {epsilon}, expected 0 or more and below 1")
    size = maps.abs().flatten(1)
    largest = size.amax(dim=1, keepdim=True)
    counts = (size / largest > epsilon).sum(dim=1).to(maps.dtype)
    return counts.where(finite(maps) & (largest[:, 0] > 0), torch.nan)


def _entropy(one: Tensor) -> Tensor:
    size = one.abs()
    size = size / size.max()  # prevents overflow of the sum
    return torch.special.entr(size / size.sum()).sum()


def _gini(one: Tensor) -> Tensor:
    size = one.abs().flatten()
    size = (size / size.max() + 1e-7).sort().values
    count = len(size)
    weight = 2 * torch.arange(1, count + 1, device=size.device) - count - 1
    return ((weight * size).sum() / (count * size.sum())).clamp(min=0)
