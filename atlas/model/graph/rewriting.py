"""Rewrite the steps of a traced network: functions over its weights become layers, and nothing works in place."""

import operator
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.fx import GraphModule, Node
from torch.nn import functional

from atlas.model.graph.explicit import separate_product

# Functions equivalent to a layer, by layer; those in CLAMPS only if all they do is to cut off below 0.
RELUS = {
    **dict.fromkeys((torch.relu, torch.relu_, functional.relu, functional.relu_, "relu", "relu_"), nn.ReLU),
    functional.relu6: nn.ReLU6,
}
CLAMPS = (torch.clamp, torch.clamp_, torch.clamp_min, torch.clamp_min_, "clamp", "clamp_", "clamp_min", "clamp_min_")
IN_PLACE: dict[Callable, Callable] = {
    operator.iadd: operator.add,
    operator.isub: operator.sub,
    operator.imul: operator.mul,
    operator.itruediv: operator.truediv,
}
SOFTMAXES = (functional.softmax, torch.softmax, "softmax")
# The arguments of functions over weights, by position.
CONVOLUTION = ("input", "weight", "bias", "stride", "padding", "dilation", "groups")
LINEAR = ("input", "weight", "bias")
NORMALIZATION = ("input", "running_mean", "running_var", "weight", "bias", "training", "momentum", "eps")


def rewrite(graph: GraphModule) -> dict[Node, Node]:
    """Rewrite a graph, and return the replacements of removed steps.

    The graph has its own modules; their weights may be shared. Afterwards every ReLU, and every convolution, linear
    layer, batch normalization and softmax over the network's own weights, is a layer; nothing works in place; attention
    is written out; steps without effect in evaluation, and checks of sizes, are removed.
    """
    layer: Any
    for layer in graph.modules():
        if hasattr(layer, "inplace"):
            layer.inplace = False
    instead: dict[Node, Node] = {}
    for number, node in enumerate(list(graph.graph.nodes)):
        if node.op not in ("call_function", "call_method"):
            continue
        if node.target is torch._assert:
            graph.graph.erase_node(node)
            continue
        _out_of_place(node)
        fresh = _replaced(graph, node, number)
        if fresh is not None:
            node.replace_all_uses_with(fresh)
            graph.graph.erase_node(node)
            instead = {old: fresh if new is node else new for old, new in instead.items()} | {node: fresh}
    graph.graph.eliminate_dead_code()
    graph.recompile()
    return instead


def added(graph: GraphModule, name: str, layer: nn.Module) -> str:
    """Add a layer to a graph under an unused name, and return the name."""
    while hasattr(graph, name):
        name += "_"
    graph.add_submodule(name, layer)
    return name


def _out_of_place(node: Node) -> None:
    """Make a step leave its input unchanged; a view with incompatible strides becomes a copy."""
    if node.kwargs.get("inplace"):
        node.kwargs = {**node.kwargs, "inplace": False}
    target = node.target
    if not isinstance(target, str):
        node.target = IN_PLACE.get(target, target)
    elif target == "view" and not any(isinstance(one, torch.dtype) for one in node.args):
        node.target = "reshape"
    elif target.endswith("_") and not target.endswith("__") and hasattr(Tensor, target[:-1]):
        node.target = target[:-1]


def _replaced(graph: GraphModule, node: Node, number: int) -> Node | None:
    """Return the replacement of a step; None to keep it."""
    source = node.args[0] if node.args else None
    if isinstance(source, Node) and _idle(node):
        return source
    if node.target is functional.scaled_dot_product_attention:
        return separate_product(graph, node, added(graph, f"softmax_{number}", nn.Softmax(dim=-1)))
    layer = _layer(graph, node)
    if layer is None:
        return None
    name = added(graph, f"{type(layer).__name__.lower()}_{number}", layer)
    with graph.graph.inserting_after(node):
        return graph.graph.call_module(name, (node.args or (node.kwargs["input"],))[:1])


def _idle(node: Node) -> bool:
    """Return whether a step has no effect in evaluation."""
    name = getattr(node.target, "__name__", "")
    random = node.target in (functional.dropout, functional.dropout2d, functional.dropout3d) or (
        name == "stochastic_depth" and getattr(node.target, "__module__", "").startswith("torchvision")
    )
    place = 3 if name == "stochastic_depth" else 2
    training = node.kwargs.get("training", node.args[place] if len(node.args) > place else True)
    return random and training is False


def _layer(graph: GraphModule, node: Node) -> nn.Module | None:
    """Return the layer equivalent to a function call, if there is one."""
    relu = _relu(node)
    if relu is not None:
        return relu()
    if node.target in SOFTMAXES:
        given = _given(("input", "dim", "_stacklevel", "dtype"), node)
        return nn.Softmax(dim=-1) if given.get("dim") == -1 and given.get("dtype") is None else None
    if node.target in (functional.conv2d, torch.conv2d):
        return _convolution(graph, _given(CONVOLUTION, node))
    if node.target is functional.linear:
        return _linear(graph, _given(LINEAR, node))
    if node.target is functional.batch_norm:
        return _normalization(graph, _given(NORMALIZATION, node))
    return None


def _relu(node: Node) -> type[nn.Module] | None:
    """Return the class of ReLU equivalent to a function call, if there is one."""
    bounds = (*node.args[1:], *(bound for name, bound in node.kwargs.items() if name != "input"))
    if node.target in CLAMPS and bounds in ((0,), (0, None)) and "max" not in node.kwargs:
        return nn.ReLU
    return RELUS.get(node.target)


def _given(names: tuple[str, ...], node: Node) -> dict[str, Any]:
    return dict(zip(names, node.args, strict=False)) | node.kwargs


def _own_tensor(graph: GraphModule, given: object) -> Any:
    """Return the network's own tensor that an argument refers to; None for none; NotImplemented if it is computed."""
    if given is None:
        return None
    if not isinstance(given, Node) or given.op != "get_attr":
        return NotImplemented
    found: Any = graph
    for name in str(given.target).split("."):
        found = getattr(found, name)
    return found if isinstance(found, Tensor) else NotImplemented


def _convolution(graph: GraphModule, given: dict[str, Any]) -> nn.Module | None:
    weight, bias = _own_tensor(graph, given["weight"]), _own_tensor(graph, given.get("bias"))
    about = [given.get(name, default) for name, default in (("stride", 1), ("padding", 0), ("dilation", 1))]
    groups = given.get("groups", 1)
    numbers = (int, str, tuple, list)
    if weight is NotImplemented or bias is NotImplemented or weight is None:
        return None
    if not all(isinstance(one, numbers) for one in about) or not isinstance(groups, int):
        return None
    if any(isinstance(part, Node) for one in about if isinstance(one, tuple | list) for part in one):
        return None
    stride, padding, dilation = (tuple(one) if isinstance(one, list) else one for one in about)
    incoming, outgoing, size = weight.shape[1] * groups, weight.shape[0], tuple(weight.shape[2:])
    with torch.device("meta"):
        layer = nn.Conv2d(incoming, outgoing, size, stride, padding, dilation, groups, bias=bias is not None)
    return _over(layer, weight=weight, bias=bias)


def _linear(graph: GraphModule, given: dict[str, Any]) -> nn.Module | None:
    weight, bias = _own_tensor(graph, given["weight"]), _own_tensor(graph, given.get("bias"))
    if weight is NotImplemented or bias is NotImplemented or weight is None or weight.dim() != 2:
        return None
    with torch.device("meta"):
        layer = nn.Linear(weight.shape[1], weight.shape[0], bias=bias is not None)
    return _over(layer, weight=weight, bias=bias)


def _normalization(graph: GraphModule, given: dict[str, Any]) -> nn.Module | None:
    """Return a batch normalization with running statistics, if it follows a convolution."""
    source = given["input"]
    before = (
        graph.get_submodule(str(source.target)) if isinstance(source, Node) and source.op == "call_module" else None
    )
    tensors = {name: _own_tensor(graph, given.get(name)) for name in NORMALIZATION[1:5]}
    if type(before) is not nn.Conv2d or any(one is NotImplemented for one in tensors.values()):
        return None
    if tensors["running_mean"] is None or tensors["running_var"] is None or given.get("training", False) is not False:
        return None
    with torch.device("meta"):
        layer = nn.BatchNorm2d(
            len(tensors["running_mean"]), eps=given.get("eps", 1e-5), affine=tensors["weight"] is not None
        ).eval()
    layer.num_batches_tracked = None
    return _over(layer, **tensors)


def _over(layer: nn.Module, **tensors: Tensor | None) -> nn.Module:
    """Set these tensors as a layer's weights without copying them."""
    for name, tensor in tensors.items():
        if tensor is not None and name in layer._parameters:
            tensor = tensor if isinstance(tensor, nn.Parameter) else nn.Parameter(tensor, requires_grad=False)
        setattr(layer, name, tensor)
    return layer.eval()
