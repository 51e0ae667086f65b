"""Certify pixels: from votes over noisy copies of an image to labels that hold inside a ball around it.

Each noisy copy x + σ·ε, ε ~ N(0, 1), votes at each level K for the pixels that are among the top K% of its map. A
pixel whose vote is one-sided enough keeps its label for every change of the image of an L2 norm up to σ · Φ⁻¹(τ), over
all values of the image together; the others abstain. Corrected over pixels, with probability at least 1 − α no label of
a map is wrong: of each map by itself, of one level and smoothing; of n levels together with 1 − n α. The form `authors`
takes the top of a map by the clean image too (atlas.inputs.top_k), so that where its clip acts this is not shown.

Reference: anani2025pixel, after fischer2021scalable.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Int8, UInt8, UInt16
from scipy.special import bdtrc

from atlas.study.schema.smoothing import radius, strictest
from atlas.study.schema.types import Correction

IMPORTANT, UNIMPORTANT, ABSTAINED = 1, 0, -1
# Stands for `tied` of an image whose votes are undefined, as a map of one of its copies is; no count is as high.
UNDEFINED = 2**16 - 1


class Votes(NamedTuple):
    """Votes of some images' noisy copies, and how they were cast.

    `first` and `rest` count, for each level and pixel, the copies in whose map the pixel was at the top: the first ones
    say which label is tested, the rest test it. `tied` counts copies of either in which equal scores were left out.
    """

    first: UInt8[np.ndarray, "image level y x"]
    rest: UInt8[np.ndarray, "image level y x"]
    tied: UInt16[np.ndarray, "image level"]
    firsts: int
    draws: int
    sigma: float
    levels: list[int]
    form: str


def tails(draws: int, tau: float) -> np.ndarray:
    """Return P(Bin(draws, τ) ≥ k) for k = 0 … draws: the p-values of the one-sided exact binomial test."""
    return np.concatenate([[1.0], bdtrc(np.arange(draws), draws, tau)])


def cutoff(draws: int, tau: float, threshold: float) -> int:
    """Return the smallest count of votes whose p-value is at most a threshold; draws + 1 where none is."""
    return int((tails(draws, tau) > threshold).sum())


def needed(draws: int, tau: float, *, alpha: float, correction: Correction, pixels: int) -> tuple[int, int]:
    """Return the fewest votes that certify a pixel of a map: where no other is certified, and where all others are.

    The two differ by Holm's procedure alone, which lowers the cut-off with each pixel that it certifies. Where the
    first is draws + 1 no count certifies a pixel.

    Args:
        draws: Votes that test a label.
        tau, alpha, correction: Of the test (see labels).
        pixels: Of the map.
    """
    last = strictest(alpha, correction, pixels) if correction == "bonferroni" else alpha
    return cutoff(draws, tau, strictest(alpha, correction, pixels)), cutoff(draws, tau, last)


def labels(votes: Votes, *, tau: float, alpha: float, correction: Correction) -> Int8[np.ndarray, "image level y x"]:
    """Label pixels: 1 certified important, 0 certified unimportant, −1 abstained.

    The majority of the first votes says which label a pixel may have, a tie that it is unimportant. It has it where the
    hypothesis that at most a share τ of all copies votes so is rejected by the rest. Where votes are undefined every
    pixel abstains.

    Args:
        votes: The counts.
        tau: Share of the votes, at least 0.5 and less than 1.
        alpha: Bound of the probability that any label of a map is wrong.
        correction: Over the pixels of a map. bonferroni tests each at α / pixels; holm goes down from the surest pixel,
            testing each at α / (pixels not yet certified), and certifies no pixel less, but may leave the pixels of a
            level out of those of a higher one; none tests each at α, which
            bounds the error of one pixel alone.

    Raises:
        ValueError: τ or α is out of range.
    """
    radius(votes.sigma, tau)
    if not 0 < alpha < 1:
        raise ValueError(f"alpha = {alpha}: expected more than 0 and less than 1")
    important = 2 * votes.first.astype(np.int16) > votes.firsts
    count = np.where(important, votes.rest, votes.draws - votes.rest)
    pixels = count.shape[-1] * count.shape[-2]
    if correction == "holm":
        maps = count.reshape(-1, pixels)
        least = _holm(maps, votes.draws, tau, alpha).reshape(*count.shape[:-2], 1, 1)
    else:
        least = cutoff(votes.draws, tau, alpha / pixels if correction == "bonferroni" else alpha)
    defined = (votes.tied != UNDEFINED)[..., None, None]
    return np.where((count >= least) & defined, important.astype(np.int8), np.int8(ABSTAINED))


def _holm(counts: np.ndarray, draws: int, tau: float, alpha: float) -> np.ndarray:
    """Return each map's smallest certifying count by Holm's procedure: equal counts stand or fall together.

    Of pixels with one count the first to be tested has the strictest threshold, so that it speaks for all of them.
    """
    pixels = counts.shape[1]
    number = np.stack([np.bincount(of_map, minlength=draws + 1) for of_map in counts])
    surer = number[:, ::-1].cumsum(axis=1)[:, ::-1] - number
    # Where no pixel has a count there is nothing to test: it stops no procedure.
    holds = (tails(draws, tau) <= alpha / np.maximum(pixels - surer, 1)) | (number == 0)
    run = np.logical_and.accumulate(holds[:, ::-1], axis=1).sum(axis=1)
    return draws + 1 - run
