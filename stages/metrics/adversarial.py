"""Judge a map by how fast it undoes an adversarial attack."""

from typing import NamedTuple

from torch import Tensor

from stages.arrays import Curves, Images, Maps, Seeds, Targets
from stages.classifier import Classifier
from stages.memory import shared
from stages.metrics._curves import End, switching_curves
from stages.metrics._rows import at_least

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
    steps: int,
    epsilon: int,
) -> Curves:
    """Attack the image, undo the attack at the pixels of highest attribution first, record the target's probability.

        x* = clip(x + epsilon sign(d L / d x), 0, 255), L the cross-entropy of the target
        s_k = p(x* with its first round(k HW / K) pixels set to those of x), k = 0 ... K

    x and x* are whole grey levels, 0 to 255: the perturbation is invisible, and of one strength everywhere but where
    a channel is saturated or its gradient is exactly 0. No pixel is ever replaced by a color that the image lacks.
    Equal attributions are ordered by a random key of the image.

    Args:
        steps: K, the intervals of the curve.
        epsilon: Strength of the attack in grey levels of 255; the paper's is 1.

    Returns:
        Probabilities, 0 to 1; a high area under the curve is better: the pixels that matter bring the class back
        early. The curve runs from p(x*) to p(x).

    Undefined where the attack leaves the predicted class as it was (the same images for every map), and where the
    map is not finite.

    Differs from the paper: none known; its number of steps is not stated. The iterated attack is not offered.
    """
    at_least(1, "perturbation", "epsilon", epsilon)
    attack = _attack(classifier, images, targets, epsilon)
    ends = attack.attacked, attack.clean
    return switching_curves(classifier, maps, targets, seeds, *ends, steps, attack.succeeded)


@shared(calls=4)  # entries of several strengths take turns
def _attack(classifier: Classifier, images: Tensor, targets: Tensor, epsilon: int) -> Attack:
    targets = targets.to(classifier.device)
    levels = (images.to(classifier.device) * 255).round()
    clean = levels / 255
    direction = classifier.gradient(clean, targets, "loss").sign()
    attacked = (levels + epsilon * direction).clamp(0, 255) / 255
    before, after = classifier.probabilities(attacked), classifier.probabilities(clean)
    return Attack(
        End(attacked, before.gather(1, targets[:, None])[:, 0]),
        End(clean, after.gather(1, targets[:, None])[:, 0]),
        before.argmax(dim=1) != after.argmax(dim=1),
    )
