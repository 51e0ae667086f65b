"""Run a network once on noise, record the output sizes of its steps or modules, and find its last spatial layer."""

import math
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.fx import Interpreter, Node
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from atlas.model.graph.cutting import leading
from atlas.model.graph.tracing import Trace
from atlas.model.layers import Layout
from atlas.study.errors import Unsupported

ROWS = 2  # images of noise
BESIDE = 16  # upper bound on tokens without a place: class, distillation and register tokens
SIDES = (224, 64, 32, 96, 128, 256, 299, 384, 28, 512)  # image sizes to try if nothing says which a network takes
SHOWN = 12  # candidates named in a message
UNLIKE = 0.25  # log ratio; from this on, rows and columns do not fit the images' ratio of sides
POOLING = (nn.AdaptiveAvgPool2d, nn.AvgPool2d, nn.Dropout, nn.Dropout2d, nn.Identity)
POOLED = (functional.adaptive_avg_pool2d, functional.avg_pool2d)
ATTENDING = ("scaled_dot_product_attention", "multi_head_attention_forward")  # attention in one step


class Seen(NamedTuple):
    """The output of a step or a module."""

    name: str
    shape: tuple[int, ...]


class Run(NamedTuple):
    """The outputs of a network's modules, in order of computation, and where among them attention is computed."""

    seen: list[Seen]
    attended: list[int]
    """The number of module outputs recorded before each computation of attention."""


class _Attending(TorchFunctionMode):
    """Call `note` when a network computes attention weights (image, head, token, token) or attention at once."""

    def __init__(self, note: Callable[[], None]):
        super().__init__()
        self.note = note

    def __torch_function__(
        self, function: Callable, types: tuple, args: tuple = (), settings: dict[str, Any] | None = None
    ) -> Any:
        """Call a function of torch."""
        found = function(*args, **(settings or {}))
        name = getattr(function, "__name__", "")
        if name in ATTENDING or (name == "softmax" and found.dim() == 4):
            self.note()
        return found


class Sizes(Interpreter):
    """Run a traced network; `seen` then has the shapes of tensors by step, `carrying` the steps with tensors."""

    def __init__(self, trace: Trace):
        super().__init__(trace.graph)
        self.seen: dict[Node, tuple[int, ...]] = {}
        self.carrying: set[Node] = set()

    def run_node(self, n: Node) -> Any:
        """Run one step, and record the size of its output."""
        found = super().run_node(n)
        if isinstance(found, Tensor):
            self.seen[n] = tuple(found.shape)
        if isinstance(found, Tensor) or (
            isinstance(found, tuple | list) and any(isinstance(one, Tensor) for one in found)
        ):
            self.carrying.add(n)
        return found


def noise(network: nn.Module, shape: tuple[int, ...]) -> Tensor:
    """Return images of noise, distributed like normalized ones, in the dtype of the network."""
    parameter = next((one for one in network.parameters() if one.is_floating_point()), torch.zeros(()))
    draws = torch.Generator().manual_seed(0)
    return torch.randn(ROWS, *shape, generator=draws).to(parameter.device, parameter.dtype)


@torch.no_grad()
def sizes(trace: Trace, shape: tuple[int, ...]) -> Sizes:
    """Run a traced network on images of noise of a shape (channel, y, x)."""
    run = Sizes(trace)
    run.run(noise(trace.graph, shape))
    return run


@torch.no_grad()
def module_sizes(network: nn.Module, shape: tuple[int, ...]) -> Run:
    """Run a network on images of noise; return its modules' outputs, and where attention is computed."""
    run = Run([], [])

    def note(name: str) -> Any:
        def hook(layer: nn.Module, entering: tuple, leaving: Any) -> None:
            if isinstance(leaving, Tensor):
                run.seen.append(Seen(name, tuple(leaving.shape)))

        return hook

    hooks = [layer.register_forward_hook(note(name)) for name, layer in network.named_modules() if name]
    try:
        with _Attending(lambda: run.attended.append(len(run.seen))):
            network(noise(network, shape))
    finally:
        for hook in hooks:
            hook.remove()
    return run


def layout_of(found: tuple[int, ...], before: list[tuple[int, ...]], side: tuple[int, ...], last: bool) -> Layout:
    """Return how a layer's activations hold features in rows and columns.

    Args:
        found: Their shape.
        before: The shapes of earlier activations, the latest last.
        side: Height and width of the images.
        last: Whether the network has layers with features in the last dimension.

    Raises:
        Unsupported: there are no rows and columns.
    """
    if len(found) == 4:
        first = not last or _misfit(found[2:], side) <= _misfit(found[1:3], side)
        return Layout("first" if first else "last", 0, found[2:] if first else found[1:3])
    grid = _grid(found, before, side, last) if len(found) == 3 else None
    if grid is None:
        raise Unsupported(f"its layer gives {len(found) - 1} dimensions, and no rows and columns")
    return Layout("tokens", found[1] - grid[0] * grid[1], grid)


def _misfit(rows_columns: tuple[int, ...], side: tuple[int, ...]) -> float:
    """Return the difference between the log aspect ratios of two dimensions and of the images."""
    rows, columns = rows_columns
    return abs(math.log(max(rows, 1) / side[0]) - math.log(max(columns, 1) / side[1]))


def _grid(
    found: tuple[int, ...], before: list[tuple[int, ...]], side: tuple[int, ...], last: bool
) -> tuple[int, ...] | None:
    """Return the rows and columns of tokens: the best fitting of earlier layers, or by the images' aspect ratio."""
    grids = [layout_of(shape, [], side, last).grid for shape in before if len(shape) == 4 and shape[0] == found[0]]
    fits = [grid for grid in grids if 1 < math.prod(grid) <= found[1] <= math.prod(grid) + BESIDE]
    best = min(fits, key=lambda grid: (_misfit(grid, side), found[1] - math.prod(grid)), default=None)
    if best is not None and _misfit(best, side) < UNLIKE:
        return best
    for extra in range(BESIDE + 1):
        rows = math.isqrt(max(0, (found[1] - extra) * side[0] // side[1]))
        if rows and (found[1] - extra) % rows == 0 and rows * side[1] == (found[1] - extra) // rows * side[0]:
            return rows, (found[1] - extra) // rows
    return None


def takes_features_last(network: nn.Module) -> bool:
    """Return whether a network normalizes over the last dimension, as networks with features last do."""
    return any(
        isinstance(layer, nn.LayerNorm) or "layernorm" in type(layer).__name__.lower() for layer in network.modules()
    )


def shapes_to_try(network: nn.Module, channels: int, known: tuple[int, ...] | None) -> Iterator[tuple[int, ...]]:
    """Yield image shapes that a network may take: the one it states, the usual one, the one in use, then others."""
    message = getattr(network, "image_size", None) or (getattr(network, "default_cfg", None) or {}).get("input_size")
    if message is not None:
        side = tuple(message)[-2:] if isinstance(message, tuple | list) else (message, message)
        yield (channels, *side)
    yield channels, SIDES[0], SIDES[0]
    if known is not None:
        yield known
    yield from ((channels, side, side) for side in SIDES[1:])


def last_step(trace: Trace, run: Sizes, side: tuple[int, ...], last: bool) -> str:
    """Find the last step before pooling whose output has rows and columns, and through which all values pass.

    If the last such features are tokens, it is the step before the last attention block.

    Raises:
        Unsupported: there is none, or values take several paths until they are pooled.
    """
    steps = [*trace.graph.graph.nodes]
    wanted = leading(steps[-1:])
    values = {steps[0]}  # steps that depend on pixels; depending on their size only does not count
    for node in steps:
        if node in run.carrying and not values.isdisjoint(node.all_input_nodes):
            values.add(node)
    nodes = [node for node in steps if node in wanted and node in values]
    place = {node: number for number, node in enumerate(nodes)}
    passed, far = [], 0
    for node in nodes:
        if far <= place[node]:
            passed.append(node)
        far = max([far, *(place[user] for user in node.users if user in place)])
    spatial = [node for node in passed if _spatial(run.seen.get(node), side, last)]
    while spatial and _pools(trace, spatial[-1]):
        spatial.pop()
    mixing = [node for node in nodes if _attends(trace, node, run)]
    if mixing and (not spatial or place[mixing[-1]] > place[spatial[-1]]):
        before = [shape for node, shape in run.seen.items() if node in place and place[node] < place[mixing[-1]]]
        for node in reversed([one for one in passed if place[one] < place[mixing[-1]]]):
            shape = run.seen.get(node, ())
            if len(shape) == 3 and _grid(shape, before, side, last):
                return node.name
    later = [
        node
        for node in nodes
        if _spatial(run.seen.get(node), side, last) and not _pools(trace, node)
        if not spatial or (place[node] > place[spatial[-1]] and node not in passed)
    ]
    if not spatial or later:
        raise Unsupported(_candidates(_paths(trace, run, side, last)))
    return spatial[-1].name


def last_module(network: nn.Module, run: Run, side: tuple[int, ...], shape: tuple[int, ...]) -> str:
    """Find the last module before pooling whose output has rows and columns, if all values pass through it.

    If the last such features are tokens, it is the last such module before the last attention block.

    Raises:
        Unsupported: there is no such module.
    """
    names, shapes = [one.name for one in run.seen], [one.shape for one in run.seen]
    last, places = takes_features_last(network), range(len(names))
    spatial = [place for place in places if _spatial(shapes[place], side, last)]
    idle = (*POOLING, nn.Softmax)
    spatial = [place for place in spatial if not isinstance(network.get_submodule(names[place]), idle)]
    tokens = [place for place in places if len(shapes[place]) == 3 and shapes[place][0] == ROWS]
    tokens = [place for place in tokens if _grid(shapes[place], shapes[:place], side, last)]
    end, tries = spatial[-1] if spatial else -1, spatial[-1:]
    if run.attended and run.attended[-1] > end:
        start = max(run.attended[:-1], default=0)  # not in an earlier attention block
        tries = [place for place in reversed(tokens) if start <= place < run.attended[-1]]
    elif tokens and tokens[-1] > end:
        tries = []
    for name in (names[place] for place in tries):
        if names.count(name) == 1 and _decides(network, name, shape):
            return name
    raise Unsupported(_candidates([*dict.fromkeys(names[place] for place in [*spatial, *tokens])]))


@torch.no_grad()
def _decides(network: nn.Module, path: str, shape: tuple[int, ...]) -> bool:
    """Return whether all values pass through a module: with another image's output come its logits."""
    images, given = noise(network, shape), []
    layer = network.get_submodule(path)
    hook = layer.register_forward_hook(lambda *seen: given.append(seen[2].clone()))
    expected = network(images)
    hook.remove()
    hook = layer.register_forward_hook(lambda *seen: given[0].flip(0))
    found = network(images)
    hook.remove()
    if not isinstance(found, Tensor):
        return False
    return bool((found - expected.flip(0)).abs().max() <= 1e-3 * (expected - expected.flip(0)).abs().max())


def _spatial(shape: tuple[int, ...] | None, side: tuple[int, ...], last: bool) -> bool:
    if shape is None or len(shape) != 4 or shape[0] != ROWS:
        return False
    return math.prod(layout_of(shape, [], side, last).grid) > 1


def _pools(trace: Trace, node: Node) -> bool:
    """Return whether a step is average pooling, dropout or an identity."""
    if node.op == "call_module":
        return isinstance(trace.graph.get_submodule(str(node.target)), POOLING)
    return node.target in POOLED


def _attends(trace: Trace, node: Node, run: Sizes) -> bool:
    """Return whether a step computes attention weights, or attention in one step."""
    if node.op == "call_module":
        layer = trace.graph.get_submodule(str(node.target))
        fused = isinstance(layer, nn.MultiheadAttention | nn.TransformerEncoderLayer)
        return fused or (isinstance(layer, nn.Softmax) and len(run.seen.get(node, ())) == 4)
    return node.target is functional.scaled_dot_product_attention


def _paths(trace: Trace, run: Sizes, side: tuple[int, ...], last: bool) -> list[str]:
    """Return the paths of modules whose output has rows and columns, and that are run once per image."""
    single = [(path, steps[0]) for path, steps in trace.steps.items() if len(steps) == 1 and steps[0] is not None]
    return [path for path, step in single if _spatial(run.seen.get(step), side, last)]


def _candidates(paths: list[str]) -> str:
    message = ", ".join(paths[-SHOWN:]) or "none"
    return (
        "its last layer with rows and columns, through which all values go before they are pooled, is not found: name "
        f"one in place of 'final'; those with rows and columns are, at the end: {message}"
    )
