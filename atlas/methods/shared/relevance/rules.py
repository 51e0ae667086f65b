"""Layer-wise relevance propagation: a rule for every step of a traced network."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.fx import GraphModule, Node

from atlas.methods.shared.relevance.graph import Steps, normalization
from atlas.model.batch_cache import shared
from atlas.model.batches import summed
from atlas.model.classifier import Classifier

# Kinds of steps for which the bounds of the input give those of the output.
BOXED = ("shape", "normalization", "scale", "shift", "sum", "average", "maximum", "activation")
LEAST = 1e-6  # added to the magnitude of divisors

Function = Callable[..., Tensor]


@shared(lasting=True)
def ruled(classifier: Classifier, epsilon: float, layer: str, shape: tuple[int, ...]) -> "Propagated":
    """Return the network after a layer with a rule for every step. It is traced only once.

    Raises:
        Unsupported: the network cannot be traced, or has a step without a rule.
    """
    bounds = [classifier.normalized(torch.full_like(classifier.mean, end).view(1, -1, 1, 1)) for end in (0.0, 1.0)]
    return Propagated(classifier.graph(layer, shape), epsilon, bounds if layer == "input" else [])


class Propagated(Steps):
    """Run a traced network whose backward pass propagates relevance instead of gradients.

    Args:
        graph: The network.
        epsilon: The number added to the sums of linear layers.
        bounds: Black and white, normalized, if the network begins with images.

    Raises:
        Unsupported: the network has a step without a rule.
    """

    def __init__(self, graph: GraphModule, epsilon: float, bounds: list[Tensor]):
        super().__init__(graph)
        self.epsilon, self.bounds = epsilon, bounds
        self.boxes: dict[Node, list[Tensor]] = {}  # bounds of values before the first weights

    def run_node(self, node: Node) -> Any:
        """Run one step by its rule."""
        sources, kind = self.given(node), self.kinds[node]
        if node.op == "placeholder":
            found = super().run_node(node)
            self.boxes = {node: [bound.expand_as(found) for bound in self.bounds]} if self.bounds else {}
            return found
        boxed = bool(sources) and kind in BOXED and all(source in self.boxes for source in sources)
        if boxed:
            boxes = zip(*(self.boxes[source] for source in sources), strict=True)
            ends = [self.function(node)(*box) for box in boxes]
            if all(isinstance(end, Tensor) for end in ends):
                self.boxes[node] = [torch.minimum(*ends), torch.maximum(*ends)]
        if kind not in RULES:
            return super().run_node(node)
        # If images are normalized again inside the network, the first convolution's bounds account for that.
        rule = _passed if boxed and kind in ("shift", "scale", "normalization") else RULES[kind]
        return rule(self, node, *(self.env[source] for source in sources))


def _convolution(steps: Propagated, node: Node, entering: Tensor) -> Tensor:
    layer = steps.layer(node)
    box = steps.boxes.get(steps.given(node)[0])
    return _Plus.apply(layer, entering) if box is None else _Box.apply(layer, entering, *box)


def _normalization(steps: Propagated, node: Node, entering: Tensor) -> Tensor:
    """Treat a batch normalization that is not fused as a convolution of one pixel, channel by channel."""
    function, channels = steps.function(node), entering.shape[1]
    ends = function(entering.new_tensor([0.0, 1.0]).view(2, 1, 1, 1).expand(2, channels, 1, 1))[..., 0, 0]
    layer = nn.Conv2d(channels, channels, 1, groups=channels, device="meta")
    weight, layer.bias = (ends[1] - ends[0]).view(-1, 1, 1, 1), nn.Parameter(ends[0], requires_grad=False)
    layer.weight = nn.Parameter(weight, requires_grad=False)
    return _Plus.apply(layer, entering)


def _linear(steps: Propagated, node: Node, entering: Tensor) -> Tensor:
    return _Shares.apply(steps.function(node), steps.epsilon, 1, entering)


def _summed(steps: Propagated, node: Node, *given: Tensor) -> Tensor:
    return _Shares.apply(steps.function(node), LEAST, 1, *given)


def _passed(steps: Propagated, node: Node, entering: Tensor) -> Tensor:
    return _Passed.apply(steps.function(node), entering)


def _product(steps: Propagated, node: Node, *given: Tensor) -> Tensor:
    """Pass all relevance to the value behind a gate; give two factors without a gate halves."""
    function, gate = steps.function(node), steps.gate(node)
    if gate is None:
        return _Shares.apply(function, LEAST, 2, *given)
    closed = given[gate].detach()
    through = (lambda signal: function(closed, signal)) if gate == 0 else (lambda signal: function(signal, closed))
    return _Passed.apply(through, given[1 - gate])


def _softmax(steps: Propagated, node: Node, entering: Tensor) -> Tensor:
    return _Softmax.apply(steps.function(node), steps.dimension(node), entering)


def _layer_norm(steps: Propagated, node: Node, entering: Tensor) -> Tensor:
    """Treat the deviation that is divided by as a constant."""
    dims, weight, bias, epsilon = normalization(steps, node)
    deviation = (entering.detach().var(dims, keepdim=True, unbiased=False) + epsilon).sqrt()

    def of(tokens: Tensor) -> Tensor:
        found = (tokens - tokens.mean(dims, keepdim=True)) / deviation
        found = found if weight is None else found * weight
        return found if bias is None else found + bias

    return _Shares.apply(of, LEAST, 1, entering)


RULES: dict[str, Function] = {
    "convolution": _convolution,
    "normalization": _normalization,
    "linear": _linear,
    **dict.fromkeys(("average", "sum", "shift"), _summed),
    **dict.fromkeys(("activation", "scale"), _passed),
    "product": _product,
    "softmax": _softmax,
    "layer_norm": _layer_norm,
}


class _Shares(torch.autograd.Function):
    """Distribute by each input's contribution to the sums that a function is: zᵢ / (Σ z + bias) of 1 / divisor."""

    @staticmethod
    def forward(ctx: Any, function: Function, least: float, divisor: int, *entering: Tensor) -> Tensor:
        ctx.save_for_backward(*entering)
        ctx.function, ctx.least, ctx.divisor = function, least, divisor
        return function(*entering)

    @staticmethod
    def backward(ctx: Any, above: Tensor) -> tuple[Tensor | None, ...]:
        points, out = _run(ctx.function, *ctx.saved_tensors)
        return None, None, None, *_down(out, points, above / (ctx.divisor * _stabilized(out.detach(), ctx.least)))


class _Plus(torch.autograd.Function):
    """Distribute by the positive contributions to a convolution."""

    @staticmethod
    def forward(ctx: Any, layer: nn.Conv2d, entering: Tensor) -> Tensor:
        ctx.save_for_backward(entering)
        ctx.layer = layer
        return layer(entering)

    @staticmethod
    def backward(ctx: Any, above: Tensor) -> tuple[None, Tensor]:
        (entering,) = ctx.saved_tensors
        weight, bias = ctx.layer.weight, ctx.layer.bias
        parts = [_run(_weighted(ctx.layer, weight.clamp(min=0), bias), entering.clamp(min=0))]
        if (entering < 0).any():
            parts.append(_run(_weighted(ctx.layer, weight.clamp(max=0), None), entering.clamp(max=0)))
        shares = above / _stabilized(summed(out.detach() for _, out in parts), LEAST)
        return None, summed(_down(out, points, shares)[0] for points, out in parts)


class _Box(torch.autograd.Function):
    """Distribute by x w − l w⁺ − h w⁻, where x lies between l and h."""

    @staticmethod
    def forward(ctx: Any, layer: nn.Conv2d, entering: Tensor, low: Tensor, high: Tensor) -> Tensor:
        ctx.save_for_backward(entering, low, high)
        ctx.layer = layer
        return layer(entering)

    @staticmethod
    def backward(ctx: Any, above: Tensor) -> tuple[Tensor | None, ...]:
        weight = ctx.layer.weight
        weights = weight, -weight.clamp(min=0), -weight.clamp(max=0)
        parts = [
            _run(_weighted(ctx.layer, part, None), given)
            for part, given in zip(weights, ctx.saved_tensors, strict=True)
        ]
        shares = above / _stabilized(summed(out.detach() for _, out in parts), LEAST)
        return None, summed(_down(out, points, shares)[0] for points, out in parts), None, None


class _Passed(torch.autograd.Function):
    """Pass relevance on unchanged; if the input was repeated, as the sum over its copies."""

    @staticmethod
    def forward(ctx: Any, function: Function, entering: Tensor) -> Tensor:
        ctx.shape = entering.shape
        return function(entering)

    @staticmethod
    def backward(ctx: Any, above: Tensor) -> tuple[None, Tensor]:
        return None, above.sum_to_size(ctx.shape)


class _Softmax(torch.autograd.Function):
    """Distribute by the slopes, Rᵢ = xᵢ (Rᵢ − sᵢ Σⱼ Rⱼ), which are to a softmax what weights are to a linear layer."""

    @staticmethod
    def forward(ctx: Any, function: Function, dim: int, entering: Tensor) -> Tensor:
        found = function(entering)
        ctx.save_for_backward(entering, found)
        ctx.dim = dim
        return found

    @staticmethod
    def backward(ctx: Any, above: Tensor) -> tuple[None, None, Tensor]:
        entering, found = ctx.saved_tensors
        return None, None, entering * (above - found * above.sum(ctx.dim, keepdim=True))


def _weighted(layer: nn.Conv2d, weight: Tensor, bias: Tensor | None) -> Function:
    """Return a convolution with other weights and the positive part of a bias."""
    given = {"weight": weight}
    if layer.bias is not None:
        given["bias"] = torch.zeros_like(layer.bias) if bias is None else bias.clamp(min=0)
    return lambda entering: functional_call(layer, given, entering)


def _stabilized(sums: Tensor, least: float) -> Tensor:
    """Keep sums away from 0 by adding to their magnitude."""
    return sums + torch.full_like(sums, least).copysign(sums)


def _run(function: Function, *entering: Tensor) -> tuple[list[Tensor], Tensor]:
    with torch.enable_grad():
        points = [part.detach().requires_grad_() for part in entering]
        return points, function(*points)


def _down(out: Tensor, points: list[Tensor], shares: Tensor) -> list[Tensor]:
    """Multiply a function's inputs by the gradients of its output weighted by shares."""
    slopes = torch.autograd.grad(out, points, shares)
    return [point.detach() * slope for point, slope in zip(points, slopes, strict=True)]
