"""Spell attention out, so that a traced graph has its weights as a step."""

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.fx import GraphModule, Node, Proxy


class Attention(nn.Module):
    """Self-attention over the weights of `nn.MultiheadAttention`: every head mixes tokens by weights of its own.

        softmax(Q Kᵀ / √d) V,    Q, K, V of width d in each head, linear in the tokens

    `softmax` is a layer, so that a hook, or a step of a traced graph, has the weights (image, head, token, token):
    each row, over the last dimension, says how much a token takes from every other, and sums to 1.
    """

    def __init__(self, of: nn.MultiheadAttention):
        super().__init__()
        self.heads = of.num_heads
        self.scale = of.head_dim**-0.5
        self.in_proj = _linear(of.in_proj_weight, of.in_proj_bias)
        self.softmax = nn.Softmax(dim=-1)
        self.out_proj = _linear(of.out_proj.weight, of.out_proj.bias)

    def forward(self, query: Any, key: Any, value: Any, **options: Any) -> tuple[Any, None]:
        """Give mixed tokens of the same shape, and no weights.

        They are tensors, or a trace's stand-ins for such.

        Raises:
            TypeError: queries, keys and values are not of the same tokens, or some tokens are masked.
        """
        masks = [options.get(name) for name in ("key_padding_mask", "attn_mask")]
        if query is not key or key is not value or masks != [None, None] or options.get("is_causal"):
            raise TypeError("attention between different tokens, or with a mask")
        # (image, token, 3 · head · d) to three of (image, head, token, d)
        three = self.in_proj(query).unflatten(-1, (3, self.heads, -1)).transpose(1, 3)
        queries, keys, values = three.unbind(2)
        weights = self.softmax((queries * self.scale) @ keys.transpose(-2, -1))
        return self.out_proj((weights @ values).transpose(1, 2).flatten(2)), None


def separate_attention(network: nn.Module) -> nn.Module:
    """Put Attention in the place of every layer of torch that may compute attention at once, where it can stand."""
    for layer in list(network.modules()):
        if isinstance(layer, nn.TransformerEncoderLayer):
            continue  # it reads its attention's own weights
        for name, child in layer.named_children():
            plain = type(child) is nn.MultiheadAttention and child.in_proj_weight is not None and child.batch_first
            if plain and child.bias_k is None and not child.add_zero_attn:
                setattr(layer, name, Attention(child))
    return network


def separate_product(graph: GraphModule, node: Node, softmax: str) -> Node | None:
    """Put products and a softmax in the place of a call of scaled_dot_product_attention, where it has no mask.

    Args:
        graph: Of the call.
        node: The call.
        softmax: Name of a layer of the graph, a softmax over the last dimension.
    """
    names = ("query", "key", "value", "attn_mask", "dropout_p", "is_causal", "scale", "enable_gqa")
    given = dict(zip(names, node.args, strict=False)) | node.kwargs
    if given.get("attn_mask") is not None or any(given.get(name) for name in ("dropout_p", "is_causal", "enable_gqa")):
        return None
    with graph.graph.inserting_before(node):
        query, key, value = (Proxy(given[name]) for name in names[:3])
        scale = given.get("scale")
        if scale is None:
            size = graph.graph.call_method("size", (given["query"], -1))
            scale = Proxy(graph.graph.call_function(_inverse_root, (size,)))
        product = (query * scale) @ key.transpose(-2, -1)
        weights = Proxy(graph.graph.call_module(softmax, (product.node,)))
        return (weights @ value).node


def _inverse_root(size: int) -> float:
    return 1 / math.sqrt(size)


def _linear(weight: Tensor, bias: Tensor | None) -> nn.Linear:
    with torch.device("meta"):  # no numbers are drawn that are not used
        layer = nn.Linear(weight.shape[1], weight.shape[0], bias=bias is not None)
    layer.weight, layer.bias = weight, bias
    return layer
