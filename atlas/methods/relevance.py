"""Methods that hand the target's logit down through the layers, each by a rule of its own.

They need a network that can be traced into steps that have a rule: convolutions, linear layers, poolings, activations,
sums, products, normalizations, attention, padding and reshapes. A step without one is named where it is refused.
"""

import sys

import torch
from torch import Tensor

from atlas.methods.shared.fill import color
from atlas.methods.shared.relevance.rescale import Rescaled
from atlas.methods.shared.relevance.rules import ruled
from atlas.model.arrays import Attributions, Images, LayerAttributions, Targets
from atlas.model.classifier import Classifier
from atlas.study.errors import UserError
from atlas.study.schema.types import Color, Layer, Positive

ATTRS = {
    "lrp": {
        "long_name": "LRP",
        "units": "logit",
        "reference": "bach2015pixelwise, kohlbrenner2020towards, arras2017explaining, achtibat2024attnlrp",
    },
    "deep_lift": {
        "long_name": "DeepLIFT",
        "units": "logit",
        "reference": "shrikumar2017learning, lundberg2017unified",
    },
}

FAR = 2.0  # times the logit, or that part of it, beyond which a map's sum is told


def lrp(
    classifier: Classifier, images: Images, targets: Targets, *, epsilon: Positive, layer: Layer
) -> LayerAttributions:
    """Propagate the target's logit down, every layer sharing out what it got by what its inputs contributed.

        Rᵢ = Σⱼ zᵢⱼ / Σₖ zₖⱼ Rⱼ,    z⁺ in convolutions: zᵢⱼ = (xᵢ wᵢⱼ)⁺, in the first: xᵢ wᵢⱼ − lᵢ wᵢⱼ⁺ − hᵢ wᵢⱼ⁻,
                                    in linear layers: zᵢⱼ = xᵢ wᵢⱼ and ε · sign added to the sum

    l and h are black and white, x, l and h as the network sees them. Activations, and factors and layer scales that are
    weights, pass relevance on, maxima give it to the largest element, averages and residual sums split it by the
    summands; batch normalization is folded into the convolutions, or else is one of a pixel and a channel. A bias takes
    its share of relevance, as added weights do, in z⁺ where it is positive, and in the first layer none; what a
    convolution gets where nothing contributes positively is lost.

    Of what a sigmoid multiplies, as in squeeze and excitation, the gate gets nothing and what it lets through all
    (Arras et al. 2017). Elsewhere the rules are those of AttnLRP: two factors, as of attention, get halves, each split
    by its summands; a layer normalization divides by a number; of a softmax s, Rᵢ = xᵢ (Rᵢ − sᵢ Σⱼ Rⱼ).

    Args:
        epsilon: What is added to the sums of linear layers.
        layer: Where relevance is taken.

    Returns:
        Signed attributions in logits. Without biases, and for epsilon → 0, they sum to the logit but for what is lost:
        of a network with ReLU6 nearly all may be, which is told on stderr, once for a classifier, where a map sums to
        less than half or more than twice the logit. The metric `kept_share` has the share of every map.
        On a linear classifier: (x − mean) · ∇f(x), up to epsilon.

    Raises:
        Unsupported: the network cannot be traced, or has a step without a rule.

    Differs from the paper: its later composite of one rule per kind of layer. Sums that all but vanish, as they may
    where a residual sum cancels, are held from 0 by 1e-6.
    """
    if not epsilon > 0:
        raise UserError(f"lrp: the setting 'epsilon' is {epsilon}, expected above 0")
    network = ruled(classifier, epsilon, layer, tuple(images.shape[1:]))
    kept: list[Tensor] = []

    def propagate(activations: Tensor, classes: Tensor) -> tuple[Tensor, Tensor]:
        entering = activations.detach().requires_grad_()
        logits = network.run(entering)
        start = torch.zeros_like(logits).scatter(1, classes[:, None], logits.gather(1, classes[:, None]))
        (relevance,) = torch.autograd.grad(logits, entering, start.detach())
        kept.append(relevance.flatten(1).double().sum(1) / start.detach().sum(1))
        return logits.detach(), relevance

    found = classifier.propagated(propagate, images, targets, layer=layer, forward=1, backward=1)
    _tell(classifier, layer, epsilon, torch.cat(kept)[: len(images)])
    return found


def _tell(classifier: Classifier, layer: str, epsilon: float, kept: Tensor) -> None:
    """Warn, once for a classifier, that maps sum to another number than the logit."""
    asked, apart = ("lrp", layer, epsilon), (kept < 1 / FAR) | (kept > FAR)
    if asked not in classifier.found and apart.any():
        classifier.found[asked] = True
        low, middle, high = (f"{100 * share:.2g} %" for share in (kept.min(), kept.median(), kept.max()))
        told = f"lrp keeps {middle} of the logit (median of {len(kept)} maps, which keep {low} to {high})"
        print(f"warning: classifier {classifier.name}: {told}: its maps share out that much of it", file=sys.stderr)


def deep_lift(classifier: Classifier, images: Images, targets: Targets, *, baseline: Color) -> Attributions:
    """Share out the logit's change from a baseline by the changes of what enters every layer.

        A = (x − b) · m,    m the chain of multipliers: weights, and Δout / Δin of every activation (rescale rule)

    A product's change is shared by its Shapley values: Δ(uv) = Δu · (v + v₀)/2 + Δv · (u + u₀)/2, as of a gate, or of
    attention. Layer normalization and softmax are what they are made of: products, means, powers of e and inverses.

    The change of a maximum is shared among its window by the Shapley values of the maximum (Max SHAP of Lundberg and
    Lee 2017), so that equal elements, as a baseline of one color has them everywhere, share equally, and rounding
    decides nothing. Where Δin is 0 the slope stands for Δout / Δin.

    Args:
        baseline: What stands for an absent image.

    Returns:
        Signed attributions in logits. They sum to f(x) − f(b). On a linear classifier: (x − b) · ∇f(x).

    Raises:
        Unsupported: the network cannot be traced, or has a step without a rule.

    Differs from the paper, which has no rule for maxima; and from captum, which gives their change to the largest
    elements of image and baseline, of equal ones to the first, loses a part of it, and remembers only one call of a
    layer.
    """
    rescaled = Rescaled(classifier.graph("input"))
    start = color(classifier, baseline)

    def propagate(entering: Tensor, classes: Tensor) -> tuple[Tensor, Tensor]:
        absent = classifier.normalized(start.expand_as(entering))
        referred = rescaled.reference(absent)
        entering = entering.detach().requires_grad_()
        logits = rescaled.run(entering)
        (multipliers,) = torch.autograd.grad(logits.gather(1, classes[:, None]).sum(), entering)
        return torch.stack([logits.detach(), referred]), (entering.detach() - absent) * multipliers

    return classifier.propagated(propagate, images, targets, layer="input", forward=2, backward=1)
