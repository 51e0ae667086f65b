"""Write attention out in single operations, so that a traced graph has the attention weights as a step."""

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.fx import GraphModule, Node, Proxy

APART = -100.0  # added by torchvision to the score of two tokens that must not attend to each other
WINDOWS = ("torchvision.models.swin_transformer", "ShiftedWindowAttention")


class Attention(nn.Module):
    """Self-attention with the weights of an `nn.MultiheadAttention`: every head mixes tokens with its own weights.

        softmax(Q Kᵀ / √d) V,    Q, K, V of width d in each head, linear in the tokens

    `softmax` is a layer, so that a hook, or a step of a traced graph, gets the weights (image, head, token, token):
    each row, over the last dimension, holds how much a token takes from every token, and sums to 1.
    """

    def __init__(self, of: nn.MultiheadAttention):
        super().__init__()
        self.heads = of.num_heads
        self.scale = of.head_dim**-0.5
        self.in_proj = _linear(of.in_proj_weight, of.in_proj_bias)
        self.softmax = nn.Softmax(dim=-1)
        self.out_proj = _linear(of.out_proj.weight, of.out_proj.bias)

    def forward(self, query: Any, key: Any, value: Any, **options: Any) -> tuple[Any, None]:
        """Return mixed tokens of the same shape, and None in place of weights.

        Arguments are tensors, or a trace's proxies.

        Raises:
            TypeError: queries, keys and values belong to different tokens, or some tokens are masked.
        """
        masks = [options.get(name) for name in ("key_padding_mask", "attn_mask")]
        if query is not key or key is not value or masks != [None, None] or options.get("is_causal"):
            raise TypeError("attention between different tokens, or with a mask")
        # (image, token, 3 · head · d) to three of (image, head, token, d)
        three = self.in_proj(query).unflatten(-1, (3, self.heads, -1)).transpose(1, 3)
        queries, keys, values = three.unbind(2)
        weights = self.softmax((queries * self.scale) @ keys.transpose(-2, -1))
        return self.out_proj((weights @ values).transpose(1, 2).flatten(2)), None


class WindowAttention(nn.Module):
    """Self-attention within windows of rows and columns, with the layers of torchvision's Swin transformer.

        softmax(Q Kᵀ / √d + B) V,    B: a learned bias by the offset of two tokens, and −100 where they are apart

    The last windows are padded with zeros. In every other block, windows are shifted cyclically by half their size;
    tokens that meet only across the border are apart.
    """

    def __init__(self, of: Any):
        super().__init__()
        self.heads, self.window, self.shift = of.num_heads, of.window_size, of.shift_size
        self.scale = (of.qkv.in_features // of.num_heads) ** -0.5
        self.offsets = of.relative_position_bias_table
        self.register_buffer("offset", of.relative_position_index)
        self.qkv, self.proj, self.softmax = of.qkv, of.proj, nn.Softmax(dim=-1)

    def forward(self, tokens: Any) -> Any:
        """Return mixed tokens (image, row, column, feature): a tensor, or a trace's proxy."""
        (down, across), sizes = self.window, (tokens.size(1), tokens.size(2))
        sides = [size + (side - size % side) % side for size, side in zip(sizes, self.window, strict=True)]
        filled = nn.functional.pad(tokens, (0, 0, 0, sides[1] - sizes[1], 0, sides[0] - sizes[0]))
        moved = [_moved(*each) for each in zip(sides, self.window, self.shift, strict=True)]
        filled = filled.roll((-moved[0], -moved[1]), (1, 2))
        # (image, row, column, feature) to (image · window, token, feature)
        parted = filled.unflatten(2, (-1, across)).unflatten(1, (-1, down))
        three = self.qkv(parted.permute(0, 1, 3, 2, 4, 5).flatten(3, 4).flatten(0, 2))
        queries, keys, values = three.unflatten(-1, (3, self.heads, -1)).transpose(1, 3).unbind(2)
        bias = self.offsets[self.offset].unflatten(0, (down * across, -1)).permute(2, 0, 1)
        bias = _with_apart(bias, *sides, *self.window, *moved)
        scores = ((queries * self.scale) @ keys.transpose(-2, -1)).unflatten(0, (-1, bias.size(0))) + bias
        mixed = (self.softmax(scores.flatten(0, 1)) @ values).transpose(1, 2).flatten(2)
        parted = self.proj(mixed).unflatten(0, (-1, sides[0] // down, sides[1] // across))
        filled = parted.unflatten(3, (down, across)).permute(0, 1, 3, 2, 4, 5).flatten(3, 4).flatten(1, 2)
        return filled.roll((moved[0], moved[1]), (1, 2))[:, : sizes[0], : sizes[1]]


@torch.fx.wrap  # kept as one call in a trace: sizes are known only at run time
def _moved(size: int, window: int, shift: int) -> int:
    """Return by how much windows are shifted: not at all if one window covers everything."""
    return 0 if window >= size else shift


@torch.fx.wrap
def _with_apart(
    bias: Tensor, rows: int, columns: int, down: int, across: int, moved_down: int, moved_across: int
) -> Tensor:
    """Return the bias added to the scores of every window, (window, head, token, token)."""

    def parts(size: int, window: int, moved: int) -> Tensor:
        places = torch.arange(size, device=bias.device)
        return (places >= size - window).long() + (places >= size - moved)

    part = 3 * parts(rows, down, moved_down)[:, None] + parts(columns, across, moved_across)
    part = part.view(rows // down, down, columns // across, across).transpose(1, 2).flatten(0, 1).flatten(1)
    return bias + APART * (part[:, None, :, None] != part[:, None, None, :]).to(bias)


def separate_attention(network: nn.Module) -> nn.Module:
    """Replace every layer that may compute attention in one step by an explicit form, where that is possible."""
    for layer in list(network.modules()):
        if isinstance(layer, nn.TransformerEncoderLayer):
            continue  # it uses the weights of its attention layer directly
        for name, child in layer.named_children():
            if (type(child).__module__, type(child).__name__) == WINDOWS:
                setattr(layer, name, WindowAttention(child))
            plain = type(child) is nn.MultiheadAttention and child.in_proj_weight is not None and child.batch_first
            if plain and child.bias_k is None and not child.add_zero_attn:
                setattr(layer, name, Attention(child))
    return network


def separate_product(graph: GraphModule, node: Node, softmax: str) -> Node | None:
    """Replace a call of scaled_dot_product_attention without a mask by products and a softmax layer.

    Args:
        graph: The graph of the call.
        node: The call.
        softmax: Name of a layer of the graph, a softmax over the last dimension.
    """
    names = ("query", "key", "value", "attn_mask", "dropout_p", "is_causal", "scale", "enable_gqa")
    given: dict[str, Any] = dict(zip(names, node.args, strict=False)) | node.kwargs
    if given.get("attn_mask") is not None or any(given.get(name) for name in ("dropout_p", "is_causal", "enable_gqa")):
        return None
    with graph.graph.inserting_before(node):
        query, key, value = (Proxy(given[name]) for name in names[:3])
        scale: Any = given.get("scale")
        if scale is None:
            size = graph.graph.call_method("size", (given["query"], -1))
            scale = Proxy(graph.graph.call_function(_inverse_root, (size,)))
        product = (query * scale) @ key.transpose(-2, -1)
        weights: Any = Proxy(graph.graph.call_module(softmax, (product.node,)))
        return (weights @ value).node


def _inverse_root(size: int) -> float:
    return 1 / math.sqrt(size)


def _linear(weight: Tensor, bias: Tensor | None) -> nn.Linear:
    with torch.device("meta"):  # avoids drawing random weights that are not used
        layer: Any = nn.Linear(weight.shape[1], weight.shape[0], bias=bias is not None)
    layer.weight, layer.bias = weight, bias
    return layer
