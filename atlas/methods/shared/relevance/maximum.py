"""Distribute the change of a maximum among the elements of its window by their exact Shapley values."""

from math import factorial

import torch
from torch import Tensor, nn
from torch.nn.functional import pad


def multipliers(values: Tensor, referred: Tensor) -> Tensor:
    """Return the share of each element's own change that the maximum of its window takes over.

        m = φ / (x − r),    φ the Shapley values of max, an element being x in a coalition and r outside

    φ is the mean rise of the maximum when an element enters, over all orders of the elements. Values between xᵢ and rᵢ
    count where no other element lies above them:

        φᵢ = ± ∫ w(v) dv over v from min(xᵢ, rᵢ) to max(xᵢ, rᵢ),
        w(v) = a! b! / (a + b + 1)!, 0 where another element has xⱼ > v and rⱼ > v

    with a other elements xⱼ ≤ v < rⱼ and b with rⱼ ≤ v < xⱼ. Where xᵢ = rᵢ, m is the limit w(xᵢ).

    Args:
        values: x, (window, element).
        referred: r, of the same shape.

    Returns:
        From 0 to 1; Σ m (x − r) = max x − max r. Equal elements share equally, and φ is continuous in x and r, so
        rounding decides nothing.
    """
    low, high = torch.minimum(values, referred), torch.maximum(values, referred)
    levels = torch.cat([low, high], dim=1).sort(dim=1).values  # w is constant between neighboring levels
    falls, rises, blocks = (torch.zeros(levels.shape, dtype=torch.long, device=values.device) for _ in range(3))
    for x, r in zip(values.split(1, dim=1), referred.split(1, dim=1), strict=True):
        falls += (x <= levels) & (levels < r)
        rises += (r <= levels) & (levels < x)
        blocks += (x > levels) & (r > levels)

    spans = torch.cat([levels.diff(dim=1), torch.zeros_like(levels[:, :1])], dim=1).where(blocks == 0, 0.0)
    weights = _weights(values.shape[1]).to(values)
    falling = weights[(falls - 1).clamp(min=0), rises] * spans  # without the element itself
    rising = weights[falls, (rises - 1).clamp(min=0)] * spans
    limits = weights[falls, rises].where(blocks == 0, 0.0)
    found = []
    for bottom, top, up in zip(*(part.split(1, dim=1) for part in (low, high, values > referred)), strict=True):
        within = (bottom <= levels) & (levels < top)
        change = torch.where(up, rising, falling).where(within, 0.0).sum(1, keepdim=True)
        limit = limits.gather(1, (levels < top).sum(1, keepdim=True))
        found.append(torch.where(top > bottom, change / (top - bottom).where(top > bottom, 1.0), limit))
    return torch.cat(found, dim=1)


def windows(layer: nn.MaxPool2d, entering: Tensor, outer: torch.Size, beyond: float) -> Tensor:
    """Return the windows of a pooling of one image's activations: (channel, row, column, element).

    Args:
        layer: The pooling.
        entering: Activations (channel, row, column).
        outer: Rows and columns of the output.
        beyond: The value beyond the border: one that no value is below.
    """
    kernel, stride, padding, dilation = (
        size if isinstance(size, tuple) else (size, size)
        for size in (layer.kernel_size, layer.stride, layer.padding, layer.dilation)
    )
    reach = [d * (k - 1) + 1 for d, k in zip(dilation, kernel, strict=True)]
    ends = [
        max(0, (count - 1) * step + width - size - before)
        for count, step, width, size, before in zip(outer, stride, reach, entering.shape[-2:], padding, strict=True)
    ]
    padded = pad(entering, (padding[1], ends[1], padding[0], ends[0]), value=beyond)
    found = padded.unfold(1, reach[0], stride[0]).unfold(2, reach[1], stride[1])
    return found[:, : outer[0], : outer[1], :: dilation[0], :: dilation[1]].flatten(3)


def _weights(count: int) -> Tensor:
    """Return a! b! / (a + b + 1)! for a and b up to count."""
    table = [[factorial(a) * factorial(b) / factorial(a + b + 1) for b in range(count + 1)] for a in range(count + 1)]
    return torch.tensor(table, dtype=torch.float64)
