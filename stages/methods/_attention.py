"""Run a transformer and keep the weights of its attention."""

import torch
from torch import Tensor, nn
from torch.fx import GraphModule, Interpreter, Node

from stages.study.problem import Unsupported


class Attended(Interpreter):
    """Run a traced network; `weights` then holds those of every block in order, each (image, head, token, token).

    Raises:
        Unsupported: the network has no attention of which the softmax is a layer.
    """

    def __init__(self, graph: GraphModule):
        super().__init__(graph)
        self._softmaxes = {
            node
            for node in graph.graph.nodes
            if node.op == "call_module" and isinstance(graph.get_submodule(node.target), nn.Softmax)
        }
        if not self._softmaxes:
            raise Unsupported("it has no attention")
        self.weights: list[Tensor] = []

    def run_node(self, node: Node) -> object:
        """Run one step, and keep what a softmax gives."""
        found = super().run_node(node)
        if node in self._softmaxes:
            self.weights.append(found)
        return found


def attended(graph: GraphModule, normalized: Tensor) -> tuple[Tensor, list[Tensor]]:
    """Give the logits of normalized images, and the attention of every block."""
    run = Attended(graph)
    logits = run.run(normalized)
    return logits, run.weights


def identity(weights: Tensor) -> Tensor:
    """Give the identity over tokens, which stands for the residual connection, for every image."""
    return torch.eye(weights.shape[-1], dtype=weights.dtype, device=weights.device).expand(len(weights), -1, -1)
