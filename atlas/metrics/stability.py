"""Score how much a map changes when the image hardly does.

x' is a noisy sample of the image x, a the map of x, a' that of x'. Samples are drawn from the image's own seed, and all
metrics with the same noise share them and their maps. The method is treated as a fixed function: a sample's map is made
with its image's seed, so that a method's own random draws stay the same. Maps are made anew, so a metric costs a
method's passes once more for each sample, whatever the number of metrics.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from atlas.metrics.shared.perturbed import NoisySamples, check, distances, noisy_samples, relative, settled
from atlas.metrics.shared.rows import by_row
from atlas.model.arrays import Images, Maps, Scores, Seeds, Targets
from atlas.model.classifier import Classifier
from atlas.study.schema.types import Count, Layer, Noise, Positive

ATTRS = {
    "max_sensitivity": {
        "long_name": "Max-Sensitivity",
        "units": "1",
        "reference": "yeh2019infidelity",
        "better": "lower",
    },
    "avg_sensitivity": {
        "long_name": "Avg-Sensitivity",
        "units": "1",
        "reference": "yeh2019infidelity",
        "better": "lower",
    },
    "local_lipschitz": {
        "long_name": "Local Lipschitz estimate",
        "units": "1",
        "reference": "alvarezmelis2018robustness",
        "better": "lower",
    },
    "relative_input_stability": {
        "long_name": "Relative input stability",
        "units": "1",
        "reference": "agarwal2022rethinking",
        "better": "lower",
    },
    "relative_output_stability": {
        "long_name": "Relative output stability",
        "units": "1 / logit",
        "reference": "agarwal2022rethinking",
        "better": "lower",
    },
    "relative_representation_stability": {
        "long_name": "Relative representation stability",
        "units": "1",
        "reference": "agarwal2022rethinking",
        "better": "lower",
    },
}


def max_sensitivity(
    maps: Maps,
    images: Images,
    targets: Targets,
    classifier: Classifier,
    seeds: Seeds,
    explain: Callable[[Classifier, Images, Targets, Seeds], Maps],
    *,
    samples: Count,
    noise: Noise,
    scale: Positive,
) -> Scores:
    """Measure the largest change of the map among noisy samples of the image, as a share of the map.

        max ‖a − a'‖₂ / ‖a‖₂

    Args:
        samples: Number of noisy samples of the image.
        scale: Scale of the noise on the normalized image: its bound, or its standard deviation.

    Returns:
        0 or more, lower is better: 0 for a map that does not depend on the image.

    Undefined where the map is zero everywhere, or a map is not finite.

    Differs from the paper (Yeh et al. 2019): samples are drawn at random, as in its code, not searched for.
    """
    made = noisy_samples(classifier, images, targets, seeds, "max_sensitivity", samples, noise, scale)
    return _changes(maps, made.maps(explain)).amax(dim=1)


def avg_sensitivity(
    maps: Maps,
    images: Images,
    targets: Targets,
    classifier: Classifier,
    seeds: Seeds,
    explain: Callable[[Classifier, Images, Targets, Seeds], Maps],
    *,
    samples: Count,
    noise: Noise,
    scale: Positive,
) -> Scores:
    """Measure the mean change of the map among noisy samples of the image, as a share of the map.

        (1/n) Σ ‖a − a'‖₂ / ‖a‖₂

    Args:
        samples: Number n of noisy samples of the image.
        scale: Scale of the noise on the normalized image: its bound, or its standard deviation.

    Returns:
        0 or more, lower is better: 0 for a map that does not depend on the image.

    Undefined where the map is zero everywhere, or a map is not finite.

    Reference: the mean in place of the maximum of `max_sensitivity`, as in Quantus.
    """
    made = noisy_samples(classifier, images, targets, seeds, "avg_sensitivity", samples, noise, scale)
    return by_row(torch.mean, _changes(maps, made.maps(explain)))


def local_lipschitz(
    maps: Maps,
    images: Images,
    targets: Targets,
    classifier: Classifier,
    seeds: Seeds,
    explain: Callable[[Classifier, Images, Targets, Seeds], Maps],
    *,
    samples: Count,
    noise: Noise,
    scale: Positive,
) -> Scores:
    """Measure the largest change of the map relative to the distance by which the image was moved.

        max ‖a / max |a| − a' / max |a'|‖₂ / ‖x − x'‖₂,    x and x' normalized

    A map of a sample that is zero everywhere is left undivided.

    Args:
        samples: Number of noisy samples of the image.
        scale: Scale of the noise on the normalized image: its bound, or its standard deviation.

    Returns:
        0 or more, lower is better: 0 for a map whose pattern does not depend on the image.

    Undefined where the map is zero everywhere, or a map is not finite.

    Differs from the paper (Alvarez-Melis and Jaakkola 2018): each map is divided by its own largest absolute value, so
    that the unit of attributions does not matter; samples are drawn at random, not searched for. Quantus divides all
    new maps of a batch by one number (`local_lipschitz_quantus`).
    """
    made = noisy_samples(classifier, images, targets, seeds, "local_lipschitz", samples, noise, scale)
    return (by_row(_patterns_apart, maps, made.maps(explain)) / made.apart()).amax(dim=1)


def relative_input_stability(
    maps: Maps,
    images: Images,
    targets: Targets,
    classifier: Classifier,
    seeds: Seeds,
    explain: Callable[[Classifier, Images, Targets, Seeds], Maps],
    *,
    samples: Count,
    noise: Noise,
    scale: Positive,
    floor: Positive,
) -> Scores:
    """Compare the relative change of the map with that of the image.

        max rms((a − a') / a) / rms((x − x') / x),    over noisy samples of x's predicted class

    rms is the root mean square over all pixels (and channels), x are intensities. |a| and |x| in a divisor are raised
    to at least `floor` times the largest of the map, and of the image. If images may have several labels, samples
    count in which the target is predicted, or not, as it is in x.

    Args:
        samples: Number of noisy samples of the image.
        scale: Scale of the noise on the normalized image: its bound, or its standard deviation.
        floor: Least divisor, as a share of the largest value.

    Returns:
        0 or more, lower is better.

    Undefined where no sample has the image's predicted class, the map or the image is zero everywhere, or a map is not
    finite.

    Differs from the paper (Agarwal et al. 2022): the floor, without which a single pixel of 0 determines the score; and
    root mean squares in place of norms, so that images of all sizes are comparable.
    """
    made = noisy_samples(classifier, images, targets, seeds, "relative_input_stability", samples, noise, scale)
    check("relative_input_stability", samples, floor=floor)
    return _worst(maps, made, explain, floor, made.images_changed(floor))


def relative_output_stability(
    maps: Maps,
    images: Images,
    targets: Targets,
    classifier: Classifier,
    seeds: Seeds,
    explain: Callable[[Classifier, Images, Targets, Seeds], Maps],
    *,
    samples: Count,
    noise: Noise,
    scale: Positive,
    floor: Positive,
) -> Scores:
    """Compare the relative change of the map with the change of the logits.

        max rms((a − a') / a) / ‖f(x) − f(x')‖₂,    over noisy samples of x's predicted class

    rms, the floor of |a| and the samples that count are those of `relative_input_stability`; f(x) are all logits, those
    of all labels too. Samples that do not change them are ignored.

    Args:
        samples: Number of noisy samples of the image.
        scale: Scale of the noise on the normalized image: its bound, or its standard deviation.
        floor: Least divisor, as a share of the largest value.

    Returns:
        0 or more, per logit; lower is better. It depends on the scale of the logits: compare methods on the same
        classifier.

    Undefined where no sample counts, the map is zero everywhere, or a map is not finite.

    Differs from the paper (Agarwal et al. 2022) like `relative_input_stability`.
    """
    made = noisy_samples(classifier, images, targets, seeds, "relative_output_stability", samples, noise, scale)
    check("relative_output_stability", samples, floor=floor)
    return _worst(maps, made, explain, floor, made.logits_apart())


def relative_representation_stability(
    maps: Maps,
    images: Images,
    targets: Targets,
    classifier: Classifier,
    seeds: Seeds,
    explain: Callable[[Classifier, Images, Targets, Seeds], Maps],
    *,
    samples: Count,
    noise: Noise,
    scale: Positive,
    floor: Positive,
    layer: Layer,
) -> Scores:
    """Compare the relative change of the map with that of a layer's activations.

        max rms((a − a') / a) / rms((A − A') / A),    over noisy samples of x's predicted class

    A are the activations of x. rms, the floor of |a| and |A|, and the samples that count are those of
    `relative_input_stability`. Samples that do not change A are ignored.

    Args:
        samples: Number of noisy samples of the image.
        scale: Scale of the noise on the normalized image: its bound, or its standard deviation.
        floor: Least divisor, as a share of the largest value.
        layer: The layer of the activations.

    Returns:
        0 or more, lower is better.

    Undefined where no sample counts, the map or A is zero everywhere, or a map is not finite.

    Differs from the paper (Agarwal et al. 2022) like `relative_input_stability`.
    """
    made = noisy_samples(classifier, images, targets, seeds, "relative_representation_stability", samples, noise, scale)
    check("relative_representation_stability", samples, floor=floor)
    return _worst(maps, made, explain, floor, made.features_changed(layer, floor))


def _changes(maps: Maps, again: Tensor) -> Tensor:
    def change(one: Tensor, others: Tensor) -> Tensor:
        # Divided by the largest value first: squares of small attributions would underflow to 0.
        one, others = one / one.abs().max(), others / one.abs().max()
        return distances(one, others) / torch.linalg.vector_norm(one)

    return settled(by_row(change, maps, again))


def _patterns_apart(one: Tensor, others: Tensor) -> Tensor:
    largest = others.abs().amax((1, 2), keepdim=True)
    return settled(distances(one / one.abs().max(), others / largest.where(largest != 0, 1.0)))


def _worst(maps: Maps, made: NoisySamples, explain: Callable, floor: float, moved: Tensor) -> Scores:
    """Return the largest ratio of the map's relative change to another change, among the samples that count."""
    counts = made.agree() & (moved > 0)
    changes = settled(by_row(relative(floor), maps, made.maps(explain)))
    worst = (changes / moved).where(counts, -torch.inf).amax(dim=1)
    return worst.where(counts.any(dim=1), torch.nan)
