"""Compare two maps of one image."""

import torch
from skimage.metrics import structural_similarity
from torch import Tensor

from atlas.metrics.shared.rows import by_row
from atlas.model.arrays import Maps, Scores
from atlas.study.errors import Unsupported

WINDOW = 11  # window of structural similarity, in pixels: Gaussian weights of σ 1.5, cut off at 3.5 σ


def similarities(maps: Maps, others: Maps, similarity: str) -> Scores:
    """Compare each map with another one.

    Args:
        maps, others: Maps of the same images.
        similarity: spearman, the rank correlation, ties at their average; absolute_spearman, the same for absolute
            values; or ssim, structural similarity (Wang et al. 2004) in a Gaussian window of 1.5 pixels, 11 wide, with
            each map scaled to [0, 1].

    Returns:
        -1 to 1; 1 for equal maps. NaN where a map is constant (for absolute_spearman: its absolute values are) or not
        finite.

    Raises:
        Unsupported: the maps are smaller than the window of structural similarity.
    """
    if similarity == "ssim" and min(maps.shape[-2:]) < WINDOW:
        height, width = maps.shape[-2:]
        expected = f"structural similarity takes maps of at least {WINDOW} x {WINDOW} pixels, its window"
        raise Unsupported(f"{expected}; these are {height} x {width}")
    compare = {"spearman": _spearman, "absolute_spearman": _absolute_spearman, "ssim": _ssim}[similarity]

    def defined(one: Tensor, other: Tensor) -> Tensor:
        finite = one.isfinite().all() & other.isfinite().all()
        return compare(one.double(), other.double()).where(finite, torch.nan)

    return by_row(defined, maps, others).float()


def _spearman(one: Tensor, other: Tensor) -> Tensor:
    one, other = (ranks - ranks.mean() for ranks in (_ranks(one), _ranks(other)))
    return (one * other).sum() / (one.square().sum() * other.square().sum()).sqrt()


def _absolute_spearman(one: Tensor, other: Tensor) -> Tensor:
    return _spearman(one.abs(), other.abs())


def _ranks(one: Tensor) -> Tensor:
    _, places, counts = one.unique(return_inverse=True, return_counts=True)
    counts = counts.double()
    return (counts.cumsum(0) - (counts - 1) / 2)[places]


def _ssim(one: Tensor, other: Tensor) -> Tensor:
    """Compute scikit-image's structural similarity with the weights, and the covariance, of the paper."""
    scaled = [((part - part.min()) / (part.max() - part.min())).cpu().numpy() for part in (one, other)]
    weights = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False}
    return one.new_tensor(structural_similarity(*scaled, data_range=1.0, **weights))
