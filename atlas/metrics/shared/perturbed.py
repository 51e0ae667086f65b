"""Perturb the images of a batch once, and cache what metrics with the same noise compute on the noisy samples."""

from collections.abc import Callable
from math import sqrt

import torch
from torch import Tensor

from atlas.metrics.shared.outputs import clean_logits
from atlas.metrics.shared.rows import at_least, by_row
from atlas.model.arrays import Images, Maps, Scores, Seeds, Targets
from atlas.model.batch_cache import shared
from atlas.model.classifier import Classifier
from atlas.study import seeds as draws

Explainer = Callable[[Classifier, Images, Targets, Seeds], Maps]


class NoisySamples:
    """Noisy samples of images: x + std (offset + spread z), draw by draw, with z uniform in [0, 1) or normal.

    Noise applies to the normalized image; std are the classifier's standard deviations. Samples are not clipped.
    They are made once, all draws of all images in one tensor, so that passes run in full batches. A sample has its
    image's target and seed, so the method's own random draws stay, and only the image changes.

    Results are computed when first requested, as [image, draw, ...]. A method's maps are kept until another method's
    are requested.
    """

    def __init__(
        self,
        classifier: Classifier,
        images: Images,
        targets: Targets,
        seeds: Seeds,
        samples: int,
        noise: str,
        offset: float,
        spread: float,
    ):
        self._classifier, self._given, self._samples = classifier, images, samples
        self._clean = images.to(classifier.device)
        shape = tuple(images.shape[1:])
        noisy = torch.empty(samples, len(images), *shape, device=classifier.device)
        for draw, of_draw in enumerate(noisy):
            drawn = (draws.uniform if noise == "uniform" else draws.normal)(seeds, "stability", draw, shape)
            # In place: the samples of a batch of photographs take hundreds of megabytes.
            of_draw.copy_(drawn).mul_(spread).add_(offset).mul_(self._std).add_(self._clean)
        self._images, self._targets, self._seeds = noisy.flatten(0, 1), targets.repeat(samples), seeds * samples
        self._own_targets = targets
        self._explained: tuple[Explainer, Maps] | None = None
        self._known: dict[tuple, Tensor] = {}

    def maps(self, explain: Explainer) -> Tensor:
        """Return a method's maps of the samples."""
        if self._explained is None or self._explained[0] is not explain:
            self._explained = None  # evict one method's maps before computing another's
            self._explained = explain, explain(self._classifier, self._images, self._targets, self._seeds)
        return self._by_image(self._explained[1])

    def agree(self) -> Tensor:
        """Return for which samples the prediction equals that of their image."""
        noisy, clean = (
            self._classifier.task.predicted(self._logits(noisy=noisy), self._own_targets) for noisy in (True, False)
        )
        return noisy == clean[:, None]

    def apart(self) -> Tensor:
        """Return the distance ‖x − x'‖₂ of normalized images."""
        return self._once(("apart",), lambda: by_row(self._distance, self._clean, self._by_image(self._images)))

    def logits_apart(self) -> Tensor:
        """Return the distance ‖f(x) − f(x')‖₂ of logits."""
        return by_row(distances, self._logits(noisy=False), self._logits(noisy=True))

    def images_changed(self, floor: float) -> Tensor:
        """Return the relative change of intensities."""

        def make() -> Tensor:
            return by_row(relative(floor), self._clean, self._by_image(self._images))

        return self._once(("images", floor), make)

    def features_changed(self, layer: str, floor: float) -> Tensor:
        """Return the relative change of a layer's activations."""

        def make() -> Tensor:
            clean = self._classifier.features(self._clean, layer)[0]
            noisy, bypass = self._classifier.features(self._images, layer)
            if layer == "final":
                self._once(("logits",), lambda: self._by_image(self._classifier.head(noisy, bypass, layer)))
            return by_row(relative(floor), clean, self._by_image(noisy))

        return self._once((layer, floor), make)

    def normalized_changed(self, nothing: float) -> Tensor:
        """Return ‖(x − x') / x‖₂ of normalized images, values of 0 in the divisor replaced."""

        def change(one: Tensor, noisy: Tensor) -> Tensor:
            mean = self._classifier.mean.view(-1, 1, 1)
            return replaced(nothing)((one - mean) / self._std, (noisy - mean) / self._std)

        return self._once(("normalized", nothing), lambda: by_row(change, self._clean, self._by_image(self._images)))

    @property
    def _std(self) -> Tensor:
        return self._classifier.std.view(-1, 1, 1)

    def _distance(self, one: Tensor, noisy: Tensor) -> Tensor:
        return distances(one / self._std, noisy / self._std)

    def _logits(self, *, noisy: bool) -> Tensor:
        if not noisy:
            return clean_logits(self._classifier, self._given)

        def make() -> Tensor:
            # By way of features, as these may be requested, too: the digits are the same in any batch.
            features = self._classifier.features(self._images, "final")
            return self._by_image(self._classifier.head(*features, "final"))

        return self._once(("logits",), make)

    def _by_image(self, made: Tensor) -> Tensor:
        return made.unflatten(0, (self._samples, -1)).transpose(0, 1)

    def _once(self, key: tuple, make: Callable[[], Tensor]) -> Tensor:
        if key not in self._known:
            self._known[key] = make()
        return self._known[key]


def noisy_samples(
    classifier: Classifier,
    images: Images,
    targets: Targets,
    seeds: Seeds,
    function: str,
    samples: int,
    noise: str,
    scale: float,
) -> NoisySamples:
    """Return the noisy samples of a batch with noise in ± scale, or Gaussian with scale as its standard deviation."""
    check(function, samples, scale=scale)
    return of_noise(classifier, images, targets, seeds, samples, noise, *ends(noise, scale))


def ends(noise: str, scale: float) -> tuple[float, float]:
    """Return the offset and the spread of noise of a scale."""
    return (-scale, 2 * scale) if noise == "uniform" else (0.0, scale)


def of_noise(
    classifier: Classifier,
    images: Images,
    targets: Targets,
    seeds: Seeds,
    samples: int,
    noise: str,
    offset: float,
    spread: float,
) -> NoisySamples:
    """Return the noisy samples of a batch with some noise, shared by entries with the same noise."""
    made = _of_batch(classifier, images, targets, seeds)
    known = samples, noise, offset, spread
    if known not in made:
        made[known] = NoisySamples(classifier, images, targets, seeds, *known)
    return made[known]


@shared(calls=2)  # two calls, as metrics on all images and on fewer alternate
def _of_batch(classifier: Classifier, images: Images, targets: Targets, seeds: Seeds) -> dict[tuple, NoisySamples]:
    """Keep the noisy samples of a batch, by noise, until the next batch."""
    return {}


def check(function: str, samples: int, **above: float) -> None:
    """Reject a number of samples below 1, and other settings that are not above 0.

    Raises:
        ValueError: with the function, the setting, what was got and what is expected.
    """
    at_least(1, function, "samples", samples)
    for setting, value in above.items():
        if not value > 0:
            raise ValueError(f"{function}: {setting} is {value}, expected more than 0")


def distances(one: Tensor, noisy: Tensor) -> Scores:
    """Return the Euclidean distance of every sample from one."""
    return torch.linalg.vector_norm((noisy - one).flatten(1), dim=1)


def relative(floor: float) -> Callable[[Tensor, Tensor], Scores]:
    """Return a function that computes the relative change of every sample: the root mean square of (a' − a) / a.

    A divisor below `floor` times the largest |a| is raised to that. NaN where a is zero everywhere.
    """

    def change(one: Tensor, noisy: Tensor) -> Scores:
        largest = one.abs().max()
        divisor = (one.abs() / largest).clamp(min=floor)
        changes = (noisy - one) / largest / divisor
        return torch.linalg.vector_norm(changes.flatten(1), dim=1) / sqrt(one.numel())

    return change


def replaced(nothing: float) -> Callable[[Tensor, Tensor], Scores]:
    """Return a function that computes ‖(a − a') / a‖₂ of every sample, with zeros in the divisor replaced."""

    def change(one: Tensor, noisy: Tensor) -> Scores:
        changes = (one - noisy) / one.where(one != 0, nothing)
        return torch.linalg.vector_norm(changes.flatten(1), dim=1)

    return change


def settled(changes: Tensor) -> Tensor:
    """Make infinite changes undefined, as they come from a map that is not finite."""
    return changes.where(changes.isfinite(), torch.nan)
