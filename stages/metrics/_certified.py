"""Labels of pixels from votes, once for all metrics that set the same test."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from stages.arrays import Certified, Labels
from stages.certification import Correction, Votes, labels
from stages.memory import shared


def certified(votes: Sequence[Votes], tau: list[float], alpha: float, correction: Correction, device: str) -> Labels:
    """Label pixels at every radius: for each smoothing in turn, at each τ."""
    found = [_labels(one, share, alpha, correction) for one in votes for share in tau]
    return torch.from_numpy(np.stack(found, axis=1)).to(device)


@shared(calls=32)  # the smoothings, times the tau, of a metric's sweep
def _labels(votes: Votes, tau: float, alpha: float, correction: Correction) -> np.ndarray:
    return labels(votes, tau=tau, alpha=alpha, correction=correction)


def share(of: Tensor, among: Tensor) -> Certified:
    """Give which share of one kind of pixels are of another, by image, radius and level; NaN where there are none."""
    number = among.flatten(3).sum(dim=3)
    found = (of & among).flatten(3).sum(dim=3) / number
    return torch.where(number > 0, found, torch.nan).float()


def parted(votes: Sequence[Votes], tau: list[float]) -> Certified:
    """Give in which share of all copies equal scores lay at the edge of the top."""
    found = [torch.from_numpy(one.tied / (one.firsts + one.draws)).float() for one in votes for _ in tau]
    return torch.stack(found, dim=1)


def share_of(votes: Sequence[Votes], label: int, tau: list[float], alpha: float, correction: Correction) -> Certified:
    """Give which share of all pixels has a label."""
    marks = certified(votes, tau, alpha, correction, "cpu") == label
    return share(marks, torch.ones_like(marks))
