"""Spell attention out in a traced network, run it, and keep the weights."""

import torch
from torch import Tensor, nn
from torch.fx import GraphModule, Interpreter, Node, Proxy
from torch.nn import functional

from stages.methods._graph import FUSED
from stages.model.folding import added
from stages.study.problem import Unsupported

Traced = Tensor | Proxy

TOLD = "its attention is fused ({}), so that its weights cannot be read"


def spelled(graph: GraphModule) -> GraphModule:
    """Give a graph in which attention over all tokens, unmasked, is products and a softmax in the place of one call."""
    for number, node in enumerate(list(graph.graph.nodes)):
        if node.target is functional.scaled_dot_product_attention and _plain(node):
            node.target = attention
            node.kwargs = {name: value for name, value in node.kwargs.items() if name == "scale"}
            node.args = node.args[:3]
        elif node.op == "call_module" and _own(graph.get_submodule(node.target), node):
            node.target = added(graph, f"spelled_{number}", _Spelled(graph.get_submodule(node.target)))
            node.args, node.kwargs = node.args[:1], {}
    graph.recompile()
    return torch.fx.symbolic_trace(graph)


def attention(query: Traced, key: Traced, value: Traced, scale: float | None = None) -> Traced:
    """Mix values: softmax(Q Kᵀ / √d) V."""
    scale = query.size(-1) ** -0.5 if scale is None else scale
    return ((query * scale) @ key.transpose(-2, -1)).softmax(-1) @ value


class _Spelled(nn.Module):
    """A layer of attention of tokens to one another."""

    def __init__(self, of: nn.MultiheadAttention):
        super().__init__()
        self.heads, self.batch_first = of.num_heads, of.batch_first
        self.entering = nn.Linear(of.embed_dim, 3 * of.embed_dim, device="meta")
        self.entering.weight, self.entering.bias = of.in_proj_weight, of.in_proj_bias
        self.leaving = of.out_proj

    def forward(self, tokens: Traced) -> tuple[Traced, None]:
        tokens = tokens if self.batch_first else tokens.transpose(0, 1)
        # (image, token, 3 · head · d) to three of (image, head, token, d)
        three = self.entering(tokens).unflatten(-1, (3, self.heads, -1)).transpose(1, 3)
        found = self.leaving(attention(*(three.select(2, part) for part in range(3))).transpose(1, 2).flatten(2))
        return found if self.batch_first else found.transpose(0, 1), None


def _plain(node: Node) -> bool:
    names = ("query", "key", "value", "attn_mask", "dropout_p", "is_causal", "scale", "enable_gqa")
    given = dict(zip(names, node.args, strict=False)) | node.kwargs
    altered = any(given.get(name) for name in ("attn_mask", "dropout_p", "is_causal", "enable_gqa"))
    return len(node.args) >= 3 and not altered


def _own(layer: nn.Module, node: Node) -> bool:
    """Tell attention of tokens to one another, without masks and extra tokens."""
    if not isinstance(layer, nn.MultiheadAttention) or layer.in_proj_weight is None:
        return False
    masked = any(node.kwargs.get(name) is not None for name in ("key_padding_mask", "attn_mask"))
    read = any(user.args[1:] != (0,) for user in node.users)  # its weights are used
    extra = layer.bias_k is not None or layer.add_zero_attn or len(node.args) != 3
    return not (masked or read or extra) and node.args[0] is node.args[1] is node.args[2]


class Attended(Interpreter):
    """Run a traced network; `weights` then holds those of every block in order, each (image, head, token, token).

    Raises:
        Unsupported: the network has no attention, or some that is fused or within windows.
    """

    def __init__(self, graph: GraphModule):
        super().__init__(spelled(graph))
        graph = self.module
        fused = next((name for node in graph.graph.nodes if (name := _fused(graph, node))), None)
        if fused:
            raise Unsupported(TOLD.format(fused))
        self._softmaxes = {node for node in graph.graph.nodes if _softmax(graph, node)}
        if not self._softmaxes:
            raise Unsupported("it has no attention")
        self.weights: list[Tensor] = []

    def run_node(self, node: Node) -> object:
        """Run one step, and keep what a softmax gives."""
        found = super().run_node(node)
        if node in self._softmaxes:
            if found.dim() != 4 or len({*found.shape[2:], *(each.shape[2] for each in self.weights)}) != 1:
                raise Unsupported("its attention is not among all tokens, the same in every block, but within windows")
            self.weights.append(found)
        return found


def _softmax(graph: GraphModule, node: Node) -> bool:
    if node.op == "call_module":
        return isinstance(graph.get_submodule(node.target), nn.Softmax)
    return node.op != "placeholder" and getattr(node.target, "__name__", node.target) == "softmax"


def _fused(graph: GraphModule, node: Node) -> str | None:
    """Name a step that computes attention in one function, and keeps its weights to itself."""
    if node.op == "call_module":
        layers = graph.get_submodule(node.target).modules()
        return next((type(layer).__name__ for layer in layers if isinstance(layer, nn.MultiheadAttention)), None)
    name = getattr(node.target, "__name__", "")
    return name if node.op == "call_function" and name in FUSED else None


def attended(graph: GraphModule, normalized: Tensor) -> tuple[Tensor, list[Tensor]]:
    """Give the logits of normalized images, and the attention of every block."""
    run = Attended(graph)
    logits = run.run(normalized)
    return logits, run.weights


def identity(weights: Tensor) -> Tensor:
    """Give the identity over tokens, which stands for the residual connection, for every image."""
    return torch.eye(weights.shape[-1], dtype=weights.dtype, device=weights.device).expand(len(weights), -1, -1)
