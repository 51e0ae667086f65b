"""Labels of pixels from votes, computed once for all metrics with the same test."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from atlas.inputs.certification import Votes, labels
from atlas.model.arrays import Certified, Labels
from atlas.model.batch_cache import shared
from atlas.study.schema.types import Correction


def certified(votes: Sequence[Votes], tau: list[float], alpha: float, correction: Correction, device: str) -> Labels:
    """Label pixels at every radius: for each smoothing in turn, at each τ."""
    found = [_labels(one, share, alpha, correction) for one in votes for share in tau]
    return torch.from_numpy(np.stack(found, axis=1)).to(device)


@shared(calls=32)  # smoothings times τ of a metric's sweep
def _labels(votes: Votes, tau: float, alpha: float, correction: Correction) -> np.ndarray:
    return labels(votes, tau=tau, alpha=alpha, correction=correction)


def share(of: Tensor, among: Tensor) -> Certified:
    """Return the share of one kind of pixels among another, by image, radius and level; NaN if there are none."""
    number = _count(among)
    found = _count(of & among) / number
    return torch.where(number > 0, found, torch.nan).float()


def parted(votes: Sequence[Votes], tau: list[float]) -> Certified:
    """Return the share of all noisy samples in which equal scores straddle the edge of the top."""
    found = [torch.from_numpy(one.tied / (one.n0 + one.n)).float() for one in votes for _ in tau]
    return torch.stack(found, dim=1)


def share_of(votes: Sequence[Votes], label: int, tau: list[float], alpha: float, correction: Correction) -> Certified:
    """Return the share of all pixels with a label."""
    marks = certified(votes, tau, alpha, correction, "cpu") == label
    return (_count(marks) / marks[0, 0, 0].numel()).float()


def _count(pixels: Tensor) -> Tensor:
    """Count pixels radius by radius, since torch converts what it counts to eight bytes per pixel."""
    return torch.stack([of_radius.flatten(2).sum(dim=2) for of_radius in pixels.unbind(1)], dim=1)
