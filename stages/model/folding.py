"""Turn a part of a network into one that runs faster, and in which every ReLU can be found."""

import operator
from collections import Counter
from collections.abc import Iterable
from contextlib import suppress

import torch
from torch import Tensor, nn
from torch.fx import GraphModule, Node
from torch.nn.utils.fusion import fuse_conv_bn_eval, fuse_linear_bn_eval

# A layer, and the batch normalization that may be folded into it. Subclasses compute something else.
FOLDABLE = {
    nn.Conv1d: nn.BatchNorm1d,
    nn.Conv2d: nn.BatchNorm2d,
    nn.Conv3d: nn.BatchNorm3d,
    nn.Linear: nn.BatchNorm1d,
}
# What leaves a tensor of features without places as it is: (image, feature).
FLAT = (nn.Linear, nn.BatchNorm1d, nn.Dropout, nn.Identity, nn.ReLU, nn.ReLU6)


def folded(part: nn.Module) -> nn.Module:
    """Fold batch normalization into the layers before it, and make every ReLU a module, where it can be traced.

    A network that Python control flow keeps from being traced stays as it is: slower, and right.
    """
    with suppress(Exception):  # what a forward raises when it meets stand-ins for tensors, it alone knows
        part = _modular(_fused(_normalizing(torch.fx.symbolic_trace(part))))
    for layer in relus([part]):
        layer.inplace = False  # backward hooks, and gradients by features, need the input intact
    return part


# Functions that are layers, by the layer; those of the second kind are, where all they do is to cut off below 0.
RELUS = {
    **dict.fromkeys((torch.relu, torch.relu_, nn.functional.relu, nn.functional.relu_, "relu", "relu_"), nn.ReLU),
    nn.functional.relu6: nn.ReLU6,
}
CLAMPS = (torch.clamp, torch.clamp_, torch.clamp_min, torch.clamp_min_, "clamp", "clamp_", "clamp_min", "clamp_min_")


def added(graph: GraphModule, name: str, layer: nn.Module) -> str:
    """Add a layer to a graph under a name that nothing else has, and give it."""
    while hasattr(graph, name):
        name += "_"
    graph.add_submodule(name, layer)
    return name


def relus(parts: Iterable[nn.Module]) -> list[nn.Module]:
    """List the ReLUs of parts of a network that were traced; one that is cut off above, as at 6, is one."""
    return [layer for part in parts for layer in part.modules() if isinstance(layer, nn.ReLU | nn.ReLU6)]


def rectify(sign: str, layer: nn.Module, down: tuple[Tensor], up: tuple[Tensor]) -> tuple[Tensor]:
    """Keep what a layer passes down of one sign, positive or negative, or its absolute values: a backward hook."""
    if sign == "absolute":
        return (down[0].abs(),)
    return (down[0].clamp(min=0) if sign == "positive" else down[0].clamp(max=0),)


def _normalizing(graph: GraphModule) -> GraphModule:
    """Turn calls of the function of batch normalization into layers, and leave out what is only asserted of sizes."""
    for node in reversed(list(graph.graph.nodes)):
        if node.target is torch._assert:
            graph.graph.erase_node(node)
    graph.graph.eliminate_dead_code()
    for number, node in enumerate(list(graph.graph.nodes)):
        layer = _normalization(graph, node) if node.target is nn.functional.batch_norm else None
        if layer is not None:
            with graph.graph.inserting_after(node):
                name = added(graph, f"normalization_{number}", layer)
                module = graph.graph.call_module(name, (node.args or (node.kwargs["input"],))[:1])
            node.replace_all_uses_with(module)
            graph.graph.erase_node(node)
    graph.graph.eliminate_dead_code()
    graph.recompile()
    return graph


def _normalization(graph: GraphModule, node: Node) -> nn.BatchNorm2d | None:
    """Give the layer of a call by running statistics; None for one by the batch's, or by what is computed."""
    names = ("input", "running_mean", "running_var", "weight", "bias", "training", "momentum", "eps")
    given = {"weight": None, "bias": None, "training": False, "eps": 1e-5}
    given |= dict(zip(names, node.args, strict=False)) | node.kwargs
    parts = [given[name] for name in names[1:5]]
    if given["training"] or not all(part is None or getattr(part, "op", "") == "get_attr" for part in parts):
        return None
    mean, variance, weight, bias = (part and operator.attrgetter(part.target)(graph) for part in parts)
    layer = nn.BatchNorm2d(len(mean), given["eps"], affine=weight is not None, device="meta").eval()
    layer.running_mean, layer.running_var, layer.weight, layer.bias = mean, variance, weight, bias
    layer.num_batches_tracked = None
    return layer


def _fused(graph: GraphModule) -> GraphModule:
    """Fold a batch normalization where the layer before it has that one use, and it that one input.

    The folded one is a layer of its own: the weights of the original may be used elsewhere in the graph.
    """
    layers = {node: graph.get_submodule(node.target) for node in graph.graph.nodes if node.op == "call_module"}
    calls = Counter(map(id, layers.values()))
    for number, (node, normalization) in enumerate(layers.items()):
        source = node.args[0] if len(node.args) == 1 and not node.kwargs else None
        before = layers.get(source) if isinstance(source, Node) else None
        if before is None or type(normalization) is not FOLDABLE.get(type(before)):
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
    """Tell a step behind a flattening: of tokens, a linear layer's features are not those that are normalized."""
    while node.op == "call_module" and isinstance(graph.get_submodule(node.target), FLAT):
        node = node.args[0]
    if node.op == "call_module":
        layer = graph.get_submodule(node.target)
        return isinstance(layer, nn.Flatten) and (layer.start_dim, layer.end_dim) == (1, -1)
    return node.target in (torch.flatten, "flatten") and node.args[1:] == (1,) and not node.kwargs


def _fixed(normalization: nn.Module) -> bool:
    """Tell a normalization by running statistics from one by those of the batch."""
    return not normalization.training and normalization.running_mean is not None


def _hooked(*layers: nn.Module) -> bool:
    """Tell layers whose hooks compute weights, as weight normalization does, or change what is given or given back."""
    return any(layer._forward_pre_hooks or layer._forward_hooks for layer in layers)


def _modular(graph: GraphModule) -> GraphModule:
    """Turn every call of a ReLU function into a module, which can be hooked."""
    for number, node in enumerate(list(graph.graph.nodes)):
        layer = _relu(node)
        if layer is not None:
            name = added(graph, f"relu_{number}", layer())
            with graph.graph.inserting_after(node):
                module = graph.graph.call_module(name, (node.args or (node.kwargs["input"],))[:1])
            node.replace_all_uses_with(module)
            graph.graph.erase_node(node)
    graph.recompile()
    return graph


def _relu(node: Node) -> type[nn.Module] | None:
    """Give the layer that a call of a function is."""
    if node.op not in ("call_function", "call_method"):
        return None
    bounds = (*node.args[1:], *(bound for name, bound in node.kwargs.items() if name != "input"))
    if node.target in CLAMPS and bounds in ((0,), (0, None)) and "max" not in node.kwargs:
        return nn.ReLU
    return RELUS.get(node.target)
