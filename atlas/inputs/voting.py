"""Let noisy samples of images vote on which pixels are at the top of their maps (Anani et al. 2025)."""

from collections.abc import Callable
from typing import Annotated, Any

import numpy as np
import torch
from torch import Tensor

from atlas.inputs.certification import UNDEFINED
from atlas.inputs.top_k import scale_of, top_k
from atlas.model.arrays import Images, Seeds, Targets
from atlas.model.classifier import Classifier
from atlas.study.errors import Fault
from atlas.study.schema.types import Items, Positive, Range, Top
from atlas.study.seeds import generator


def votes(
    classifier: Classifier,
    images: Images,
    targets: Targets,
    seeds: Seeds,
    explain: dict[str, Callable],
    passes: dict[str, dict[str, int]],
    *,
    form: Top,
    sigma: Positive,
    levels: Annotated[list[Annotated[int, Range(1, 99)]], Items(1)],
    n0: int,
    n: int,
) -> dict[str, Any]:
    """Count for each pixel the noisy samples in whose map it is at the top; batches run over images and samples.

        x + σ · ε, ε ~ N(0, 1), added to intensities and not clipped

    The noise is drawn per image and sample; smoothings share it, and so do the tiles of a grid.

    Args:
        classifier: The classifier to explain.
        images, targets, seeds: The inputs of the rows.
        explain: Functions that make maps, by method.
        passes: Counters by method, to which the passes of each method are added.
        sigma: Standard deviation of the noise, in intensities.
        levels: Shares of the pixels that are the top, in percent.
        n0: Number of samples that choose the label to test.
        n: Number of samples that test it.

    Returns:
        For each method its counts, or the exception it raised (Unsupported or any other), which does not affect the
        other methods. If the map of any sample of an image is not finite, its counts are undefined: 0, and `tied` is
        UNDEFINED at every level.

    Raises:
        Fault: a method did something forbidden.
    """
    rows, number, device = len(images), samples_per_row(form=form, n0=n0, n=n), images.device
    row = torch.arange(rows, device=device).repeat_interleave(number)
    draw = torch.arange(n0 + n - number, n0 + n, device=device).repeat(rows)  # -1: the image without noise
    counts = {name: _Counts(images, form, levels, n0) for name in explain}
    raised: dict[str, Exception] = {}
    for start in range(0, len(row), classifier.batch):
        r, d = row[start : start + classifier.batch], draw[start : start + classifier.batch]
        noisy, wanted, own = noised(images, seeds, r, d, sigma), targets[r], [seeds[i] for i in r.tolist()]
        for name in [name for name in explain if name not in raised]:
            before = dict(classifier.passes)
            try:
                maps = explain[name](classifier, noisy, wanted, own)
                counts[name].add(maps, r, d)
            except Fault:  # the shared inputs may be spoiled, for all methods
                raise
            except Exception as error:  # any error: the votes on other methods must not be lost
                raised[name] = error
            for kind, count in passes[name].items():
                passes[name][kind] = count + classifier.passes[kind] - before[kind]
    return {name: raised.get(name) or counts[name].found() for name in explain}


def noised(images: Tensor, seeds: list[int], row: Tensor, draw: Tensor, sigma: float) -> Tensor:
    """Add noise to images, separately for each sample; for draw -1, none."""
    shape = images.shape[1:]
    noise = [
        torch.randn(shape, generator=generator(seeds[r], "certify", d)) if d >= 0 else torch.zeros(shape)
        for r, d in zip(row.tolist(), draw.tolist(), strict=True)
    ]
    return images[row] + sigma * torch.stack(noise).to(images.device)


def samples_per_row(*, form: str, n0: int, n: int, **others: object) -> int:
    """Return the number of maps per row: one per noisy sample, and for the authors' scale one of the image itself."""
    return n0 + n + (form == "authors")


class _Counts:
    """The votes on one method's maps, row by row."""

    def __init__(self, images: Images, form: Top, levels: list[int], n0: int):
        rows, side, device = len(images), images.shape[-2:], images.device
        self._form, self._levels, self._n0 = form, levels, n0
        self._votes = torch.zeros(2 * rows, len(levels), *side, dtype=torch.uint8, device=device)
        self._tied = torch.zeros(rows, len(levels), dtype=torch.int32, device=device)
        self._scales = torch.ones(rows, device=device)
        self._undefined = torch.zeros(rows, dtype=torch.bool, device=device)

    def add(self, maps: Tensor, row: Tensor, draw: Tensor) -> None:
        finite = torch.isfinite(maps).flatten(1).all(dim=1)
        self._undefined[row[~finite]] = True
        maps = torch.where(finite[:, None, None], maps, 0)
        clean = draw < 0
        self._scales[row[clean]] = scale_of(maps[clean])
        row, draw, maps = row[~clean], draw[~clean], maps[~clean]
        tops, ties = top_k(maps, levels=self._levels, form=self._form, scales=self._scales[row])
        self._votes.index_add_(0, 2 * row + (draw >= self._n0), tops.byte())
        self._tied.index_add_(0, row, ties.int())

    def found(self) -> dict[str, np.ndarray]:
        counts0, counts = self._votes.view(-1, 2, *self._votes.shape[1:]).cpu().numpy().swapaxes(0, 1)
        tied, undefined = self._tied.cpu().numpy().astype("uint16"), self._undefined.cpu().numpy()
        counts0[undefined], counts[undefined], tied[undefined] = 0, 0, UNDEFINED
        return {"counts0": counts0, "counts": counts, "tied": tied}
