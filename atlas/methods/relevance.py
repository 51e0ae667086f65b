"""Methods that propagate the target's logit down through the layers, with a rule for each kind of layer.

They need a network that can be traced into steps with known rules: convolutions, linear layers, poolings, activations,
sums, products, normalizations, attention, padding and reshapes. A step without a rule is named in the refusal.
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

FAR = 2.0  # ratio of a map's sum to the logit, or its inverse, from which a warning is printed


def lrp(
    classifier: Classifier, images: Images, targets: Targets, *, epsilon: Positive, layer: Layer
) -> LayerAttributions:
    """Propagate the target's logit down: every layer distributes its relevance by the contributions of its inputs.

        Rᵢ = Σⱼ zᵢⱼ / Σₖ zₖⱼ Rⱼ,    z⁺ in convolutions: zᵢⱼ = (xᵢ wᵢⱼ)⁺, in the first: xᵢ wᵢⱼ − lᵢ wᵢⱼ⁺ − hᵢ wᵢⱼ⁻,
                                    in linear layers: zᵢⱼ = xᵢ wᵢⱼ and ε · sign added to the sum

    l and h are black and white; x, l and h are normalized. Activations, and multiplication by weights (factors and
    layer scales), pass relevance on, maxima give it to the largest element, averages and residual sums split it by
    their summands; batch normalization is fused into the convolutions, or else counts as a convolution of one pixel and
    channel. A bias gets its share of relevance, as do added weights; in z⁺ only if it is positive, and in the first
    layer none. Relevance that reaches a convolution output without positive contributions is lost.

    If a sigmoid multiplies a value, as in squeeze and excitation, the gate gets nothing and the value gets everything
    (Arras et al. 2017). The other rules are those of AttnLRP: two factors, as in attention, get halves, each split by
    its summands; a layer normalization counts as division by a constant; for a softmax s, Rᵢ = xᵢ (Rᵢ − sᵢ Σⱼ Rⱼ).

    Args:
        epsilon: The number added to the sums of linear layers.
        layer: The layer at which relevance is taken.

    Returns:
        Signed attributions in logits. Without biases, and for epsilon → 0, they sum to the logit except for losses. A
        network with ReLU6 may lose nearly all; a warning is printed to stderr, once per classifier, if a map sums to
        less than half or more than twice the logit. The metric `kept_share` has the share of every map. On a linear
        classifier: (x − mean) · ∇f(x), up to epsilon.

    Raises:
        Unsupported: the network cannot be traced, or has a step without a rule.

    Differs from the paper: the later composite, with one rule per kind of layer. Sums that nearly vanish, as where a
    residual sum cancels, are kept away from 0 by 1e-6.
    """
    if not epsilon > 0:
        raise UserError(f"lrp: the setting 'epsilon' is {epsilon}, expected above 0")
    network = ruled(classifier, epsilon, layer, tuple(images.shape[1:]))
    shares: list[Tensor] = []

    def propagate(activations: Tensor, classes: Tensor) -> tuple[Tensor, Tensor]:
        entering = activations.detach().requires_grad_()
        logits = network.run(entering)
        start = torch.zeros_like(logits).scatter(1, classes[:, None], logits.gather(1, classes[:, None]))
        (relevance,) = torch.autograd.grad(logits, entering, start.detach())
        shares.append(relevance.flatten(1).double().sum(1) / start.detach().sum(1))
        return logits.detach(), relevance

    found = classifier.propagated(propagate, images, targets, layer=layer, forward=1, backward=1)
    _warn_of_loss(classifier, layer, epsilon, torch.cat(shares)[: len(images)])
    return found


def _warn_of_loss(classifier: Classifier, layer: str, epsilon: float, shares: Tensor) -> None:
    """Print a warning, once per classifier, that maps sum to something other than the logit."""
    asked, apart = ("lrp", layer, epsilon), (shares < 1 / FAR) | (shares > FAR)
    if asked not in classifier.found and apart.any():
        classifier.found[asked] = True
        low, middle, high = (f"{100 * share + 0.0:.2g} %" for share in (shares.min(), shares.median(), shares.max()))
        message = f"lrp keeps {middle} of the logit (median of {len(shares)} maps, which keep {low} to {high})"
        print(f"warning: classifier {classifier.name}: {message}: its maps share out that much of it", file=sys.stderr)


def deep_lift(classifier: Classifier, images: Images, targets: Targets, *, baseline: Color) -> Attributions:
    """Distribute the change of the logit from a baseline over the changes of every layer's inputs.

        A = (x − b) · m,    m the chain of multipliers: weights, and Δout / Δin of every activation (rescale rule)

    A product's change is shared by its Shapley values: Δ(uv) = Δu · (v + v₀)/2 + Δv · (u + u₀)/2, for instance for a
    gate or attention. Layer normalization and softmax are decomposed into products, means, exponentials and inverses.

    The change of a maximum is shared among its window by the Shapley values of the maximum (Max SHAP of Lundberg and
    Lee 2017). So equal elements, which are everywhere in a baseline of one color, share equally, and rounding decides
    nothing. Where Δin is 0, the slope replaces Δout / Δin.

    Args:
        baseline: What stands for an absent image.

    Returns:
        Signed attributions in logits. They sum to f(x) − f(b). On a linear classifier: (x − b) · ∇f(x).

    Raises:
        Unsupported: the network cannot be traced, or has a step without a rule.

    Differs from the paper, which has no rule for maxima; and from captum, which gives their change to the largest
    elements of image and baseline (of equal ones to the first), loses a part of it, and remembers only one call of a
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
