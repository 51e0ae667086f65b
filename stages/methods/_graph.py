"""Name the kind of every step of a traced network, for methods that need a rule for each."""

import operator
from copy import deepcopy

import torch
from torch import Tensor, nn
from torch.fx import GraphModule, Node
from torch.nn import functional
from zennit.types import Activation, AvgPool

from stages.study.problem import Unsupported

MODULES = (
    ("convolution", nn.Conv2d),
    ("linear", nn.Linear),
    ("normalization", nn.BatchNorm2d),
    ("maximum", nn.MaxPool2d),
    ("average", AvgPool),
    ("shape", (nn.Flatten, nn.Identity, nn.Dropout, nn.Dropout2d)),
    ("unknown", nn.MultiheadAttention),  # zennit counts it among the activations
    ("activation", Activation),
)
FUNCTIONS = {
    **dict.fromkeys([operator.add, operator.iadd, torch.add], "sum"),
    **dict.fromkeys([functional.adaptive_avg_pool2d, functional.avg_pool2d, torch.mean], "average"),
    **dict.fromkeys([functional.relu6, functional.hardtanh, functional.leaky_relu, functional.elu], "activation"),
    **dict.fromkeys([functional.silu, functional.gelu, functional.hardswish, torch.tanh], "activation"),
    **dict.fromkeys([torch.flatten, torch.cat, functional.dropout, operator.getitem, getattr], "shape"),
}
METHODS = {
    **dict.fromkeys(["add", "add_"], "sum"),
    **dict.fromkeys(["view", "reshape", "flatten", "contiguous", "size", "squeeze"], "shape"),
    "mean": "average",
    "tanh": "activation",
}

# Functions that compute attention at once.
FUSED = ("scaled_dot_product_attention", "multi_head_attention_forward")


def kind(graph: GraphModule, node: Node) -> str:
    """Give a node's kind: what a MODULES, FUNCTIONS or METHODS entry says, or `ends` for input and output.

    Everything but `activation`, `maximum` and a `normalization` is linear in its inputs up to a bias.

    Raises:
        Unsupported: there is no rule for such a step.
    """
    if node.op in ("placeholder", "output"):
        return "ends"
    if node.op == "call_module":
        layer = graph.get_submodule(node.target)
        name = type(layer).__name__
        found = next((kind for kind, types in MODULES if isinstance(layer, types)), "unknown")
    else:
        name = getattr(node.target, "__name__", str(node.target))
        found = {"call_function": FUNCTIONS, "call_method": METHODS}.get(node.op, {}).get(node.target, "unknown")
    if found == "sum" and (node.kwargs or not all(isinstance(summand, Node) for summand in node.args)):
        found = "unknown"  # a constant is no place for relevance, and a weight is no plain sum
    if found == "unknown" and (name in FUSED or name == "MultiheadAttention"):
        raise Unsupported(f"its attention is fused ({name}), and no rule is known for it")
    if found == "unknown":
        raise Unsupported(f"no rule is known for the step {name} of its forward")
    return found


def step(graph: GraphModule, node: Node) -> nn.Module:
    """Give what a node calls as a layer of one tensor: its own, never in place, over the network's weights."""
    if node.op != "call_module":
        return _Step(node)
    shared = graph.get_submodule(node.target)
    layer = deepcopy(shared, {id(weight): weight for weight in shared.parameters()})
    if hasattr(layer, "inplace"):
        layer.inplace = False
    return layer


class _Step(nn.Module):
    def __init__(self, node: Node):
        super().__init__()
        self.function = node.target if node.op == "call_function" else getattr(Tensor, node.target)
        self.others, self.settings = node.args[1:], dict(node.kwargs)
        if "inplace" in self.settings:
            self.settings["inplace"] = False

    def forward(self, entering: Tensor) -> Tensor:
        return self.function(entering, *self.others, **self.settings)
