"""Optimized masks: the formula restated with torch's optimizers, image by image."""

import numpy as np
import torch
from torch import Tensor

from tests.support.oracles.cases import MEAN, STD, Case
from tests.support.reference import optimized


def meaningful_perturbation(case: Case, **settings: float) -> Tensor:
    return _of(
        optimized.meaningful(row.whole(), STD, row.images[0], int(row.targets[0]), row.seeds[0], **settings)
        for row in case.rows()
    )


def extremal_perturbation(case: Case, **settings: float) -> Tensor:
    return _of(
        optimized.extremal(row.whole(), MEAN, row.images[0], int(row.targets[0]), **settings) for row in case.rows()
    )


def _of(maps) -> Tensor:
    return torch.from_numpy(np.stack(list(maps)))
