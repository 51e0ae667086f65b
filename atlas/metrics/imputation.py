"""Judge a map by what the classifier still knows once pixels are removed and filled in from those around them."""

import torch
from torch import Tensor

from atlas.metrics.shared.curves import target_probability
from atlas.metrics.shared.imputed import imputed
from atlas.metrics.shared.order import ranking
from atlas.metrics.shared.rows import finite
from atlas.model.arrays import Images, Maps, Scores, Seeds, Targets
from atlas.model.batch_cache import shared
from atlas.model.classifier import Classifier
from atlas.study.schema.types import NotNegative, Shares
from atlas.study.seeds import normal

ATTRS = {
    "road": {
        "long_name": "Remove and debias",
        "units": "probability",
        "reference": "rong2022consistent",
        "better": "higher",
    },
    "road_morf": {
        "long_name": "Remove and debias, most relevant first",
        "units": "probability",
        "reference": "rong2022consistent",
        "better": "lower",
    },
    "road_lerf": {
        "long_name": "Remove and debias, least relevant first",
        "units": "probability",
        "reference": "rong2022consistent",
        "better": "higher",
    },
}


def road(
    maps: Maps,
    images: Images,
    targets: Targets,
    classifier: Classifier,
    seeds: Seeds,
    *,
    shares: Shares,
    noise: NotNegative,
) -> Scores:
    """Compare what is left of the target without the least and without the most relevant pixels.

        mean over shares s of (p(x without its s least relevant) − p(x without its s most relevant)) / 2

    Pixels are removed as `road_morf` says. Where `road_lerf` and `road_morf` of the same settings judge the same
    images, this costs no pass of its own.

    Args:
        shares: Of the pixels, removed at a time.
        noise: Standard deviation of the noise on removed pixels, of the normalized image; the paper's is 0.01.

    Returns:
        -0.5 to 0.5; higher is better. About 0 for a random map.

    Undefined where the map is not finite.

    Differs from the paper (Rong et al. 2022), which gives either order alone, as the accuracy on a data set: combined
    as in pytorch-grad-cam, on the target's probability. See `road_morf`.
    """
    least, most = (_left(maps, images, targets, classifier, seeds, first, shares, noise) for first in ("least", "most"))
    return _mean(least - most) / 2


def road_morf(
    maps: Maps,
    images: Images,
    targets: Targets,
    classifier: Classifier,
    seeds: Seeds,
    *,
    shares: Shares,
    noise: NotNegative,
) -> Scores:
    """Remove the most relevant pixels, fill them in, and take the target's probability.

        mean over shares s of p(x without its s most relevant pixels)

    Removed pixels become weighted means of their neighbors, of those removed too: 1/6 beside, above and below, 1/12
    across a corner, divided by the sum of those inside the image. Gaussian noise, drawn from the image's seed and the
    number of removed pixels, is added to them; the result is not cut off at black and white. A share is taken to the
    nearest number of pixels, and one pixel is always left. Equal attributions are ordered by a random key of the image.

    Args:
        shares: Of the pixels, removed at a time.
        noise: Standard deviation of the noise on removed pixels, of the normalized image; the paper's is 0.01.

    Returns:
        Probabilities, 0 to 1; lower is better.

    Undefined where the map is not finite.

    Differs from the paper (Rong et al. 2022): the target's probability, where the paper takes the accuracy on a data
    set; a pixel is removed with all its channels.
    """
    return _mean(_left(maps, images, targets, classifier, seeds, "most", shares, noise))


def road_lerf(
    maps: Maps,
    images: Images,
    targets: Targets,
    classifier: Classifier,
    seeds: Seeds,
    *,
    shares: Shares,
    noise: NotNegative,
) -> Scores:
    """Remove the least relevant pixels, fill them in, and take the target's probability.

        mean over shares s of p(x without its s least relevant pixels)

    Pixels are removed as `road_morf` says, in its order from the end.

    Args:
        shares: Of the pixels, removed at a time.
        noise: Standard deviation of the noise on removed pixels, of the normalized image; the paper's is 0.01.

    Returns:
        Probabilities, 0 to 1; higher is better.

    Undefined where the map is not finite.

    Differs from the paper: see `road_morf`.
    """
    return _mean(_left(maps, images, targets, classifier, seeds, "least", shares, noise))


@shared(calls=8)  # both orders, and entries of several settings, take turns
def _left(
    maps: Tensor,
    images: Tensor,
    targets: Tensor,
    classifier: Classifier,
    seeds: Seeds,
    first: str,
    shares: list[float],
    noise: float,
) -> Tensor:
    """Return the probability that is left at each share, one full batch of (image, share) at a time."""
    counts = _counts(shares, noise, maps[0].numel())
    device, removed = classifier.device, torch.tensor(counts)
    images, targets, removed = images.to(device), targets.to(device), removed.to(device)
    rows = finite(maps).to(device).nonzero().flatten()
    left = torch.full((len(maps), len(counts)), torch.nan, device=device)
    rank = _ranks(maps, seeds).to(device)
    rank = rank if first == "most" else maps[0].numel() - 1 - rank
    drawn = _drawn(seeds, counts, tuple(images.shape[1:]), device)
    spread = noise * classifier.std.view(-1, 1, 1)
    row = rows.repeat_interleave(len(counts))
    share = torch.arange(len(counts), device=device).repeat(len(rows))
    for start in range(0, len(row), classifier.batch):
        r, s = row[start : start + classifier.batch], share[start : start + classifier.batch]
        gone = (rank[r] < removed[s][:, None]).view(-1, *maps.shape[1:])
        filled = imputed(images[r], gone) + gone[:, None] * (spread * drawn[s, r])
        left[r, s] = target_probability(classifier, filled, targets[r])
    return left


@shared(calls=2)  # both orders, and metrics on fewer images take turns
def _ranks(maps: Tensor, seeds: Seeds) -> Tensor:
    """Assign each pixel its place in the order."""
    order = ranking(maps, seeds)
    return torch.empty_like(order).scatter_(
        1, order, torch.arange(order.shape[1], device=order.device).expand_as(order)
    )


def _counts(shares: list[float], noise: float, pixels: int) -> list[int]:
    if not shares or not all(0 < share < 1 for share in shares):
        raise ValueError(f"road: shares is {shares}, expected numbers above 0 and below 1")
    if not noise >= 0:
        raise ValueError(f"road: noise is {noise}, expected 0 or more")
    return [min(round(share * pixels), pixels - 1) for share in shares]


@shared
def _drawn(seeds: Seeds, counts: list[int], shape: tuple[int, ...], device: torch.device) -> Tensor:
    """Draw the noise of each number of removed pixels and each image: the same for every map."""
    return torch.stack([normal(seeds, "road", count, shape) for count in counts]).to(device)


def _mean(left: Tensor) -> Scores:
    """Average over shares, one after the other: torch would sum in an order of its own."""
    return sum(left.unbind(dim=1)) / left.shape[1]
