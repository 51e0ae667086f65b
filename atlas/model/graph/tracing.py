"""Trace a network with torch.fx: every step of its forward, and which step computes each module's output."""

from copy import deepcopy
from typing import Any

import torch
from torch import nn
from torch.fx import Graph, GraphModule, Node, Proxy

from atlas.model.graph.explicit import separate_attention
from atlas.model.graph.rewriting import rewrite


class Trace:
    """A network's forward as a graph over its own weights.

    Args:
        network: The network as built; it is not modified.
        opaque: Classes whose forward cannot be traced; each of their modules is one step.

    Attributes:
        graph: The graph of all steps, none in place, with attention written out.
        steps: By a module's path, the steps that compute its outputs, one per call; None for an output that is no
            tensor.
    """

    def __init__(self, network: nn.Module, opaque: frozenset[type]):
        tracer = _Tracer(opaque)
        self.opaque = opaque
        root = separate_attention(_shared(network))
        try:
            graph = tracer.trace(root)
        except Exception as error:  # a forward may raise anything when it meets proxies
            raise Untraceable(tracer.failed, f"{type(error).__name__}: {error}") from None
        self.graph = GraphModule(root, graph)
        found = rewrite(self.graph)
        self.steps = {
            path: [found.get(step, step) if step is not None else None for step in steps]
            for path, steps in tracer.steps.items()
        }
        for path, layer in network.named_modules(remove_duplicate=False):  # a module may have a second name
            first = next((known for known, other in network.named_modules() if other is layer), path)
            if path not in self.steps and first in self.steps:
                self.steps[path] = self.steps[first]


class Untraceable(Exception):
    """A forward that cannot be traced; `layer` is the innermost module at which tracing failed, unless the whole did.

    It branches on values, or needs a tensor's numbers or size.
    """

    def __init__(self, layer: nn.Module | None, message: str):
        super().__init__(" ".join(message.split())[:200])
        self.layer = layer


def traced(network: nn.Module) -> Trace | Untraceable:
    """Trace a network, with small untraceable modules as single steps; or return why that is not possible."""
    opaque: frozenset[type] = frozenset()
    while True:
        try:
            return Trace(network, opaque)
        except Untraceable as error:
            layer = error.layer
            small = layer is not None and not any(one is not layer and [*one.parameters()] for one in layer.modules())
            if not small or type(layer) in opaque:
                return error
            opaque |= {type(layer)}


class _Tracer(torch.fx.Tracer):
    def __init__(self, opaque: frozenset[type]):
        super().__init__()
        self.opaque = opaque
        self.steps: dict[str, list[Node | None]] = {}
        self.failed: nn.Module | None = None
        self.begun = False

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return type(m) in self.opaque or super().is_leaf_module(m, module_qualified_name)

    def create_proxy(self, kind: str, target: Any, args: tuple, kwargs: dict, *about: Any, **more: Any) -> Any:
        """Create a proxy for the images; optional arguments of the forward keep their defaults."""
        option = kind == "placeholder" and self.begun and bool(args)
        self.begun |= kind == "placeholder"
        return args[0] if option else super().create_proxy(kind, target, args, kwargs, *about, **more)

    def call_module(self, m: nn.Module, forward: Any, args: tuple, kwargs: dict) -> Any:
        try:
            found = super().call_module(m, forward, args, kwargs)
        except Exception:
            self.failed = self.failed or m
            raise
        step = found.node if isinstance(found, Proxy) else None
        self.steps.setdefault(self.path_of_module(m), []).append(step)
        return found


def _shared(network: nn.Module) -> nn.Module:
    """Copy modules, but share parameters and buffers with the original."""
    tensors = [*network.parameters(), *network.buffers()]
    return deepcopy(network, {id(tensor): tensor for tensor in tensors})


def regrouped(graph: GraphModule, steps: Graph) -> GraphModule:
    """Make a separate module of some steps of a graph, with copies of the layers that they need."""
    return deepcopy(GraphModule(graph, steps))
