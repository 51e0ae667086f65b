"""Layer-wise relevance propagation: a zennit rule for every step of a traced network."""

import torch
from torch import Tensor, nn
from torch.fx import GraphModule, Node
from zennit.core import BasicHook, Composite, Hook
from zennit.layer import Sum
from zennit.rules import ClampMod, Epsilon, Norm, Pass, ZBox, ZPlus

from stages.methods._graph import kind, step
from stages.model.classifier import Classifier
from stages.model.memory import shared
from stages.study.problem import Unsupported

# Kinds of steps that give nothing below 0 where nothing below 0 comes in.
KEEPING = ("maximum", "average", "sum", "shape")


@shared
def ruled(classifier: Classifier, epsilon: float, layer: str) -> tuple[GraphModule, Composite]:
    """Give the network as a graph in which every step that needs a rule is a layer of its own, and those rules.

    A layer that is called twice becomes two: zennit remembers one input of each. The network is traced but once.

    Raises:
        Unsupported: the network cannot be traced, or holds a step without a rule.
    """
    graph = classifier.graph(layer)
    low, high = (classifier.normalized(torch.full_like(classifier.mean, end).view(1, -1, 1, 1)) for end in (0.0, 1.0))
    rules: dict[str, Hook] = {}
    nodes = list(graph.graph.nodes)
    # What lies behind weights; the box of images bounds the rest.
    weighed: set[Node] = set() if layer == "input" else set(nodes[:1])
    positive: set[Node] = set()  # nowhere below 0, so that half of z⁺ is 0
    for number, node in enumerate(nodes):
        found = kind(graph, node)
        sources = node.all_input_nodes
        behind, halved = any(source in weighed for source in sources), positive.issuperset(sources)
        if found == "normalization":
            raise Unsupported("a batch normalization does not follow a convolution, so that it cannot be folded")
        stays = _rectifies(graph, node) or (found in KEEPING and halved)
        plus = BasicHook(param_modifiers=[ClampMod(min=0.0)]) if halved else ZPlus()
        rule = {
            "convolution": plus if behind else ZBox(low, high),
            "linear": Epsilon(epsilon),
            "average": Norm(),
            "sum": Norm(),
            "activation": Pass(),
        }.get(found)
        if rule is not None:
            name = f"ruled_{number}"
            graph.add_submodule(name, Sum() if found == "sum" else step(graph, node))
            rules[name] = rule
            node = _called(graph, node, name, found)
        if stays:
            positive.add(node)
        if behind or found in ("convolution", "linear"):
            weighed.add(node)
    graph.recompile()
    return graph, Composite(module_map=lambda context, name, layer: rules.get(name))


def _rectifies(graph: GraphModule, node: Node) -> bool:
    """Tell an activation that gives nothing below 0."""
    return node.op == "call_module" and isinstance(graph.get_submodule(node.target), nn.ReLU | nn.ReLU6 | nn.Sigmoid)


def _called(graph: GraphModule, node: Node, name: str, found: str) -> Node:
    """Let a node call a layer by that name."""
    if node.op == "call_module":
        node.target = name
        return node
    with graph.graph.inserting_before(node):
        entering = graph.graph.call_function(_stacked, node.args) if found == "sum" else node.args[0]
        module = graph.graph.call_module(name, (entering,))
    node.replace_all_uses_with(module)
    graph.graph.erase_node(node)
    return module


def _stacked(*summands: Tensor) -> Tensor:
    return torch.stack(torch.broadcast_tensors(*summands), dim=-1)
