"""One step of Guided IG's path, for many images at a time."""

import torch
from torch import Tensor

from atlas.model.classifier import Classifier

# Tolerance, relative and absolute, for reaching the goal of a step.
CLOSE = 1e-9


def advance(
    classifier: Classifier,
    places: Tensor,
    starts: Tensor,
    ends: Tensor,
    magnitudes: Tensor,
    *,
    share: float,
    bounds: tuple[float, float],
    fraction: float,
) -> Tensor:
    """Move each image along its path from start to end, until 1 − share of the L1 distance is left.

    Args:
        places: Current points of the paths, float64 like starts and ends.
        magnitudes: Absolute gradients; the smallest move first.
        share: Share of the path at which the step ends.
        bounds: The shares of its own difference, from start to end, between which every value stays.
        fraction: Share of values in a move.
    """

    def of(*parts: Tensor) -> Tensor:
        flat = (part.flatten(1) for part in parts)
        return _advance(*flat, share=share, bounds=bounds, fraction=fraction).view_as(parts[0])

    return classifier.batched(of, places, starts, ends, magnitudes)


def _advance(
    places: Tensor,
    starts: Tensor,
    ends: Tensor,
    magnitudes: Tensor,
    *,
    share: float,
    bounds: tuple[float, float],
    fraction: float,
) -> Tensor:
    differences = ends - starts
    goals = differences.abs().sum(1, keepdim=True) * (1 - share)
    low, high = (starts + differences * bound for bound in bounds)
    taken = 1 + int(fraction * (places.shape[1] - 1))
    going = torch.ones_like(goals, dtype=torch.bool)
    while going.any():
        # Where start and end are equal, so are low and high, and nothing lags.
        lagging = (places - starts) / differences.where(differences != 0, 1.0) < bounds[0]
        lifted = low.where(lagging & (differences != 0), places)
        left = (ends - lifted).abs().sum(1, keepdim=True)
        arrived = (left - goals).abs() <= CLOSE * torch.maximum(left, goals).clamp(min=1.0)

        free = lifted != high
        costs = magnitudes.where(free, torch.inf)
        chosen = free & (costs <= costs.kthvalue(taken, dim=1, keepdim=True).values)
        reach = (high - lifted).abs().where(chosen, 0.0).sum(1, keepdim=True)
        part = (left - goals) / reach.where(reach > 0, 1.0)
        part = torch.where(reach > 0, part, torch.inf)
        towards = torch.where(part > 1, high, lifted + (high - lifted) * part.clamp(max=1.0))
        moved = towards.where(chosen & ~arrived, lifted)

        # A path that has ended waits, so that no image depends on the others of its batch.
        places = moved.where(going, places)
        going = going & ~arrived & (part > 1) & (reach > 0)
    return places
