"""Turn a part of a network into one that runs faster, and in which every ReLU can be found."""

from contextlib import suppress

import torch
from torch import nn
from torch.fx.experimental.optimization import fuse


def folded(part: nn.Module) -> nn.Module:
    """Fold batch normalization into the convolutions before it, and make every ReLU a module, where it can be traced.

    A network that Python control flow keeps from being traced stays as it is: slower, and right.
    """
    with suppress(Exception):  # what a forward raises when it meets stand-ins for tensors, it alone knows
        part = _modular(fuse(part))
    for layer in part.modules():
        if isinstance(layer, nn.ReLU | nn.ReLU6):
            layer.inplace = False  # backward hooks, and gradients by features, need the input intact
    return part


# Functions that are layers, by the layer.
RELUS = {
    **dict.fromkeys((torch.relu, torch.relu_, nn.functional.relu, nn.functional.relu_, "relu", "relu_"), nn.ReLU),
    nn.functional.relu6: nn.ReLU6,
}


def _modular(graph: torch.fx.GraphModule) -> torch.fx.GraphModule:
    """Turn every call of a ReLU function into a module, which can be hooked."""
    for number, node in enumerate(list(graph.graph.nodes)):
        if node.op in ("call_function", "call_method") and node.target in RELUS:
            graph.add_submodule(f"relu_{number}", RELUS[node.target]())
            with graph.graph.inserting_after(node):
                module = graph.graph.call_module(f"relu_{number}", (node.args or (node.kwargs["input"],))[:1])
            node.replace_all_uses_with(module)
            graph.graph.erase_node(node)
    graph.recompile()
    return graph
