"""Score a map by what the classifier still recognizes when pixels are removed and imputed from their neighbors."""

import torch
from torch import Tensor

from atlas.metrics.shared.curves import target_probability
from atlas.metrics.shared.imputed import imputed
from atlas.metrics.shared.order import ranking
from atlas.metrics.shared.rows import finite
from atlas.model.arrays import Images, Maps, Scores, Seeds, Targets
from atlas.model.batch_cache import shared
from atlas.model.batches import summed
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
    """Compare the target's probability without the least and without the most relevant pixels.

        mean over shares s of (p(x without its s least relevant) − p(x without its s most relevant)) / 2

    Pixels are removed as described in `road_morf`. If `road_lerf` and `road_morf` with the same settings score the same
    images, this costs no further pass.

    Args:
        shares: Shares of the pixels to remove.
        noise: Standard deviation of the noise on removed pixels of the normalized image; the paper's is 0.01.

    Returns:
        -0.5 to 0.5; higher is better. About 0 for a random map.

    Undefined where the map is not finite.

    Differs from the paper (Rong et al. 2022), which reports each order separately, as the accuracy on a data set:
    combined as in pytorch-grad-cam, with the target's probability. See `road_morf`.
    """
    least, most = (_left(maps, images, targets, classifier, seeds, order, shares, noise) for order in ("least", "most"))
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
    """Remove the most relevant pixels, impute them, and take the target's probability.

        mean over shares s of p(x without its s most relevant pixels)

    Removed pixels become weighted means of their neighbors, including removed ones: 1/6 horizontally and vertically,
    1/12 diagonally, divided by the sum of the weights inside the image. Gaussian noise, drawn from the image's seed and
    the number of removed pixels, is added to them; the result is not clipped at black and white. A share is rounded to
    a number of pixels, and at least one pixel is kept. Equal attributions are ordered by a random key of the image.

    Args:
        shares: Shares of the pixels to remove.
        noise: Standard deviation of the noise on removed pixels of the normalized image; the paper's is 0.01.

    Returns:
        Probabilities, 0 to 1; lower is better.

    Undefined where the map is not finite.

    Differs from the paper (Rong et al. 2022): the target's probability, where the paper uses the accuracy on a data
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
    """Remove the least relevant pixels, impute them, and take the target's probability.

        mean over shares s of p(x without its s least relevant pixels)

    Pixels are removed as described in `road_morf`, in the opposite order.

    Args:
        shares: Shares of the pixels to remove.
        noise: Standard deviation of the noise on removed pixels of the normalized image; the paper's is 0.01.

    Returns:
        Probabilities, 0 to 1; higher is better.

    Undefined where the map is not finite.

    Differs from the paper: see `road_morf`.
    """
    return _mean(_left(maps, images, targets, classifier, seeds, "least", shares, noise))


@shared(calls=8)  # several calls, as both orders and entries with different settings alternate
def _left(
    maps: Tensor,
    images: Tensor,
    targets: Tensor,
    classifier: Classifier,
    seeds: Seeds,
    order: str,
    shares: list[float],
    noise: float,
) -> Tensor:
    """Return the probability at each share, one full batch of (image, share) at a time."""
    counts = _counts(shares, noise, maps[0].numel())
    device, removed = classifier.device, torch.tensor(counts)
    images, targets, removed = images.to(device), targets.to(device), removed.to(device)
    rows = finite(maps).to(device).nonzero().flatten()
    left = torch.full((len(maps), len(counts)), torch.nan, device=device)
    rank = _ranks(maps, seeds).to(device)
    rank = rank if order == "most" else maps[0].numel() - 1 - rank
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


@shared(calls=2)  # two calls, as metrics on all images and on fewer alternate
def _ranks(maps: Tensor, seeds: Seeds) -> Tensor:
    """Return each pixel's index in the order."""
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
    """Draw the noise for each number of removed pixels and each image: the same for every map."""
    return torch.stack([normal(seeds, "road", count, shape) for count in counts]).to(device)


def _mean(left: Tensor) -> Scores:
    """Average over shares, one by one: torch's own order of summation may vary."""
    return summed(left.unbind(dim=1)) / left.shape[1]
