"""Methods that use the gradients of noisy samples of an image."""

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
    """Average the gradient over noisy samples of the image.

        A = (1/n) Σₛ ∇f(x + εₛ),    εₛ ~ N(0, (spread · (max x − min x))²)

    Args:
        samples: Number n of noisy samples.
        sign: Which gradients of a sample count, before averaging.

    Returns:
        Signed attributions in the output's unit per unit of intensity. Without spread this is the gradient.

    Differs from common code: PAIR's default averages squares (`smoothgrad_squared`); the Guided AbsoluteGrad code uses
    the range of the whole batch, which differs from that of each image (`extent: batch`).
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
    """Average the squared gradient over noisy samples of the image.

        A = (1/n) Σₛ gₛ²,    gₛ the gradients that SmoothGrad averages

    Args:
        samples: Number n of noisy samples.

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
    """Take the variance of the gradient over noisy samples of the image.

        A = (1/(n − 1)) Σₛ (gₛ − ḡ)²,    gₛ the gradients that SmoothGrad averages

    Args:
        samples: Number n of noisy samples.

    Returns:
        Attributions of at least 0. They are 0 without noise, and with an image's own extent if it has a single color.
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
    """Average absolute gradients over noisy samples, guided by where their variance is large.

        A = W · (1/n) Σₛ |gₛ|,    W = 1 where V > q, else floor(V)

    V is the variance of VarGrad, q its percentile over the pixels of an image's channel.

    Args:
        samples: Number n of noisy samples, at least 2 if percentile is above 0.
        sign: `absolute` averages absolute gradients, which is the method; `both` averages the gradients themselves, its
            authors' variant G of SmoothGrad.

    Returns:
        Attributions in the output's unit per unit of intensity, at least 0 if gradients are absolute. If all noisy
        samples are equal, as with the own extent of an image of a single color, they are 0 unless percentile is 0.

    Differs from the authors' code: it takes a mean instead of a sum, so that samples does not scale the map. Gradients
    are with respect to intensities, but the floor `raw` is, as in the code, the variance of those with respect to the
    normalized image; so it depends on the scale of the logits. The original uses the whole batch's range
    (`extent: batch`, for which photographs stand for the batch).
    """
    check_guide("gag", percentile, "samples", samples)
    moments = noisy_gradients(classifier, images, targets, seeds, samples, spread, extent, output)
    mean = moments.signed(sign)
    return mean if percentile == 0 else guide(by_normalized(classifier, moments.variance), percentile, floor) * mean
