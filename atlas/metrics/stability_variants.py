"""Score how much a map changes when the image hardly does, like published tables, including errors of their code.

For x', a and a', and the seeds of noisy samples, see `atlas.metrics.stability`.
"""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from atlas.metrics.shared.lazy_samples import lazy_samples
from atlas.metrics.shared.perturbed import check, distances, ends, of_noise, replaced, settled
from atlas.metrics.shared.rows import by_row
from atlas.model.arrays import AllImages, AllMaps, Images, Maps, Scores, Seeds, Targets
from atlas.model.batch_cache import shared
from atlas.model.classifier import Classifier
from atlas.model.lazy_images import LazyImages
from atlas.study.schema.types import Count, Noise, Positive

ATTRS = {
    "relative_input_stability_quantus": {
        "long_name": "Relative input stability (Quantus 0.4.4)",
        "units": "1",
        "reference": "hedstrom2023quantus",
        "better": "lower",
    },
    "local_lipschitz_quantus": {
        "long_name": "Local Lipschitz estimate (Quantus 0.4.4)",
        "units": "1",
        "reference": "hedstrom2023quantus",
        "better": "lower",
    },
}

# Quantus's replacement of 0, also added to distances.
NOTHING = 1e-6
LITTLE = 1e-10


def relative_input_stability_quantus(
    maps: Maps,
    images: Images,
    targets: Targets,
    classifier: Classifier,
    seeds: Seeds,
    explain: Callable[[Classifier, Images, Targets, Seeds], Maps],
    *,
    samples: Count,
    low: float,
    high: float,
) -> Scores:
    """Compute relative input stability as in Quantus 0.4.4, including its errors.

        max ‖(a − a') / a‖₂ / ‖(x − x') / x‖₂,    x' = x + noise uniform in [low, high), x normalized

    Zeros in a divisor, and distances of 0, become 1e-6.

    Args:
        samples: Number of noisy samples of the image.
        low: Least noise; 0.02 in Quantus.
        high: Largest noise; 0.2 in Quantus. Noise of one sign brightens the image.

    Returns:
        0 or more, lower is better. For a map with pixels of 0, these determine the score: 1e4 and more.

    Undefined where a sample changes the predicted class, or a map is not finite.

    Differs from Quantus 0.4.4: noise is drawn from the image's own seed.
    """
    check("relative_input_stability_quantus", samples, **{"high - low": high - low})
    made = of_noise(classifier, images, targets, seeds, samples, "uniform", low, high - low)
    moved = made.normalized_changed(NOTHING)
    changes = by_row(replaced(NOTHING), maps, made.maps(explain)) / moved.where(moved != 0, NOTHING)
    return settled(changes).where(made.agree(), torch.nan).amax(dim=1)


def local_lipschitz_quantus(
    all_maps: AllMaps,
    all_images: AllImages,
    all_targets: Tensor,
    classifier: Classifier,
    all_seeds: Seeds,
    explain: Callable[[Classifier, AllImages, Targets, Seeds], Maps],
    positions: list[int],
    *,
    samples: Count,
    noise: Noise,
    scale: Positive,
) -> Scores:
    """Compute the local Lipschitz estimate as in Quantus 0.4.4: new maps are divided by one number for all images.

        max ‖a / max |a| − a' / M‖₂ / (‖x − x'‖₂ + 1e-10),    M = max |a'| over all images of the draw

    x and x' are normalized. A score also depends on how a method's map of one image compares with its maps of others.

    Args:
        samples: Number of noisy samples of each image.
        noise: `uniform` in ± scale, or `gaussian`, the default in Quantus.
        scale: Scale of the noise on the normalized image: its bound, or its standard deviation.

    Returns:
        0 or more, lower is better.

    Undefined where the map is zero everywhere or not finite, and everywhere if any new map is not finite, or all of a
    draw are zero.

    Differs from Quantus 0.4.4: M is over all scored images, not over the batch that happens to contain the image.
    """
    check("local_lipschitz_quantus", samples, scale=scale)
    given = all_images, all_targets, classifier, all_seeds, explain
    return _against_all(all_maps, *given, samples, noise, scale)[positions]


@shared(calls=2, lasting=True)  # two calls, as entries with different noise alternate
def _against_all(
    maps: AllMaps,
    images: AllImages,
    targets: Targets,
    classifier: Classifier,
    seeds: Seeds,
    explain: Callable,
    samples: int,
    noise: str,
    scale: float,
) -> Scores:
    given = _samples_of_all(classifier, images, targets, seeds, samples, noise, scale)
    by_draw = explain(classifier, *given).unflatten(0, (samples, -1))
    largest = torch.stack([of_draw.abs().amax() for of_draw in by_draw])[:, None, None]

    def apart(one: Tensor, others: Tensor) -> Tensor:
        return distances(one / one.abs().max(), others / largest)

    moved = _moved(classifier, images, seeds, samples, noise, scale)
    return settled(by_row(apart, maps, by_draw.transpose(0, 1)) / (moved + LITTLE)).amax(dim=1)


@shared(calls=2, lasting=True)
def _samples_of_all(
    classifier: Classifier, images: AllImages, targets: Targets, seeds: Seeds, samples: int, noise: str, scale: float
) -> tuple[LazyImages, Tensor, Seeds]:
    """Return noisy samples of all images, draw by draw, made when they are sliced, their targets and seeds."""
    made = lazy_samples(classifier, images, seeds, samples, noise, *ends(noise, scale))
    return made, targets.repeat(samples), seeds * samples


@shared(calls=2, lasting=True)
def _moved(
    classifier: Classifier, images: AllImages, seeds: Seeds, samples: int, noise: str, scale: float
) -> Float[Tensor, "all draw"]:
    """Return how far each noisy sample is from its image, both normalized, image by image."""
    std, found = classifier.std.view(-1, 1, 1), []
    for at, seed in enumerate(seeds):
        one = images[at : at + 1].to(classifier.device)
        noisy = lazy_samples(classifier, one, [seed], samples, noise, *ends(noise, scale))
        found.append(distances(one[0] / std, noisy[:] / std))
    return torch.stack(found)
