"""Determine the kind of every step of a traced network, for methods that need a rule for each."""

from collections.abc import Callable
from functools import partial
from typing import Any

from torch import Tensor, nn
from torch.fx import GraphModule, Interpreter, Node
from torch.fx.node import map_arg
from zennit.types import Activation, AvgPool

from atlas.model.resizing import reduced
from atlas.study.errors import Unsupported

MODULES = (
    ("convolution", nn.Conv2d),
    ("linear", nn.Linear),
    ("normalization", nn.BatchNorm2d),
    ("layer_norm", nn.LayerNorm),
    ("softmax", nn.Softmax),
    ("maximum", nn.MaxPool2d),
    ("average", AvgPool),
    ("shape", (nn.Flatten, nn.Unflatten, nn.Identity, nn.Dropout, nn.Dropout2d, nn.ChannelShuffle, nn.PixelShuffle)),
    ("shape", (nn.ZeroPad2d, nn.ReflectionPad2d, nn.ReplicationPad2d)),
    ("unknown", nn.MultiheadAttention),  # zennit counts it among the activations
    ("activation", Activation),
)
# Functions by name, which is the same in torch, torch.nn.functional, operator and for tensors.
KINDS = {
    "add": "sum",
    "sub": "shift",
    **dict.fromkeys(("mul", "multiply", "matmul", "bmm", "einsum"), "product"),
    **dict.fromkeys(("truediv", "div"), "scale"),
    "batch_norm": "normalization",
    "layer_norm": "layer_norm",
    "softmax": "softmax",
    "max_pool2d": "maximum",
    **dict.fromkeys(("adaptive_avg_pool2d", "avg_pool2d", "mean", "reduced"), "average"),
    **dict.fromkeys(("relu", "relu6", "hardtanh", "leaky_relu", "elu", "silu", "gelu", "hardswish"), "activation"),
    **dict.fromkeys(("tanh", "sigmoid", "hardsigmoid", "softplus", "mish", "clamp"), "activation"),
    **dict.fromkeys(("flatten", "unflatten", "view", "reshape", "squeeze", "unsqueeze", "expand"), "shape"),
    **dict.fromkeys(("permute", "transpose", "swapaxes", "contiguous", "clone", "roll", "pad"), "shape"),
    **dict.fromkeys(("chunk", "split", "unbind", "select", "narrow", "getitem", "cat", "concat", "stack"), "shape"),
    **dict.fromkeys(("dropout", "stochastic_depth", "channel_shuffle", "pixel_shuffle", "_patch_merging_pad"), "shape"),
    **dict.fromkeys(("size", "dim", "ndimension", "getattr"), "fixed"),
}
# The modules of these functions.
FROM = (
    *("torch", "torch.functional", "torch.nn.functional", "torch._C._nn", "_operator"),
    *("torchvision.ops.stochastic_depth", "torchvision.models.swin_transformer"),
)
MATRICES = ("matmul", "bmm", "einsum")
GATES = (nn.Sigmoid, nn.Hardsigmoid)

# Functions that compute attention in one step.
FUSED = ("scaled_dot_product_attention", "multi_head_attention_forward", "shifted_window_attention")


def kinds(graph: GraphModule) -> dict[Node, str]:
    """Return the kind of every step of a graph.

    `ends` are input and output; `fixed` steps do not depend on the image's values, such as weights and sizes. A `shift`
    adds something fixed and a `scale` multiplies by it; in a `sum` and a `product`, both operands depend on the image.

    Everything but `activation`, `maximum`, `product`, `layer_norm` and `softmax` is linear in its inputs up to a bias.

    Raises:
        Unsupported: there is no rule for a step.
    """
    found: dict[Node, str] = {}
    for node in graph.graph.nodes:
        found[node] = "ends" if node.op in ("placeholder", "output") else _kind(graph, node, found)
    return found


class Steps(Interpreter):
    """Run a traced network, in which nothing works in place, step by step.

    Raises:
        Unsupported: there is no rule for a step.
    """

    def __init__(self, graph: GraphModule):
        self.kinds = kinds(graph)
        super().__init__(graph)

    def run(self, *given: Any, **settings: Any) -> Any:
        """Run all steps.

        Their values are released afterwards: a rule's autograd node holds its step's function, which holds this object.
        If this object held the last output, whose history leads back to the node, the garbage collector could not see
        the cycle.
        """
        try:
            return super().run(*given, **settings)
        finally:
            self.env = {}

    def given(self, node: Node) -> list[Node]:
        """Return the inputs of a step that depend on the image's values, with repetitions."""
        return _given(node, self.kinds)

    def function(self, node: Node) -> Callable[..., Any]:
        """Return a step, while it runs, as a function of its inputs that depend on the image's values."""
        fixed = {source: self.env[source] for source in node.all_input_nodes if self.kinds[source] == "fixed"}

        def of(*given: Tensor) -> Any:
            left = iter(given)
            load = partial(map_arg, fn=lambda source: fixed[source] if source in fixed else next(left))
            return getattr(self, node.op)(node.target, load(node.args), load(node.kwargs))

        return of

    def layer(self, node: Node) -> Any:
        """Return the layer that a step calls."""
        return self.module.get_submodule(str(node.target))

    def pooling(self, node: Node) -> nn.MaxPool2d:
        """Return a pooling step as a layer."""
        if node.op == "call_module":
            return self.layer(node)
        args, settings = self.fetch_args_kwargs_from_env(node)
        return nn.MaxPool2d(*args[1:], **{name: value for name, value in settings.items() if name != "input"})

    def dimension(self, node: Node) -> int:
        """Return the dimension over which a softmax sums to 1."""
        if node.op == "call_module":
            return self.layer(node).dim
        given: Any = node.args[1] if len(node.args) > 1 else node.kwargs["dim"]
        return given

    def gate(self, node: Node) -> int | None:
        """Return which factor of a product is a gate (a sigmoid, possibly reshaped), if one is."""
        gates = [place for place, factor in enumerate(self.given(node)) if self._gates(factor)]
        return gates[0] if len(gates) == 1 and _name(self.module, node) not in MATRICES else None

    def _gates(self, node: Node) -> bool:
        while self.kinds[node] == "shape" and len(self.given(node)) == 1:
            (node,) = self.given(node)
        if node.op == "call_module":
            return isinstance(self.layer(node), GATES)
        return _name(self.module, node) in ("sigmoid", "hardsigmoid")


def normalization(steps: Steps, node: Node) -> tuple[tuple[int, ...], Tensor | None, Tensor | None, float]:
    """Return a layer normalization's dimensions, weight, bias and ε."""
    if node.op == "call_module":
        layer = steps.layer(node)
        shape, weight, bias, epsilon = layer.normalized_shape, layer.weight, layer.bias, layer.eps
    else:
        names, given = ("input", "normalized_shape", "weight", "bias", "eps"), steps.fetch_args_kwargs_from_env(node)
        values = {"weight": None, "bias": None, "eps": 1e-5} | dict(zip(names, given[0], strict=False)) | given[1]
        shape, weight, bias, epsilon = (values[name] for name in names[1:])
    return tuple(range(-len(shape), 0)), weight, bias, epsilon


def _given(node: Node, found: dict[Node, str]) -> list[Node]:
    sources: list[Node] = []
    map_arg((node.args, node.kwargs), sources.append)
    return [source for source in sources if found[source] != "fixed"]


def _kind(graph: GraphModule, node: Node, found: dict[Node, str]) -> str:
    given = _given(node, found)
    if not given:
        return "fixed"
    name = _name(graph, node)
    if node.op == "call_module":
        layer: Any = graph.get_submodule(str(node.target))
        kind = next((kind for kind, types in MODULES if isinstance(layer, types)), "unknown")
        if kind == "normalization" and (layer.training or layer.running_mean is None):
            kind = "unknown"  # normalizes by the batch
    else:
        known = node.op == "call_method" or node.target in (getattr, reduced)
        known = known or getattr(node.target, "__module__", "") in FROM
        kind = _checked(node, name, KINDS.get(name, "unknown") if known else "unknown", given)
    if kind == "unknown" and (name in FUSED or name == "MultiheadAttention"):
        raise Unsupported(f"its attention is fused ({name}), and no rule is known for it")
    if kind == "unknown":
        raise Unsupported(f"no rule is known for the step {name} of its forward")
    return kind


def _checked(node: Node, name: str, kind: str, given: list[Node]) -> str:
    """Return the kind of a function call, by its inputs."""
    one, leading = len(given) == 1, bool(given) and node.args[:1] == (given[0],)
    if name == "getattr":
        return {"T": "shape", "mT": "shape"}.get(str(node.args[1]), "fixed")
    if kind == "fixed":
        return kind
    if kind == "sum":
        return "unknown" if "alpha" in node.kwargs else "shift" if one else kind
    if kind == "product":
        both = len(given) == 2 and len(node.all_input_nodes) == len(set(given))
        return kind if both else "scale" if one and name not in MATRICES else "unknown"
    if kind in ("shift", "scale"):  # the subtrahend or divisor must be fixed
        return kind if one and leading and not node.kwargs else "unknown"
    if kind == "normalization" and (node.args[5:6] or (node.kwargs.get("training", False),))[0]:
        return "unknown"
    if name == "pad" and [*node.args[2:3], node.kwargs.get("mode", "constant")][0] == "constant":
        value = [*node.args[3:4], node.kwargs.get("value")][0]
        return kind if one and value in (None, 0) else "unknown"
    return kind if one or name in ("cat", "concat", "stack") else "unknown"


def _name(graph: nn.Module, node: Node) -> str:
    if node.op == "call_module":
        return type(graph.get_submodule(str(node.target))).__name__
    return str(getattr(node.target, "__name__", node.target))
