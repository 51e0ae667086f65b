"""Certify pixels: turn votes over noisy samples of an image into labels that hold inside a ball around it.

Each noisy sample x + σ·ε, ε ~ N(0, 1), votes at each level K for the pixels that are among the top K% of its map. A
pixel whose vote is one-sided enough keeps its label under every change of the image of L2 norm up to σ · Φ⁻¹(τ),
taken over all values of the image; the other pixels abstain. With a correction over pixels, the probability that any
label of a map is wrong is at most α, for each map, level and smoothing separately; jointly over n levels it is at most
n α. The form `authors` also uses the clean image to find the top of a map (atlas.inputs.top_k), so where its clipping
takes effect, this guarantee is not proven.

Reference: anani2025pixel, after fischer2021scalable.
"""

from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import Int8, UInt8, UInt16
from scipy.special import bdtrc

from atlas.study.schema.smoothing import radius, strictest
from atlas.study.schema.types import Correction

IMPORTANT, UNIMPORTANT, ABSTAINED = 1, 0, -1
# `tied` of an image with undefined votes, because a sample has an undefined map; no count is this high.
UNDEFINED = 2**16 - 1


class Votes(NamedTuple):
    """Votes of the noisy samples of some images, and how they were cast.

    `counts0` and `counts` are, for each level and pixel, the number of samples in whose map the pixel was at the top:
    n0 samples choose the label to test (counts0), n others test it (counts). `tied` counts samples of either group in
    which equal scores were left out.
    """

    counts0: UInt8[np.ndarray, "image level y x"]
    counts: UInt8[np.ndarray, "image level y x"]
    tied: UInt16[np.ndarray, "image level"]
    n0: int
    n: int
    sigma: float
    levels: list[int]
    form: Literal["strict", "strict_rectified", "authors"]  # not the named type: keys would hold all of its module


def tails(draws: int, tau: float) -> np.ndarray:
    """Return P(Bin(draws, τ) ≥ k) for k = 0 … draws: the p-values of the one-sided exact binomial test."""
    return np.concatenate([[1.0], bdtrc(np.arange(draws), draws, tau)])


def cutoff(draws: int, tau: float, threshold: float) -> int:
    """Return the smallest count of votes whose p-value is at most a threshold; draws + 1 if there is none."""
    return int((tails(draws, tau) > threshold).sum())


def needed(draws: int, tau: float, *, alpha: float, correction: Correction, pixels: int) -> tuple[int, int]:
    """Return the smallest counts that certify a pixel of a map: where no other pixel is certified, and where all are.

    The two differ only for Holm's procedure, which lowers the cut-off with each pixel that it certifies. If the first
    is draws + 1, no count certifies a pixel.

    Args:
        draws: Number of votes that test a label.
        tau, alpha, correction: Settings of the test (see labels).
        pixels: Number of pixels of the map.
    """
    last = strictest(alpha, correction, pixels) if correction == "bonferroni" else alpha
    return cutoff(draws, tau, strictest(alpha, correction, pixels)), cutoff(draws, tau, last)


def labels(votes: Votes, *, tau: float, alpha: float, correction: Correction) -> Int8[np.ndarray, "image level y x"]:
    """Label pixels: 1 certified important, 0 certified unimportant, −1 abstained.

    The majority of the n0 votes decides which label is tested; a tie means unimportant. A pixel gets that label if
    the other votes reject the hypothesis that at most a share τ of all noisy samples votes for it. Where votes are
    undefined, every pixel abstains.

    Args:
        votes: The counts.
        tau: Share of the votes, at least 0.5 and less than 1.
        alpha: Bound on the probability that any label of a map is wrong.
        correction: For the multiple tests over the pixels of a map. bonferroni tests each at α / pixels. holm proceeds
            from the surest pixel, testing each at α / (pixels not yet certified); it certifies at least as many pixels,
            but a pixel certified at one level may not be at a higher one. none tests each at α, which bounds the error
            of a single pixel only.

    Raises:
        ValueError: τ or α is out of range.
    """
    radius(votes.sigma, tau)
    if not 0 < alpha < 1:
        raise ValueError(f"alpha = {alpha}: expected more than 0 and less than 1")
    important = 2 * votes.counts0.astype(np.int16) > votes.n0
    count = np.where(important, votes.counts, votes.n - votes.counts)
    pixels = count.shape[-1] * count.shape[-2]
    least: np.ndarray | int
    if correction == "holm":
        maps = count.reshape(-1, pixels)
        least = _holm(maps, votes.n, tau, alpha).reshape(*count.shape[:-2], 1, 1)
    else:
        least = cutoff(votes.n, tau, alpha / pixels if correction == "bonferroni" else alpha)
    defined = (votes.tied != UNDEFINED)[..., None, None]
    return np.where((count >= least) & defined, important.astype(np.int8), np.int8(ABSTAINED))


def _holm(counts: np.ndarray, draws: int, tau: float, alpha: float) -> np.ndarray:
    """Return each map's smallest certifying count by Holm's procedure: pixels with equal counts are decided together.

    The first of them to be tested has the strictest threshold, so it decides for all.
    """
    pixels = counts.shape[1]
    number = np.stack([np.bincount(of_map, minlength=draws + 1) for of_map in counts])
    surer = number[:, ::-1].cumsum(axis=1)[:, ::-1] - number
    # Counts that no pixel has are not tested, and do not stop the procedure.
    holds = (tails(draws, tau) <= alpha / np.maximum(pixels - surer, 1)) | (number == 0)
    run = np.logical_and.accumulate(holds[:, ::-1], axis=1).sum(axis=1)
    return draws + 1 - run
