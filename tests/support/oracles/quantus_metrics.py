"""Quantus's side of the comparisons of metrics."""

import warnings

import numpy as np
import quantus
import torch
from torch import Tensor


def together(name: str, maps: Tensor, images: Tensor, masks: Tensor, **settings: object) -> Tensor:
    """Score all images in one call, whose largest attribution Quantus divides by."""
    return torch.tensor(np.array(call(name, array(maps), images, masks, **settings), np.float64))


def apart(name: str, maps: Tensor, images: Tensor, masks: Tensor, **settings: object) -> Tensor:
    """Score every image in a call of its own."""
    rows = zip(maps, images, masks, strict=True)
    return torch.cat([together(name, *(part[None] for part in row), **settings) for row in rows])


def call(name: str, maps: np.ndarray, images: Tensor, masks: Tensor, **settings: object) -> list:
    """Score maps of one channel as they are, which Quantus may change in place."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        metric = getattr(quantus, name)(disable_warnings=True, display_progressbar=False, **settings)
        targets = np.zeros(len(images), int)
        return metric(None, images.numpy(), targets, maps, masks[:, None].numpy(), channel_first=True)


def array(maps: Tensor) -> np.ndarray:
    return maps[:, None].numpy().copy()
