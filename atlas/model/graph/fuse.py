"""Make a traced part of a network faster, and find its ReLUs."""

from collections import Counter
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.fx import GraphModule, Node
from torch.nn.utils.fusion import fuse_conv_bn_eval, fuse_linear_bn_eval

from atlas.model.graph.rewriting import added

# Layers, and the batch normalization that may be fused into each. Subclasses compute something else.
FOLDABLE = {
    nn.Conv1d: nn.BatchNorm1d,
    nn.Conv2d: nn.BatchNorm2d,
    nn.Conv3d: nn.BatchNorm3d,
    nn.Linear: nn.BatchNorm1d,
}
# Layers that keep the shape (image, feature) of a flattened tensor.
FLAT = (nn.Linear, nn.BatchNorm1d, nn.Dropout, nn.Identity, nn.ReLU, nn.ReLU6)


def arrange_channels_last(part: nn.Module, plain: bool) -> nn.Module:
    """Store four-dimensional tensors of a part of a network with channels last in memory, unless it is plain."""
    for tensor in () if plain else (*part.parameters(), *part.buffers()):
        if tensor.dim() == 4:
            tensor.data = tensor.data.to(memory_format=torch.channels_last)
    return part


def relus(parts: Iterable[nn.Module]) -> list[nn.Module]:
    """Return the ReLUs, including ReLU6, in traced parts of a network."""
    return [layer for part in parts for layer in part.modules() if isinstance(layer, nn.ReLU | nn.ReLU6)]


def rectify(sign: str, layer: nn.Module, down: tuple[Tensor], up: tuple[Tensor]) -> tuple[Tensor]:
    """Backward hook that keeps the positive or negative part of a layer's input gradient, or its absolute value."""
    if sign == "absolute":
        return (down[0].abs(),)
    return (down[0].clamp(min=0) if sign == "positive" else down[0].clamp(max=0),)


def fused(graph: GraphModule) -> GraphModule:
    """Fuse each batch normalization into the layer before it, if that layer has no other use and each is called once.

    The graph is modified.

    A fused layer is a new one, as the original's weights may be used elsewhere in the graph.
    """
    layers: dict[Node, Any] = {
        node: graph.get_submodule(str(node.target)) for node in graph.graph.nodes if node.op == "call_module"
    }
    calls = Counter(map(id, layers.values()))
    for number, (node, normalization) in enumerate(layers.items()):
        source = node.args[0] if len(node.args) == 1 and not node.kwargs else None
        before = layers.get(source) if isinstance(source, Node) else None
        if not isinstance(source, Node) or before is None or type(normalization) is not FOLDABLE.get(type(before)):
            continue
        once = calls[id(before)] == calls[id(normalization)] == len(source.users) == 1
        linear = isinstance(before, nn.Linear)
        if (
            once
            and _fixed(normalization)
            and not _hooked(before, normalization)
            and (not linear or _flat(graph, source))
        ):
            fuse = fuse_linear_bn_eval if linear else fuse_conv_bn_eval
            source.target = added(graph, f"folded_{number}", fuse(before, normalization))
            node.replace_all_uses_with(source)
            graph.graph.erase_node(node)
    graph.recompile()
    graph.delete_all_unused_submodules()
    return graph


def _flat(graph: GraphModule, node: Node) -> bool:
    """Return whether a step follows a flattening; for tokens, it is not the features that are normalized."""
    while node.op == "call_module" and isinstance(graph.get_submodule(str(node.target)), FLAT):
        node = node.all_input_nodes[0]
    if node.op == "call_module":
        layer = graph.get_submodule(str(node.target))
        return isinstance(layer, nn.Flatten) and (layer.start_dim, layer.end_dim) == (1, -1)
    return node.target in (torch.flatten, "flatten") and node.args[1:] == (1,) and not node.kwargs


def _fixed(normalization: nn.Module) -> bool:
    """Return whether a normalization uses running statistics, not those of the batch."""
    return not normalization.training and normalization.running_mean is not None


def _hooked(*layers: nn.Module) -> bool:
    """Return whether a layer has hooks: they may compute weights (weight normalization) or change values."""
    return any(layer._forward_pre_hooks or layer._forward_hooks for layer in layers)
