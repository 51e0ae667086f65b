"""DeepLIFT's rescale rule: differences to a reference in place of slopes, at every nonlinear step."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.fx import GraphModule, Node

from atlas.methods.shared.relevance.graph import Steps, normalization
from atlas.methods.shared.relevance.maximum import multipliers, windows

# Relative to the larger magnitude: closer to the reference than this, the slope is used, which avoids rounding errors.
NEAR = 1e-6


class Rescaled(Steps):
    """Run a traced network at a reference, then at images; the gradients of the second run are DeepLIFT's multipliers.

    The inputs of a step at the reference are remembered per call, so a layer may be called more than once.

    Raises:
        Unsupported: the network has a step without a rule.
    """

    def __init__(self, graph: GraphModule):
        super().__init__(graph)
        self.reference_inputs: dict[Node, list[Tensor]] = {}

    def reference(self, images: Tensor) -> Tensor:
        """Return the logits of the reference, and remember the inputs of every step."""
        self.reference_inputs = {}
        with torch.no_grad():
            return self.run(images)

    def run_node(self, node: Node) -> Any:
        """Run one step: unchanged for the reference, by its rule for images."""
        rule = RULES.get(self.kinds[node])
        if rule is None:
            return super().run_node(node)
        given = [self.env[source] for source in self.given(node)]
        if not torch.is_grad_enabled():
            self.reference_inputs[node] = given
            return super().run_node(node)
        return rule(self, node, *given, *self.reference_inputs[node])


def _activation(steps: Steps, node: Node, entering: Tensor, reference: Tensor) -> Tensor:
    return _Activation.apply(entering, reference, steps.function(node))


def _maximum(steps: Steps, node: Node, entering: Tensor, reference: Tensor) -> Tensor:
    return _Maximum.apply(entering, reference, steps.pooling(node))


def _product(steps: Steps, node: Node, *given: Tensor) -> Tensor:
    return _multiplied(steps.function(node), *given)


def _softmax(steps: Steps, node: Node, entering: Tensor, reference: Tensor) -> Tensor:
    """Distribute by the steps of eˣ / Σ eˣ. A constant subtracted from x before does not affect the softmax."""
    dim = steps.dimension(node)
    middle = (entering.detach().amax(dim, keepdim=True) + reference.amax(dim, keepdim=True)) / 2
    powers, referred = _Activation.apply(entering - middle, reference - middle, torch.exp), (reference - middle).exp()
    total, total_referred = powers.sum(dim, keepdim=True), referred.sum(dim, keepdim=True)
    inverse = _Activation.apply(total, total_referred, torch.reciprocal)
    return _multiplied(torch.mul, powers, inverse, referred, total_referred.reciprocal())


def _layer_norm(steps: Steps, node: Node, entering: Tensor, reference: Tensor) -> Tensor:
    """Distribute by the steps of (x − mean) · (mean of (x − mean)² + ε)^(−½)."""
    dims, weight, bias, epsilon = normalization(steps, node)
    centered, referred = (part - part.mean(dims, keepdim=True) for part in (entering, reference))
    squares = _multiplied(torch.mul, centered, centered, referred, referred)
    variance, variance_referred = squares.mean(dims, keepdim=True), (referred**2).mean(dims, keepdim=True)
    scale = _Activation.apply(variance + epsilon, variance_referred + epsilon, torch.rsqrt)
    found = _multiplied(torch.mul, centered, scale, referred, (variance_referred + epsilon).rsqrt())
    found = found if weight is None else found * weight
    return found if bias is None else found + bias


RULES: dict[str, Callable[..., Tensor]] = {
    "activation": _activation,
    "maximum": _maximum,
    "product": _product,
    "softmax": _softmax,
    "layer_norm": _layer_norm,
}


def _multiplied(function: Callable[..., Tensor], one: Tensor, other: Tensor, *referred: Tensor) -> Tensor:
    """Multiply: Δ(xy) = Δx · (y + y₀) / 2 + Δy · (x + x₀) / 2, the Shapley values, with half of Δx Δy each."""
    one_mean, other_mean = ((new.detach() + old) / 2 for new, old in zip((one, other), referred, strict=True))
    value = function(one.detach(), other.detach())
    return _Valued.apply(value, function(one, other_mean) + function(one_mean, other))


class _Valued(torch.autograd.Function):
    """Return a value, but pass down the gradient of another tensor of that shape."""

    @staticmethod
    def forward(ctx: Any, value: Tensor, slopes: Tensor) -> Tensor:
        return value.clone()

    @staticmethod
    def backward(ctx: Any, above: Tensor) -> tuple[None, Tensor]:
        return None, above


class _Rule(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, entering: Tensor, reference: Tensor, layer: Callable[[Tensor], Tensor]) -> Tensor:
        ctx.save_for_backward(entering, reference)
        ctx.layer = layer
        return layer(entering)


class _Activation(_Rule):
    """Multiply by Δout / Δin."""

    @staticmethod
    def backward(ctx: Any, above: Tensor) -> tuple[Tensor, None, None]:
        entering, reference = ctx.saved_tensors
        outer, slope = _pulled(ctx.layer, entering, above)
        change = entering - reference
        multiplied = above * (outer - ctx.layer(reference)) / change
        near = change.abs() <= NEAR * torch.maximum(entering.abs(), reference.abs())
        return torch.where(near, slope, multiplied), None, None


class _Maximum(_Rule):
    """Distribute a window's change among its elements by their Shapley values, image by image, to save memory."""

    @staticmethod
    def backward(ctx: Any, above: Tensor) -> tuple[Tensor, None, None]:
        return (
            torch.stack([_shared(ctx.layer, *rows) for rows in zip(*ctx.saved_tensors, above, strict=True)]),
            None,
            None,
        )


def _shared(layer: nn.MaxPool2d, entering: Tensor, reference: Tensor, above: Tensor) -> Tensor:
    beyond = float(torch.minimum(entering, reference).min())
    with torch.enable_grad():
        point = entering.detach().requires_grad_()
        laid = windows(layer, point, above.shape[-2:], beyond)
    referred = windows(layer, reference, above.shape[-2:], beyond)
    shares = multipliers(*(part.detach().flatten(0, 2) for part in (laid, referred)))
    return torch.autograd.grad(laid, point, shares.view_as(laid) * above[..., None])[0]


def _pulled(layer: Callable[[Tensor], Tensor], entering: Tensor, above: Tensor) -> tuple[Tensor, Tensor]:
    """Return a layer's output and the gradient of its input."""
    with torch.enable_grad():
        point = entering.detach().requires_grad_()
        outer = layer(point)
    (below,) = torch.autograd.grad(outer, point, above)
    return outer.detach(), below
