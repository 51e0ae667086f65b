"""Run a transformer and keep the weights of its attention."""

import torch
from torch import Tensor, nn
from torch.fx import GraphModule, Interpreter, Node

from stages.methods._graph import FUSED
from stages.study.problem import Unsupported

TOLD = (
    "its attention is fused (scaled_dot_product_attention, or a layer of torch that may call it), so that its weights "
    "cannot be read; a network whose softmax is a layer of its own shows them"
)


class Attended(Interpreter):
    """Run a traced network; `weights` then holds those of every block in order, each (image, head, token, token).

    Raises:
        Unsupported: the network has no attention of which the softmax is a layer, or some that is fused.
    """

    def __init__(self, graph: GraphModule):
        super().__init__(graph)
        self._softmaxes = {
            node
            for node in graph.graph.nodes
            if node.op == "call_module" and isinstance(graph.get_submodule(node.target), nn.Softmax)
        }
        if any(_fused(graph, node) for node in graph.graph.nodes):
            raise Unsupported(TOLD)
        if not self._softmaxes:
            raise Unsupported("it has no attention whose softmax is a layer of its own")
        self.weights: list[Tensor] = []

    def run_node(self, node: Node) -> object:
        """Run one step, and keep what a softmax gives."""
        found = super().run_node(node)
        if node in self._softmaxes:
            self.weights.append(found)
        return found


def _fused(graph: GraphModule, node: Node) -> bool:
    """Tell a step that computes attention in one function, and keeps its weights to itself."""
    if node.op == "call_module":
        return any(isinstance(layer, nn.MultiheadAttention) for layer in graph.get_submodule(node.target).modules())
    return node.op == "call_function" and getattr(node.target, "__name__", "") in FUSED


def attended(graph: GraphModule, normalized: Tensor) -> tuple[Tensor, list[Tensor]]:
    """Give the logits of normalized images, and the attention of every block."""
    run = Attended(graph)
    logits = run.run(normalized)
    return logits, run.weights


def identity(weights: Tensor) -> Tensor:
    """Give the identity over tokens, which stands for the residual connection, for every image."""
    return torch.eye(weights.shape[-1], dtype=weights.dtype, device=weights.device).expand(len(weights), -1, -1)
