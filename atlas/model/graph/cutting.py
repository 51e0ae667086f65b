"""Cut a network at one of its modules: by its steps if they are known, else by hooks."""

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

from torch import Tensor, nn
from torch.fx import Graph, GraphModule, Node

from atlas.model.graph.tracing import Trace, regrouped
from atlas.study.errors import Unsupported


class Halves(NamedTuple):
    """A network cut in two.

    `before` maps normalized images to a tuple: a layer's activations, and the other values that `after` needs; `after`
    maps these to logits.
    """

    before: nn.Module
    after: nn.Module


class Start(nn.Module):
    """The part before the input, which does nothing."""

    def forward(self, images: Tensor) -> tuple[Tensor]:
        """Return the images."""
        return (images,)


class Whole(nn.Module):
    """Run an untraced network on a copy of the images, so that they stay unchanged."""

    def __init__(self, network: nn.Module):
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Any:
        """Return the network's output."""
        return self.network(images.clone())


class _Hooked(nn.Module):
    """A network of which one module gets a hook while it runs on a copy of the images."""

    def __init__(self, network: nn.Module, layer: str):
        super().__init__()
        self.network, self.layer = network, layer


class Until(_Hooked):
    """Run a network until one of its modules has returned its activations."""

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Return the activations, and the images, which `After` needs to start again."""

        def stop(layer: nn.Module, entering: tuple, leaving: Any) -> None:
            raise _Reached(leaving)

        hook = self.network.get_submodule(self.layer).register_forward_hook(stop)
        try:
            self.network(images.clone())
        except _Reached as reached:
            return _tensor(reached.leaving, self.layer).clone(), images
        finally:
            hook.remove()
        raise Unsupported(f"its layer '{self.layer}' is not run")


class After(_Hooked):
    """Run a whole network in which the output of one module is replaced by given activations."""

    def forward(self, activations: Tensor, images: Tensor) -> Any:
        """Return the network's output."""
        calls: list[int] = []

        def exchange(layer: nn.Module, entering: tuple, leaving: Any) -> Tensor:
            calls.append(1)
            return activations.clone()  # later layers may work in place

        hook = self.network.get_submodule(self.layer).register_forward_hook(exchange)
        try:
            found = self.network(images.clone())
        finally:
            hook.remove()
        if len(calls) > 1:
            raise Unsupported(f"its layer '{self.layer}' is run {len(calls)} times for an image, expected once")
        return found


class _Reached(Exception):
    def __init__(self, leaving: Any):
        super().__init__()
        self.leaving = leaving


def hooked(network: nn.Module, layer: str) -> Halves:
    """Cut a network with hooks after the module of a path; the second half starts from the images again each time."""
    return Halves(Until(network, layer), After(network, layer))


def split(trace: Trace, step: Node, of_rows: Callable[[Node], bool]) -> tuple[GraphModule, GraphModule]:
    """Cut a traced network after a step, and return the two parts as in `Halves`.

    What does not depend on that step is computed before the cut, and passed on if it is needed: tensors with a row per
    image, and sizes.

    Args:
        trace: The traced network.
        step: The step after which to cut.
        of_rows: Returns whether a step's value is a tensor whose first dimension is that of the images.

    Raises:
        Unsupported: the logits do not depend on the step.
    """
    nodes = [*trace.graph.graph.nodes]
    images, output = next(node for node in nodes if node.op == "placeholder"), nodes[-1]
    of_images, behind = {images} | following(nodes, images), following(nodes, step)
    if output not in behind:
        raise Unsupported(f"its logits do not depend on {step.name}")
    needed = leading([output])

    def counts(node: Node) -> bool:  # the number of images, which the activations have, too
        counted = _counted(node)
        return counted is not None and of_rows(counted)

    handed = [
        node
        for node in nodes
        if node in needed and node in of_images and node not in behind and node is not step
        if not counts(node) and any(user in behind and user in needed for user in node.users)
    ]
    copied: dict[Node, Node] = {}
    before, earlier = Graph(), leading([step, *handed])
    for node in nodes:
        if node in earlier:
            copied[node] = before.node_copy(node, copied.__getitem__)
    before.output((copied[step], *(copied[node] for node in handed)))
    after = Graph()
    copied = {node: after.placeholder(name) for node, name in zip([step, *handed], _names(handed), strict=True)}
    rows: list[Node] = []
    for node in nodes:
        if node in copied or node not in needed:
            continue
        if node in behind or node not in of_images:
            copied[node] = after.node_copy(node, copied.__getitem__)
        elif counts(node) and any(user in behind for user in node.users):
            rows = rows or [after.call_method("size", (copied[step], 0))]
            copied[node] = rows[0]
    halves = regrouped(trace.graph, before), regrouped(trace.graph, after)
    for half in halves:
        half.graph.eliminate_dead_code()
        half.recompile()
    return halves


def _names(handed: list[Node]) -> list[str]:
    return ["activations", *(f"beside_{place}" for place in range(len(handed)))]


def following(nodes: list[Node], start: Node) -> set[Node]:
    """Return the steps that depend on one, without that one."""
    found = {start}
    for node in nodes:
        if not found.isdisjoint(node.all_input_nodes):
            found.add(node)
    return found - {start}


def leading(ends: Iterable[Node]) -> set[Node]:
    """Return the steps that others depend on, including these."""
    found, waiting = set(), [*ends]
    while waiting:
        node = waiting.pop()
        if node not in found:
            found.add(node)
            waiting += node.all_input_nodes
    return found


def _counted(node: Node) -> Node | None:
    """Return the step whose value's first size a step computes; None if it computes anything else."""
    if node.op == "call_method" and node.target == "size":
        return _first(node) if node.args[1:] == (0,) else None
    if node.op != "call_function" or node.args[1:] != (0,) or not isinstance(node.args[0], Node):
        return None
    shape, name = node.args[0], getattr(node.target, "__name__", "")
    asked = shape.args[1:] == ("shape",) and getattr(shape.target, "__name__", "") == "getattr"
    whole = shape.op == "call_method" and shape.target == "size" and len(shape.args) == 1
    return _first(shape) if name == "getitem" and (asked or whole) else None


def _first(node: Node) -> Node | None:
    found = node.args[0]
    return found if isinstance(found, Node) else None


def _tensor(found: Any, layer: str) -> Tensor:
    if not isinstance(found, Tensor):
        raise Unsupported(f"its layer '{layer}' gives a {type(found).__name__}, expected one tensor")
    return found


def graph_of(half: GraphModule) -> GraphModule:
    """Return a half as a new graph over the same layers."""
    steps = Graph()
    steps.output(steps.graph_copy(half.graph, {}))
    return GraphModule(half, steps)
