"""Run a transformer and keep its attention weights."""

import torch
from torch import Tensor, nn
from torch.fx import GraphModule, Interpreter, Node

from atlas.methods.shared.relevance.graph import FUSED
from atlas.study.errors import Unsupported

FUSED_ATTENTION = "its attention is fused ({}), so that its weights cannot be read"


class Attended(Interpreter):
    """Run a traced network; `weights` then holds those of every block in order, each (image, head, token, token).

    Raises:
        Unsupported: the network has no attention, or attention that is fused or within windows.
    """

    def __init__(self, graph: GraphModule):
        super().__init__(graph)
        self.extra_traceback = False  # keeps error messages to one line
        fused = next((name for node in graph.graph.nodes if (name := _fused(graph, node))), None)
        if fused:
            raise Unsupported(FUSED_ATTENTION.format(fused))
        self._softmaxes = {
            node
            for node in graph.graph.nodes
            if node.op == "call_module" and isinstance(graph.get_submodule(str(node.target)), nn.Softmax)
        }
        if not self._softmaxes:
            raise Unsupported("it has no attention")
        self.weights: list[Tensor] = []
        self._images = 0

    def run_node(self, node: Node) -> object:
        """Run one step, and keep the output of a softmax."""
        found = super().run_node(node)
        if node.op == "placeholder":
            self._images = len(found)
        if node in self._softmaxes:
            same = found.dim() == 4 and len({*found.shape[2:], *(each.shape[2] for each in self.weights)}) == 1
            if not same or len(found) != self._images:
                raise Unsupported("its attention is not among all tokens, the same in every block, but within windows")
            self.weights.append(found)
        return found


def _fused(graph: GraphModule, node: Node) -> str | None:
    """Return the name of a step that computes attention in one function, without exposing its weights."""
    if node.op == "call_module":
        layers = graph.get_submodule(str(node.target)).modules()
        return next((type(layer).__name__ for layer in layers if isinstance(layer, nn.MultiheadAttention)), None)
    name = getattr(node.target, "__name__", "")
    return name if node.op == "call_function" and name in FUSED else None


def attended(graph: GraphModule, normalized: Tensor) -> tuple[Tensor, list[Tensor]]:
    """Return the logits of normalized images, and the attention of every block."""
    run = Attended(graph)
    logits = run.run(normalized)
    return logits, run.weights


def identity(weights: Tensor) -> Tensor:
    """Return the identity over tokens, which represents the residual connection, for every image."""
    return torch.eye(weights.shape[-1], dtype=weights.dtype, device=weights.device).expand(len(weights), -1, -1)
