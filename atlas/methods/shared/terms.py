"""Sum the terms of a path method in every form that its variants need, from one run along the path."""

import torch
from torch import Tensor

from atlas.methods.shared.guide import guide
from atlas.model.arrays import Images
from atlas.study.schema.types import Floor


class Terms:
    """Sums and variances over the terms t of every image, in float32 unless the terms come in double.

    A term is a gradient times a step along the path; terms are separated by the gradient's sign.

    Args:
        images: A tensor of the shape and dtype of the terms.
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
            number: Number of terms that the row has already.
            positive: The part of the term from gradients above 0.
            negative: The part from gradients below 0.
        """
        self._count = max(self._count, number + 1)
        both, absolute = positive + negative, positive - negative
        parts = {"both": both, "positive": positive, "negative": negative, "absolute": absolute.abs()}
        for sign, part in parts.items():
            self._sums[sign][row] += part
        for sign, mean in self._means.items():
            term = both if sign == "both" else absolute
            # Welford's algorithm: exact if all terms are equal, and without differences of large squares.
            step = term - mean[row]
            mean[row] += step / (number + 1)
            self._deviations[sign][row] += step * (term - mean[row])

    def total(self, sign: str, percentile: int, floor: Floor) -> Images:
        """Return Σ t, or W · Σ t if a percentile guides it.

        Args:
            sign: both: the terms; positive, negative: only those of gradients of one sign; absolute: Σ |t|, of absolute
                gradients.
            percentile: Percentage of pixels that the guide W suppresses by the variance of the terms, 0 for no guide.
            floor: The value of W at suppressed pixels.
        """
        total = self._sums[sign].to(torch.float32, copy=True)
        if percentile == 0:
            return total
        return guide(self._variance("absolute" if sign == "absolute" else "both"), percentile, floor) * total

    def _variance(self, sign: str) -> Images:
        return (self._deviations[sign] / (self._count - 1)).float()
