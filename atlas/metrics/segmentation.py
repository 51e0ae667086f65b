"""Score a map as a segmentation of the object: by losses between it and the mask."""

import torch
from torch import Tensor

from atlas.metrics.shared.rows import by_row
from atlas.metrics.shared.scaled import scaled
from atlas.model.arrays import Maps, Masks, Scores

ATTRS = {
    "log_cosh_dice": {
        "long_name": "Log-cosh Dice loss",
        "units": "1",
        "reference": "jadon2020survey, huang2024guided",
        "better": "lower",
    },
    "mae": {
        "long_name": "Mean absolute error",
        "units": "1",
        "reference": "huang2024guided",
        "better": "lower",
    },
    "sqrt_mae": {
        "long_name": "Root of the mean absolute error",
        "units": "1",
        "reference": "huang2024guided",
        "better": "lower",
    },
}


def log_cosh_dice(maps: Maps, masks: Masks) -> Scores:
    """Compute the log-cosh Dice loss of the map, scaled to [0, 1], against the object.

        ln cosh(1 - d), d = (2 Σ m t + 1) / (Σ m + Σ t + 1)
        m = (a - min a) / (max a - min a), t = 1 in the mask, 0 elsewhere

    Returns:
        0 (the map is the mask) to ln cosh 1 = 0.4338; lower is better.

    Undefined where the mask is empty, or the map is constant or not finite.

    Differs from the paper (Huang and Liu 2024): not in the loss. Its authors' masks are class codes enlarged with
    interpolation and thresholded at 0.95 of the highest code, which may be that of the area to ignore; here the masks
    are the object.
    """
    return by_row(_log_cosh_dice, scaled(maps)[0], masks)


def mae(maps: Maps, masks: Masks) -> Scores:
    """Compute the mean absolute error of the map, scaled to [0, 1], against the object.

        Σ |m - t| / HW, m = (a - min a) / (max a - min a), t = 1 in the mask, 0 elsewhere

    Returns:
        0 (the map is the mask) to 1 (it is its opposite); lower is better. A map of few points scores the mask's area.

    Undefined where the mask is empty, or the map is constant or not finite.

    Differs from the paper (Huang and Liu 2024): what is published under this name is `sqrt_mae`. For the masks see
    `log_cosh_dice`.
    """
    return by_row(_mean_error, scaled(maps)[0], masks)


def sqrt_mae(maps: Maps, masks: Masks) -> Scores:
    """Compute the square root of the mean absolute error of the map, scaled to [0, 1], against the object.

        sqrt(Σ |m - t| / HW), m = (a - min a) / (max a - min a), t = 1 in the mask, 0 elsewhere

    Returns:
        0 (the map is the mask) to 1 (it is its opposite); lower is better. The mean over images is that of the roots.

    Undefined where the mask is empty, or the map is constant or not finite.

    Differs from the paper (Huang and Liu 2024): it calls this MAE. For the masks see `log_cosh_dice`.
    """
    return mae(maps, masks).sqrt()


def _log_cosh_dice(one: Tensor, mask: Tensor) -> Tensor:
    dice = (2 * (one * mask).sum() + 1) / (one.sum() + mask.sum() + 1)
    return torch.where(mask.any(), (1 - dice).cosh().log(), torch.nan)


def _mean_error(one: Tensor, mask: Tensor) -> Tensor:
    return torch.where(mask.any(), (one - mask.to(one.dtype)).abs().mean(), torch.nan)
