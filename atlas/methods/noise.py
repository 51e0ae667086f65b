"""Methods that look at the gradients of noisy copies of an image."""

from typing import Literal

from atlas.methods.shared.guide import check_guide, guide
from atlas.methods.shared.noise import by_normalized, noisy_gradients
from atlas.model.arrays import Attributions, Images, Seeds, Targets
from atlas.model.classifier import Classifier
from atlas.study.errors import UserError
from atlas.study.schema.types import Count, Extent, Floor, Output, Percentile, Several, Sign, Spread

ATTRS = {
    "smoothgrad": {
        "long_name": "SmoothGrad",
        "units": "logit / intensity",
        "reference": "smilkov2017smoothgrad",
    },
    "smoothgrad_squared": {
        "long_name": "SmoothGrad, squared",
        "units": "logit² / intensity²",
        "reference": "hooker2019benchmark",
    },
    "vargrad": {
        "long_name": "VarGrad",
        "units": "logit² / intensity²",
        "reference": "adebayo2018local",
    },
    "gag": {
        "long_name": "Guided AbsoluteGrad",
        "units": "logit / intensity",
        "reference": "huang2024guided",
    },
}


def smoothgrad(
    classifier: Classifier,
    images: Images,
    targets: Targets,
    seeds: Seeds,
    *,
    samples: Count,
    spread: Spread,
    extent: Extent,
    output: Output,
    sign: Sign,
) -> Attributions:
    """Average the gradient over noisy copies of the image.

        A = (1/n) Σₛ ∇f(x + εₛ),    εₛ ~ N(0, (spread · (max x − min x))²)

    Args:
        samples: Noisy copies n.
        sign: Of gradients of a copy, before they are averaged.

    Returns:
        Signed attributions in the output's unit per unit of intensity. Without spread this is the gradient.

    Differs from common code: PAIR's default averages squares (`smoothgrad_squared`); the Guided AbsoluteGrad code
    takes the range of the whole batch, which is no one image's (`extent: batch`).
    """
    return noisy_gradients(classifier, images, targets, seeds, samples, spread, extent, output).signed(sign)


def smoothgrad_squared(
    classifier: Classifier,
    images: Images,
    targets: Targets,
    seeds: Seeds,
    *,
    samples: Count,
    spread: Spread,
    extent: Extent,
    output: Output,
) -> Attributions:
    """Average the squared gradient over noisy copies of the image.

        A = (1/n) Σₛ gₛ²,    gₛ the gradients that SmoothGrad averages

    Args:
        samples: Noisy copies n.

    Returns:
        Attributions of at least 0, in squared logits per unit of intensity.

    Differs from the paper: none (Hooker et al. 2019); it is the default of PAIR's SmoothGrad.
    """
    return noisy_gradients(classifier, images, targets, seeds, samples, spread, extent, output).square


def vargrad(
    classifier: Classifier,
    images: Images,
    targets: Targets,
    seeds: Seeds,
    *,
    samples: Several,
    spread: Spread,
    extent: Extent,
    output: Output,
) -> Attributions:
    """Take the variance of the gradient over noisy copies of the image.

        A = (1/(n − 1)) Σₛ (gₛ − ḡ)²,    gₛ the gradients that SmoothGrad averages

    Args:
        samples: Noisy copies n.

    Returns:
        Attributions of at least 0. Without spread, and by its own extent for an image of one color, they are 0.
    """
    if samples < 2:
        raise UserError(f"vargrad: the setting 'samples' is {samples}, expected at least 2: it takes a variance")
    return noisy_gradients(classifier, images, targets, seeds, samples, spread, extent, output).variance


def gag(
    classifier: Classifier,
    images: Images,
    targets: Targets,
    seeds: Seeds,
    *,
    samples: Count,
    spread: Spread,
    extent: Extent,
    output: Output,
    sign: Literal["both", "absolute"],
    percentile: Percentile,
    floor: Floor,
) -> Attributions:
    """Average absolute gradients over noisy copies, guided by where their variance is large.

        A = W · (1/n) Σₛ |gₛ|,    W = 1 where V > q, else floor(V)

    V is the variance of VarGrad, q its percentile over the pixels of an image's channel.

    Args:
        samples: Noisy copies n, at least 2 where percentile is above 0.
        sign: `absolute` averages absolute gradients, the method; `both` averages the gradients themselves, its authors'
            variant G of SmoothGrad.

    Returns:
        Attributions in the output's unit per unit of intensity, of at least 0 where gradients are absolute. Where
        all noisy copies are alike, as by its own extent for an image of one color, they are 0 unless percentile is 0.

    Differs from the authors' code: a mean where it sums, so that samples does not scale the map; gradients are by
    intensity, but the floor `raw` is, as the code's, the variance of those by the normalized image. It depends on the
    scale of the logits. The code's range is that of the whole batch (`extent: batch`, where photographs are the batch).
    """
    check_guide("gag", percentile, "samples", samples)
    moments = noisy_gradients(classifier, images, targets, seeds, samples, spread, extent, output)
    mean = moments.signed(sign)
    return mean if percentile == 0 else guide(by_normalized(classifier, moments.variance), percentile, floor) * mean
