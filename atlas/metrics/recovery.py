"""Score a map by what its highest shares of pixels restore, or remove, as in Guided AbsoluteGrad's evaluation."""

import math
from typing import Annotated

import numpy as np
import torch
from torch import Tensor

from atlas.metrics.shared.curves import End, clean, end
from atlas.metrics.shared.outputs import color, outputs
from atlas.metrics.shared.rows import at_least, by_row
from atlas.metrics.shared.scaled import scaled
from atlas.model.arrays import Curves, Images, Maps, Scores, Targets
from atlas.model.batch_cache import shared
from atlas.model.batches import summed
from atlas.model.classifier import Classifier
from atlas.study.schema.types import PartShare, Range, Several

ATTRS = {
    "rcap": {
        "long_name": "Recovered class probability by attribution",
        "units": "probability",
        "reference": "huang2024guided",
        "better": "higher",
    },
    "dauc": {
        "long_name": "Deletion by levels",
        "units": "probability",
        "reference": "huang2024guided",
        "better": "lower",
        "dim": "fraction",
        "summary": "area",
    },
    "iauc": {
        "long_name": "Insertion by levels",
        "units": "probability",
        "reference": "huang2024guided",
        "better": "higher",
        "dim": "fraction",
        "summary": "area",
    },
}

# The authors' blur: a 33-pixel window of a Gaussian of 16 pixels.
SIGMA = 16


def rcap(
    maps: Maps,
    images: Images,
    targets: Targets,
    classifier: Classifier,
    *,
    lower: PartShare,
    interval: Annotated[float, Range(0.01, 1)],
) -> Scores:
    """Weight the probability that the highest shares of pixels restore by the attribution that lies in them.

        1/K Σ_k h_k p(x where M > u_k, black elsewhere),    h_k = Σ_{M > t_k} M / Σ M,    u_k = min(t_1 ... t_k)

    M is the map scaled to [0, 1]. Of the rates ρ = lower, lower + interval ... below 1, from the highest to the lowest,
    t_k is the int(ρ HW)-th lowest value of M, without interpolation. If all thresholds differ and the highest is 1,
    which selects nothing, it is left out; in any other case a threshold of 1 acts as 0.

    Args:
        lower: Rate of the lowest threshold, above 0; the share of pixels shown last is 1 minus this.
        interval: Distance of rates, which are rounded to hundredths.

    Returns:
        0 to 1, higher is better. A map that is concentrated in few pixels has h near 1 from the first level on, so it
        is rewarded whatever it shows: read it together with a control.

    Undefined where the map is constant or not finite.

    Differs from the authors' code (Huang & Liu 2024), whose tables call it "Prob: M3": a constant map has no score here
    and NaN or ones there; each map has the number of levels that its own values yield, where theirs fails on a batch of
    different numbers.
    """
    rates = _rates(lower, interval)
    share, scalable = scaled(maps.to(classifier.device))
    values = share.flatten(1).sort(dim=1).values
    thresholds = values[:, [_place(values.shape[1], rate) for rate in rates]]
    used = _distinct(thresholds)
    thresholds = torch.where(used & (thresholds >= 1), 0.0, thresholds)
    # An unused level selects nothing, like its threshold of 1; and it is the first.
    shown = thresholds.cummin(dim=1).values
    black = torch.zeros_like(images[:1]).expand_as(images).to(classifier.device)
    whole = images.to(classifier.device)
    brought = _levels(classifier, targets, share, shown, scalable, black, whole)
    return by_row(_recovered, share, thresholds, used, brought)


def dauc(maps: Maps, images: Images, targets: Targets, classifier: Classifier, *, levels: Several) -> Curves:
    """Delete the highest shares of pixels and record the target's probability.

        s_k = p(x with the mean color where M > t_k), k = 0 ... levels − 1

    M is the map scaled to [0, 1], t_k the int((1 − k / levels) HW)-th lowest value of M. Equal attributions are
    deleted together, with the pixels above them.

    Args:
        levels: Points of the curve; the authors have 10.

    Returns:
        Probabilities, 0 to 1; a low area is better. The last point, at the share 1 − 1 / levels, deletes that share and
        not all, so the area of a curve that is 1 throughout is 1 − 1 / levels, as in the authors' tables.

    Undefined where the map is constant or not finite.

    Differs from the authors' code (Huang & Liu 2024): not in the score. It is their variant of `deletion`, which has
    both ends and breaks ties: prefer that one except for comparisons with them.
    """
    return _exchanged(maps, targets, classifier, levels, clean(classifier, images, targets), _mean(classifier, images))


def iauc(maps: Maps, images: Images, targets: Targets, classifier: Classifier, *, levels: Several) -> Curves:
    """Insert the highest shares of pixels into the blurred image and record the target's probability.

        s_k = p(blurred x with the pixels of x where M > t_k), k = 0 ... levels − 1

    M and t_k are those of `dauc`. The image is blurred by a window of 33 pixels of a Gaussian of 16, mirrored at its
    edges; so it makes no difference whether it is blurred before or after normalization.

    Args:
        levels: Points of the curve; the authors have 10.

    Returns:
        Probabilities, 0 to 1; a high area is better. The area of a curve that is 1 throughout is 1 − 1 / levels, see
        `dauc`.

    Undefined where the map is constant or not finite.

    Differs from the authors' code (Huang & Liu 2024): not in the score. It is their variant of `insertion`.
    """
    whole = images.to(classifier.device)
    return _exchanged(maps, targets, classifier, levels, _blurred_end(classifier, images, targets), whole)


def _rates(lower: float, interval: float) -> list[float]:
    """Return the rates from the highest to the lowest.

    Raises:
        ValueError: there are none, or infinitely many.
    """
    if not 0 < lower < 1:
        raise ValueError(f"rcap: lower is {lower}, expected above 0 and below 1")
    if not interval >= 0.01:
        raise ValueError(f"rcap: interval is {interval}, expected 0.01 or more")
    rates = [round(lower + step * interval, 2) for step in range(math.ceil(1 / interval))]
    return [rate for rate in reversed(rates) if rate < 1]


def _place(pixels: int, rate: float) -> int:
    """Return the index of a rate's threshold among values in ascending order."""
    return max(int(pixels * rate), 1) - 1


def _distinct(thresholds: Tensor) -> Tensor:
    """Return which levels are used: all except a first one at 1, if there are others and no two are equal."""
    used = torch.ones_like(thresholds, dtype=torch.bool)
    if thresholds.shape[1] > 1:
        used[:, 0] = (thresholds[:, 0] < 1) | (thresholds[:, 1:] == thresholds[:, :-1]).any(dim=1)
    return used


def _recovered(share: Tensor, thresholds: Tensor, used: Tensor, brought: Tensor) -> Tensor:
    share, levels = share.double(), zip(thresholds, brought, strict=True)
    hits = [share[share > threshold].sum() / share.sum() * probability for threshold, probability in levels]
    return torch.stack(hits)[used].mean().float()


def _exchanged(
    maps: Tensor, targets: Tensor, classifier: Classifier, levels: int, before: End, after: Tensor
) -> Tensor:
    """Record the probability while more and more of the highest pixels become those of other images."""
    at_least(2, "a curve by levels", "levels", levels)
    share, scalable = scaled(maps.to(classifier.device))
    values = share.flatten(1).sort(dim=1).values
    places = [_place(values.shape[1], (levels - level) / levels) for level in range(levels)]
    curves = _levels(classifier, targets, share, values[:, places], scalable, before.images, after)
    return torch.where(scalable[:, None] & curves.isnan(), before.probability[:, None], curves)


def _levels(
    classifier: Classifier,
    targets: Tensor,
    share: Tensor,
    thresholds: Tensor,
    scalable: Tensor,
    before: Tensor,
    after: Tensor,
) -> Tensor:
    """Return the probability of images whose pixels above each threshold are those of `after`; NaN for unused ones.

    Levels are nested, so levels with equal thresholds have the same image, which is evaluated once.
    """
    new = torch.ones_like(thresholds, dtype=torch.bool)
    new[:, 1:] = thresholds[:, 1:] != thresholds[:, :-1]
    new &= (thresholds < 1) & scalable[:, None]
    row, level = new.nonzero().unbind(dim=1)

    def made(r: Tensor, s: Tensor) -> Tensor:
        return torch.where((share[r] > thresholds[r, s][:, None, None])[:, None], after[r], before[r])

    found = torch.full(thresholds.shape, torch.nan, device=classifier.device)
    found[row, level] = outputs(classifier, targets, row, level, made, "probability")
    for at in range(1, thresholds.shape[1]):
        found[:, at] = torch.where(new[:, at], found[:, at], found[:, at - 1])
    return found


def _mean(classifier: Classifier, images: Tensor) -> Tensor:
    return color(classifier, "mean").expand(images.shape)


@shared(calls=2)
def _blurred_end(classifier: Classifier, images: Tensor, targets: Tensor) -> End:
    return end(classifier, blur(images.to(classifier.device)), targets)


def blur(images: Images) -> Images:
    """Blur along each side; shifted images are multiplied and added one by one, so that no row depends on others."""
    weights = np.exp(-((np.arange(-SIGMA, SIGMA + 1) / SIGMA) ** 2) / 2)
    weights /= weights.sum()
    for dim in (2, 3):
        size = images.shape[dim]
        mirrored = torch.from_numpy(np.pad(np.arange(size), SIGMA, mode="reflect")).to(images.device)
        wide = images.index_select(dim, mirrored)
        images = summed(weight * wide.narrow(dim, shift, size) for shift, weight in enumerate(weights.tolist()))
    return images
