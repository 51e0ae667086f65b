"""Optimized masks a second time: one image, a plain network of intensities in double precision, torch's optimizers."""

from functools import cache
from math import ceil

import numpy as np
import torch
from scipy.ndimage import gaussian_filter, median_filter
from torch import nn

from atlas.study import seeds as draws


def meaningful(
    whole: nn.Module, std: list[float], image, target, seed, *, steps, cells, window, power, noise, rate, **weights
) -> np.ndarray:
    image, spread = image.double(), torch.tensor(std).view(-1, 1, 1)
    levels = (image * 255).round().byte().numpy()
    blurred = torch.from_numpy(np.stack([median_filter(part, window, mode="nearest") for part in levels]) / 255)
    mask = torch.ones(cells, cells, dtype=torch.float64, requires_grad=True)
    adam = torch.optim.Adam([mask], lr=rate)

    def enlarged() -> torch.Tensor:
        return nn.functional.interpolate(mask[None, None], image.shape[1:], mode="bilinear", align_corners=True)[0]

    for step in range(steps):
        drawn = draws.normal([seed], "meaningful_perturbation", step, tuple(image.shape))[0]
        shown = image * enlarged() + blurred * (1 - enlarged()) + noise * spread * drawn
        variation = sum(
            torch.stack([(mask[a] - mask[b]).abs() ** power for a, b in places]).mean()
            for places in (
                [((y, x), (y + 1, x)) for y in range(cells - 1) for x in range(cells)],
                [((y, x), (y, x + 1)) for y in range(cells) for x in range(cells - 1)],
            )
        )
        loss = whole(shown[None]).softmax(1)[0, target]
        loss = loss + weights["area_weight"] * (1 - mask).abs().mean() + weights["variation_weight"] * variation
        adam.zero_grad()
        loss.backward()
        adam.step()
        mask.data.clamp_(0, 1)
    return 1 - enlarged().detach().numpy()


@cache
def kernel(grid: tuple[int, int], stride: int, sigma: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Every pixel of a mask by every cell: the kernel, and whether the cell is in the pixel's window."""
    around = ceil(sigma / stride)
    lines = [range(-around * stride, (count - 1 + around) * stride + 1) for count in grid]
    weights = np.zeros((len(lines[0]), len(lines[1]), *grid))
    near = np.zeros(weights.shape)
    for row in range(grid[0]):
        for column in range(grid[1]):
            for i, y in enumerate(lines[0]):
                for j, x in enumerate(lines[1]):
                    distance = np.hypot(y - row * stride, x - column * stride)
                    weights[i, j, row, column] = np.exp(-2 * max(distance / sigma - 0.5, 0) ** 2)
                    near[i, j, row, column] = max(abs(y // stride - row), abs(x // stride - column)) <= around + 1
    return torch.from_numpy(weights), torch.from_numpy(near)


def pooled(cells: torch.Tensor, stride: int, sigma: float) -> torch.Tensor:
    """The smooth maximum over all cells of a window; those that are not there count as 0."""
    weights, near = kernel(tuple(cells.shape), stride, sigma)
    values = weights * cells
    shares = torch.exp(20 * values) * near
    missing = (2 * ceil(sigma / stride) + 3) ** 2 - near.sum((2, 3))
    return (shares * values).sum((2, 3)) / (shares.sum((2, 3)) + missing)


def wanted(masks: np.ndarray, area: float) -> np.ndarray:
    count = masks.size
    places = np.arange(count) >= int(count * (1 - area))
    ordered = np.sort(masks.ravel())
    lowest = ordered[places][0]
    tied = np.abs(ordered - lowest) <= 1e-5
    return np.where(np.abs(masks - lowest) <= 1e-5, places[tied].mean(), masks > lowest)


def extremal(
    whole: nn.Module, mean: list[float], image, target, *, steps, areas, stride, sigma, smoothing
) -> np.ndarray:
    image = image.double()
    height, width = image.shape[1:]
    color = torch.tensor(mean, dtype=torch.float64).view(-1, 1, 1)
    levels = [
        torch.from_numpy(gaussian_filter((image - color).numpy(), [0, blur, blur], mode="constant")) + color
        for blur in np.linspace(20, 0, 8)
    ]
    begin = ceil(sigma / stride) * stride
    total = np.zeros((height, width))
    for area in areas:
        cells = torch.ones(ceil(height / stride), ceil(width / stride), dtype=torch.float64, requires_grad=True)
        descent = torch.optim.SGD([cells], lr=0.01, momentum=0.9, dampening=0.9)
        weight = 300.0
        for step in range(steps):
            mask = pooled(cells, stride, sigma)
            inside = mask[begin : begin + height, begin : begin + width]
            shown = sum((1 - (7 * inside - level).abs()).clamp(min=0) * part for level, part in enumerate(levels))
            logit = whole((shown.flip(2) if step % 2 == 0 else shown)[None])[0, target]
            due = torch.from_numpy(wanted(mask.detach().numpy(), area))
            descent.zero_grad()
            (weight * ((mask - due) ** 2).mean() - logit).backward()
            descent.step()
            cells.data.clamp_(0, 1)
            weight *= 1.0035
        mask = pooled(cells, stride, sigma).detach().numpy()
        total += mask[begin : begin + height, begin : begin + width]
    return gaussian_filter(total, smoothing * min(height, width), mode="constant")[None]
