"""Add up the terms of a path method in every kind that its variants take, from one run along the path."""

import torch
from torch import Tensor

from atlas.methods.shared.guide import guide
from atlas.model.arrays import Images


class Terms:
    """Sums and variances over the terms t of every image, in float32 unless the terms come in double.

    A term is a gradient times a step along the path; its kinds are made of the gradient's signs.

    Args:
        images: What a term is like.
        guided: Whether variances are kept, which a guide needs.
    """

    def __init__(self, images: Tensor, *, guided: bool):
        self._sums = {sign: torch.zeros_like(images) for sign in ("both", "positive", "negative", "absolute")}
        kinds = ("both", "absolute") if guided else ()
        self._means = {sign: torch.zeros_like(images) for sign in kinds}
        self._deviations = {sign: torch.zeros_like(images) for sign in kinds}
        self._count = 0

    def add(self, row: int | slice, number: int, positive: Tensor, negative: Tensor) -> None:
        """Add the next term of a row, or of some rows.

        Args:
            row: The row, or rows.
            number: Terms that the row has already.
            positive: What of the term comes from gradients above 0.
            negative: What of it comes from those below.
        """
        self._count = max(self._count, number + 1)
        both, absolute = positive + negative, positive - negative
        parts = {"both": both, "positive": positive, "negative": negative, "absolute": absolute.abs()}
        for sign, part in parts.items():
            self._sums[sign][row] += part
        for sign, mean in self._means.items():
            term = both if sign == "both" else absolute
            # Welford's sums: exact where all terms are equal, and without the differences of large squares.
            step = term - mean[row]
            mean[row] += step / (number + 1)
            self._deviations[sign][row] += step * (term - mean[row])

    def total(self, sign: str, percentile: int, floor: str) -> Images:
        """Return Σ t, or W · Σ t where a percentile guides it.

        Args:
            sign: both: the terms; positive, negative: of gradients of one sign alone; absolute: Σ |t|, of absolute
                gradients.
            percentile: Share of pixels that the guide W holds down by the variance of the terms, 0 for no guide.
            floor: What W is there.
        """
        total = self._sums[sign].to(torch.float32, copy=True)
        if percentile == 0:
            return total
        return guide(self._variance("absolute" if sign == "absolute" else "both"), percentile, floor) * total

    def _variance(self, sign: str) -> Images:
        return (self._deviations[sign] / (self._count - 1)).float()
