"""Score a map by how fast it undoes an adversarial attack."""

from typing import Annotated, NamedTuple

from torch import Tensor

from atlas.metrics.shared.curves import End, clean, end, switching_curves
from atlas.metrics.shared.rows import at_least
from atlas.model.arrays import Curves, Images, Maps, Seeds, Targets
from atlas.model.batch_cache import shared
from atlas.model.classifier import Classifier
from atlas.study.schema.types import Count, Range

ATTRS = {
    "perturbation": {
        "long_name": "Perturbation",
        "units": "probability",
        "reference": "nieradzik2024reliable",
        "better": "higher",
        "dim": "fraction",
        "summary": "area",
    },
}


class Attack(NamedTuple):
    """An attack on a batch: the attacked and the clean images, and where the predicted class changed."""

    attacked: End
    clean: End
    succeeded: Tensor


def perturbation(
    maps: Maps,
    images: Images,
    targets: Targets,
    classifier: Classifier,
    seeds: Seeds,
    *,
    pixels: Count,
    epsilon: Annotated[int, Range(1, 255)],
    iterations: Count,
    step: Count,
) -> Curves:
    """Attack the image, undo the attack at the pixels of highest attribution first, record the target's probability.

        x* = clip(x + d), d = clip(d + step sign(dL / dx), -epsilon, epsilon), repeated, from d = 0
        s_k = p(x* with its first min(k n, HW) pixels set to those of x), k = 0 ... ceil(HW / n)

    L is the cross-entropy of the target. x and x* are whole grey levels, 0 to 255: the perturbation is invisible, and
    equally strong everywhere except where a channel is saturated or its gradient is exactly 0. No pixel is ever
    replaced by a color that the image does not have. Equal attributions are ordered by a random key of the image.

    Args:
        pixels: n, exchanged at each step.
        epsilon: Strength of the attack in grey levels of 255; the paper's is 1.
        iterations: Steps of the attack; an image whose predicted class has changed is not attacked further. One step is
            the fast gradient sign method, more are projected gradient descent (without a random start).
        step: Grey levels per step of the attack: epsilon for the fast gradient sign method; from twice epsilon on, the
            perturbation is equally strong everywhere after more steps, too.

    Returns:
        Probabilities, 0 to 1; a high area under the curve is better: the pixels that matter restore the class early.
        The curve runs from p(x*) to p(x).

    Undefined where the attack does not change the predicted class (the same images for every map, so that the count of
    the others is the attack's success), and where the map is not finite.

    Differs from the paper: none known; it does not state the numbers of pixels per step and of iterations.
    """
    for setting, value in {"epsilon": epsilon, "iterations": iterations, "step": step}.items():
        at_least(1, "perturbation", setting, value)
    attacks, kind = _attacks(classifier, images, targets), (epsilon, iterations, step)
    if kind not in attacks:
        attacks[kind] = _attack(classifier, images, targets, *kind)
    ends = attacks[kind].attacked, attacks[kind].clean
    return switching_curves(classifier, maps, targets, seeds, *ends, pixels, attacks[kind].succeeded)


@shared(calls=2)  # two calls, as metrics on all images and on fewer alternate
def _attacks(classifier: Classifier, images: Tensor, targets: Tensor) -> dict[tuple[int, int, int], Attack]:
    """Keep the attacks on a batch, by strength, until the next batch."""
    return {}


def _attack(
    classifier: Classifier, images: Tensor, targets: Tensor, epsilon: int, iterations: int, step: int
) -> Attack:
    whole, targets = clean(classifier, images, targets), targets.to(classifier.device)
    levels = (whole.images * 255).round()
    attacked, found = levels.clone(), End(*(part.clone() for part in whole))
    for _ in range(iterations):
        left = (found.predicted == whole.predicted).nonzero().flatten()
        if not len(left):
            break
        direction = classifier.gradient(attacked[left] / 255, targets[left], "loss").sign()
        moved = (attacked[left] + step * direction).clamp(levels[left] - epsilon, levels[left] + epsilon)
        attacked[left] = moved.clamp(0, 255)
        for part, changed in zip(found, end(classifier, attacked[left] / 255, targets[left]), strict=True):
            part[left] = changed
    return Attack(found, whole, found.predicted != whole.predicted)
