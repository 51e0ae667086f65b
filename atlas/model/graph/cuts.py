"""Find a network's layers: where each one is, how it holds rows and columns, and what follows it."""

import math
from collections.abc import Callable
from copy import deepcopy
from typing import Any

from torch import nn
from torch.fx import GraphModule, Node

from atlas.model.graph import probing
from atlas.model.graph.cutting import Halves, Start, Whole, graph_of, hooked, split
from atlas.model.graph.fuse import fused
from atlas.model.graph.tracing import Trace, traced
from atlas.model.layers import Layout
from atlas.study.errors import Unsupported


class Cuts:
    """Find the layers of a network, and cut the network at them.

    Args:
        network: The network as built.
        plain: Whether it is to run as built: neither traced nor fused.
        channels: Number of image channels.
    """

    def __init__(self, network: nn.Module, plain: bool, channels: int):
        self._network, self._channels, self._plain = network, channels, plain
        found = None if plain else traced(network)
        self.trace = found if isinstance(found, Trace) else None
        self.untraced = "" if self.trace else str(found or "")
        self._runs: dict[tuple, Any] = {}
        self._places: dict[str, str] = {}

    def halves(self, layer: str, shape: tuple[int, ...] | None) -> Halves:
        """Cut the network at a layer; traced layers are copies, with batch normalization fused into them.

        Args:
            layer: `input`, `final`, or the path of a module.
            shape: The shape of an image, if known.
        """
        if layer == "input":
            if self.trace is None:
                return Halves(Start(), Whole(deepcopy(self._network)))
            return Halves(Start(), fused(deepcopy(graph_of(self.trace.graph))))
        place = self.place(layer, shape)
        if self.trace is None or place.startswith(HOOKED):
            return hooked(deepcopy(self._network), place.removeprefix(HOOKED))

        def of_rows(step: Node) -> bool:
            return step.op == "placeholder" or self._any_run(shape)[1].seen.get(step, (0,))[0] == probing.ROWS

        return Halves(*(fused(half) for half in split(self.trace, self._step(place), of_rows)))

    def place(self, layer: str, shape: tuple[int, ...] | None) -> str:
        """Return the step that is a layer, or the module if steps are not known.

        Args:
            layer: `final`, or the path of a module.
            shape: The shape of an image, if known.

        Raises:
            Unsupported: the layer does not exist, or does not return one tensor exactly once per image.
        """
        if layer not in self._places:
            self._places[layer] = self._place(layer, shape)
        return self._places[layer]

    def _place(self, layer: str, shape: tuple[int, ...] | None) -> str:
        if layer == "final":
            if not self._has_features_and_head(shape):
                return self._final(shape)
            layer = "features"
        if self._module(layer) is None:
            known = self._known(layer)
            raise Unsupported(f"it has no layer '{layer}' to be cut at; there are: input, final, and {known}")
        steps = self.trace.steps.get(layer, []) if self.trace else None
        if steps is None or (not steps and self._module(layer)):
            return HOOKED + layer
        if len(steps) > 1:
            raise Unsupported(f"its layer '{layer}' is run {len(steps)} times for an image, expected once")
        if steps[0] is None:
            raise Unsupported(f"its layer '{layer}' gives no tensor, or several, expected one")
        return steps[0].name

    def check_known(self, after: nn.Module, kind: str) -> GraphModule:
        """Check that every step of the part after a layer is known, and return that part.

        Args:
            after: The part after the layer.
            kind: What the caller looks for, for the message: ReLU, or layer.

        Raises:
            Unsupported: some step is not.
        """
        hidden = f"so that not every {kind} can be found"
        if self._plain:
            raise Unsupported(f"its network runs as it was built, untraced, {hidden}")
        if self.trace is None or not isinstance(after, GraphModule):
            why = f" ({self.untraced})" if self.untraced else ""
            raise Unsupported(f"its forward cannot be traced{why}, {hidden}")
        opaque = [type(one).__name__ for one in after.modules() if type(one) in self.trace.opaque]
        if opaque and kind == "ReLU":
            raise Unsupported(f"the forward of {opaque[0]} cannot be traced, {hidden}")
        return after

    def layout(self, layer: str, found: tuple[int, ...], shape: tuple[int, ...]) -> Layout:
        """Return how a layer's activations of shape `found` hold rows and columns, for images of a shape.

        A network on tokens may state in its attribute `grid` how many rows and columns its last tokens form.

        Raises:
            Unsupported: they have none.
        """
        last, side = probing.takes_features_last(self._network), shape[-2:]
        if len(found) != 3:
            return probing.layout_of(found, [], side, last)
        grid = getattr(self._network, "grid", None)
        if grid is not None and grid[0] * grid[1] <= found[1]:
            return Layout("tokens", found[1] - grid[0] * grid[1], tuple(grid))
        place = "" if layer == "input" else self.place(layer, shape)
        if self.trace is None or place.startswith(HOOKED):
            names = [(one.name, one.shape) for one in self._modules(shape).seen]
        else:
            names = [(node.name, size) for node, size in self._steps(shape).seen.items()]
        before = [name for name, _ in names].index(place.removeprefix(HOOKED)) if place else len(names)
        rows = [(probing.ROWS, *size[1:]) for _, size in names[:before] if size and size[0] == probing.ROWS]
        return probing.layout_of((probing.ROWS, *found[1:]), rows, side, last)

    def _final(self, shape: tuple[int, ...] | None) -> str:
        size, run = self._any_run(shape)
        last = probing.takes_features_last(self._network)
        if self.trace is not None:
            return probing.last_step(self.trace, run, size[-2:], last)
        return HOOKED + probing.last_module(self._network, run, size[-2:], size)

    def _has_features_and_head(self, shape: tuple[int, ...] | None) -> bool:
        """Return whether the network is a sequence of `features`, whose output has rows and columns, and `head`."""
        chain = [name for name, _ in self._network.named_children()]
        if not isinstance(self._network, nn.Sequential) or chain != ["features", "head"]:
            return False
        try:
            size, run = self._any_run(shape)
        except Unsupported:  # no image size is known that it takes: decide by the names
            return True
        seen = {node.name: found for node, found in run.seen.items()} if self.trace is not None else dict(run.seen)
        try:
            found = seen.get(self.place("features", shape).removeprefix(HOOKED), ())
            return math.prod(self.layout("features", found, size).grid) > 1
        except Unsupported:  # not exactly one tensor, or one without rows and columns
            return False

    def _any_run(self, shape: tuple[int, ...] | None) -> tuple[tuple[int, ...], Any]:
        """Return an image shape that the network takes, and the recorded run of noise of this shape; found out once."""
        return self._once(("any", shape), lambda: self._tried(shape))

    def _tried(self, shape: tuple[int, ...] | None) -> tuple[tuple[int, ...], Any]:
        message = ""
        for one in probing.shapes_to_try(self._network, self._channels, shape):
            try:
                return one, self._steps(one) if self.trace is not None else self._modules(one)
            except Exception as error:  # a network may raise anything for a size that it does not take
                message = f"of {' x '.join(map(str, one))}, {type(error).__name__}: {error}".splitlines()[0]
        raise Unsupported(f"its last layer with rows and columns is not found: it takes no images of noise ({message})")

    def _steps(self, shape: tuple[int, ...]) -> probing.Sizes:
        assert self.trace is not None
        trace = self.trace
        return self._once(("steps", shape), lambda: probing.sizes(trace, shape))

    def _modules(self, shape: tuple[int, ...]) -> probing.Run:
        return self._once(("modules", shape), lambda: probing.module_sizes(self._network, shape))

    def _once(self, what: tuple, make: Callable[[], Any]) -> Any:
        if what not in self._runs:
            self._runs[what] = make()
        return self._runs[what]

    def _step(self, name: str) -> Node:
        assert self.trace is not None
        return next(node for node in self.trace.graph.graph.nodes if node.name == name)

    def _module(self, path: str) -> nn.Module | None:
        try:
            return self._network.get_submodule(path) if path else None
        except AttributeError:
            return None

    def _known(self, path: str) -> str:
        """List the layers in the deepest existing part of a path."""
        while path and self._module(path) is None:
            path = path.rpartition(".")[0]
        within = self._module(path) or self._network
        names = [f"{path}.{name}" if path else name for name, _ in within.named_children()]
        where = f"'{path}'" if path else "the network"
        return f"in {where}: {', '.join(names) or 'none'}"


HOOKED = "module "  # prefix of the path of a module that is not a step
