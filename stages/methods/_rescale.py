"""DeepLIFT's rescale rule: differences to a reference in the place of slopes, at every step that is not linear."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.fx import GraphModule, Interpreter, Node

from stages.methods._graph import kind, step
from stages.methods._maximum import multipliers, windows

# Of the larger magnitude: nearer to the reference than this, a multiplier is the slope, which rounding spares.
NEAR = 1e-6


class Rescaled(Interpreter):
    """Run a traced network at a reference, then at images by which its gradients are DeepLIFT's multipliers.

    What enters a step at the reference is remembered call by call, so a layer may be called more than once.

    Raises:
        Unsupported: the network holds a step without a rule.
    """

    def __init__(self, graph: GraphModule):
        super().__init__(graph)
        rules = {"activation": _Activation, "maximum": _Maximum}
        kinds = {node: kind(graph, node) for node in graph.graph.nodes}
        self.rules = {node: (rules[kinds[node]], step(graph, node)) for node in kinds if kinds[node] in rules}
        self.held: dict[Node, Tensor] = {}

    def reference(self, images: Tensor) -> Tensor:
        """Give the logits of the reference, and remember what comes by."""
        self.held = {}
        with torch.no_grad():
            return self.run(images)

    def run_node(self, node: Node) -> Any:
        """Run one step: as it is at the reference, by its rule at images."""
        if node not in self.rules:
            return super().run_node(node)
        rule, layer = self.rules[node]
        (entering, *_), _ = self.fetch_args_kwargs_from_env(node)
        if torch.is_grad_enabled():
            return rule.apply(entering, self.held[node], layer)
        self.held[node] = entering
        return layer(entering)


class _Rule(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, entering: Tensor, reference: Tensor, layer: nn.Module) -> Tensor:
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
    """Share a window's change among its elements by their Shapley values, image by image, which spares memory."""

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


def _pulled(layer: nn.Module, entering: Tensor, above: Tensor) -> tuple[Tensor, Tensor]:
    """Give a layer's output and the gradient that it passes down."""
    with torch.enable_grad():
        point = entering.detach().requires_grad_()
        outer = layer(point)
    (below,) = torch.autograd.grad(outer, point, above)
    return outer.detach(), below
