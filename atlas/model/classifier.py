"""Run a classifier: images in [0, 1] to logits, gradients and features, in batches of one fixed size.

At a fixed batch shape and thread count, a row's logits and gradients are bit for bit the same at any position of any
batch; at another batch size they differ in the last digits. So every pass has the same number of rows, with the last
batch padded, and a map is the same whether its image is computed alone, in a full batch, or after a restart.
"""

from collections.abc import Callable, Container, Hashable, Iterator
from contextlib import contextmanager
from copy import deepcopy
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from atlas.model.arrays import Features, HeadWeights, Images, Logits, Targets
from atlas.model.batches import batched
from atlas.model.graph.bypass import described, packed, sizes, unpacked
from atlas.model.graph.cuts import Cuts
from atlas.model.graph.cutting import Halves, graph_of
from atlas.model.graph.fuse import arrange_channels_last, rectify, relus
from atlas.model.layers import Layout, gridded, last_linear, ungridded
from atlas.model.outputs import finite, shaped, task_of
from atlas.study.errors import Unsupported

# float64 is for checks only; params.yaml does not accept it.
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float64": torch.float64}


class Classifier:
    """A frozen network with its normalization, device, precision, batch shape and count of passes.

    The network is any module that computes logits of normalized images. It can be cut at any of its modules, given by
    path (`atlas.model.graph.cutting`), so that methods can run the part after the cut on its own. `final` is the last
    place with features in rows and columns before pooling, and `input` stands for the normalized images.

    If `plain`, the network runs as it was built: no fusing, no tracing, no other memory layout.
    """

    def __init__(self, name: str, network: nn.Module, *, mean: list, std: list, engine: dict, plain: bool = False):
        self.name, self.plain = name, plain
        self.device = torch.device(engine["device"])
        self.batch = engine["batch"]
        self.passes = {"forward": 0, "backward": 0, "head": 0}
        self._engine, self._dtype = engine, DTYPES[engine["precision"]]
        self._wide = torch.promote_types(self._dtype, torch.float32)  # dtype of returned values
        self.mean = torch.tensor(mean, device=self.device)
        self.std = torch.tensor(std, device=self.device)
        self._network = network.eval().requires_grad_(False)
        self.task = task_of(network)
        self.found: dict[Hashable, Any] = {}  # results of checks of the network, made once
        self._layers = Cuts(self._network, plain, len(mean))
        self._cuts: dict[str, Halves] = {}
        self._cut("input")

    def altered(self, alter: Callable[[nn.Module], None], **engine: Any) -> "Classifier":
        """Return a classifier of an altered copy of the network, with other engine settings and the same counter."""
        given = {**self._engine, **engine}
        network = deepcopy(self._network).to("cpu", torch.promote_types(DTYPES[given["precision"]], torch.float32))
        alter(network)
        mean, std = self.mean.tolist(), self.std.tolist()
        made = Classifier(self.name, network, mean=mean, std=std, engine=given, plain=self.plain)
        made.passes = self.passes
        return made

    def logits(self, images: Images) -> Logits:
        """Return the logits of every class."""
        with torch.no_grad():
            return self._passes(self._logits, images)

    def probabilities(self, images: Images) -> Logits:
        """Return the probability of every class."""
        return self.task.probabilities(self.logits(images))

    def gradient(self, images: Images, targets: Targets, output: str) -> Images:
        """Differentiate the target's logit, probability or loss by the image: its unit per unit of intensity.

        Args:
            images, targets: Intensities in [0, 1]; the classes.
            output: logit, probability or loss (the cross-entropy, in nats).
        """

        def of(part: Tensor, classes: Tensor) -> Tensor:
            part = part.detach().requires_grad_()
            (gradient,) = torch.autograd.grad(self.task.outputs[output](self._logits(part), classes), part)
            return gradient.contiguous()

        return self._passes(of, images, targets, backward=True)

    def features(self, images: Images, layer: str) -> tuple[Features, Tensor]:
        """Return a layer's activations, and the other values that `head` needs.

        These are tokens without a place, and what bypasses the layer: as numbers, one row per image.
        """
        before = self._cut(layer, tuple(images.shape[1:])).before

        def of(part: Tensor) -> tuple[Tensor, Tensor]:
            activations, *others = before(self.normalized(part))
            layout = self._layout(layer, activations, part)
            features, tokens = gridded(activations.to(self._wide), layout)
            others = others if tokens is None else [tokens, *others]
            bypass = packed(others, len(part), self._wide, self.device)
            kinds = [described(one, len(part)) for one in others]
            self.found[sizes(layer, features, bypass)] = layout, tokens is not None, kinds
            return features, bypass

        self.passes["forward"] += len(images) if layer != "input" else 0  # nothing is run before the input
        with torch.no_grad():
            return self.batched(of, images)

    def features_and_gradients(
        self, images: Images, targets: Targets, layer: str, output: str
    ) -> tuple[Features, Features]:
        """Return a layer's activations and the gradient of the target's output with respect to them.

        At the layer `input`: the normalized image and the gradient with respect to it.
        """
        before = self._cut(layer, tuple(images.shape[1:])).before

        def both(part: Tensor, classes: Tensor) -> tuple[Tensor, ...]:
            with torch.no_grad():
                activations, *others = before(self.normalized(part))
            layout = self._layout(layer, activations, part)
            gradient = self._by_activations(activations, others, classes, layer, output)
            return tuple(gridded(one.to(self._wide), layout)[0].contiguous() for one in (activations, gradient))

        return self._passes(both, images, targets, backward=True)

    def head(self, features: Features, bypass: Tensor, layer: str) -> Logits:
        """Return the logits of a layer's activations: a pass of what follows; a `head` pass, except at `input`."""
        after = self._cut(layer).after

        def of(part: Tensor, beside: Tensor) -> Tensor:
            activations, others, _ = self._unpacked(part, beside, layer)
            return self._read(after(activations, *others), len(part))

        self._count_head(features, layer)
        with torch.no_grad():
            return self.batched(of, features, bypass)

    def head_gradient(self, features: Features, bypass: Tensor, targets: Targets, layer: str, output: str) -> Features:
        """Differentiate the target's output by a layer's activations: a pass of what follows, and one back."""

        def of(part: Tensor, beside: Tensor, classes: Tensor) -> Tensor:
            activations, others, layout = self._unpacked(part, beside, layer)
            return gridded(self._by_activations(activations, others, classes, layer, output), layout)[0].contiguous()

        self._count_head(features, layer)
        self.passes["backward"] += len(features)
        return self.batched(of, features, bypass, targets)

    @contextmanager
    def rectified(self, sign: str, layer: str, shape: tuple[int, ...] | None = None) -> Iterator[None]:
        """Let only gradients of one sign back through every ReLU inside the `with` block (Springenberg et al. 2015).

        Args:
            sign: positive, negative, or absolute, which makes all gradients positive.
            layer: The layer at which gradients are taken.
            shape: The shape of an image, if known, to find the layer.

        Raises:
            Unsupported: no ReLU follows, or the network cannot be traced, so that there may be one without a hook.
        """
        layers = relus([self._traced(layer, "ReLU", shape)])
        if not layers:
            raise Unsupported(f"no ReLU follows its layer {layer}: guided backpropagation would be the plain gradient")
        hooks = [step.register_full_backward_hook(partial(rectify, sign)) for step in layers]
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()

    def graph(self, layer: str, shape: tuple[int, ...] | None = None) -> torch.fx.GraphModule:
        """Return the part from a layer's activations to logits as a new graph over the same layers.

        Raises:
            Unsupported: the network cannot be traced, or its logits depend on values that bypass the layer.
        """
        after = self._traced(layer, "layer", shape)
        if sum(node.op == "placeholder" for node in after.graph.nodes) > 1:
            raise Unsupported(f"other values pass by its layer {layer}, which what follows needs too")
        return graph_of(after)

    def propagated(
        self,
        function: Callable,
        images: Images,
        *others: Tensor,
        layer: str,
        forward: int,
        backward: int,
        token: bool = False,
    ) -> Tensor:
        """Compute attributions with a function that runs the network itself, and count its passes.

        Args:
            function: Takes a layer's activations (at `input` the normalized images) and the other tensors of a batch;
                returns (logits, attributions).
            images, others: Tensors with corresponding rows.
            layer: Where the function begins.
            forward, backward: Passes per image that it and the part before take.
            token: Whether the attributions are the class token's; raises Unsupported if there is none.
        """
        before = self._cut(layer, tuple(images.shape[1:])).before

        def of(part: Tensor, *others: Tensor) -> Tensor:
            with torch.no_grad():
                activations, *_ = before(self.normalized(part))
            logits, attributions = function(activations, *others)
            finite(self.name, logits)
            layout = self._layout(layer, attributions, part)
            if token and not layout.extra:
                raise Unsupported("it has no class token, whose attention would be followed")
            return gridded(attributions.to(self._wide), layout)[0].contiguous()

        self.passes["forward"] += forward * len(images)
        self.passes["backward"] += backward * len(images)
        return self.batched(of, images, *others)

    def normalized(self, images: Tensor) -> Tensor:
        """Normalize images as the network expects them."""
        return self._placed((images - self.mean.view(-1, 1, 1)) / self.std.view(-1, 1, 1))

    def head_weights(self, layer: str, shape: tuple[int, ...] | None = None) -> HeadWeights:
        """Return the final linear layer's weights, if only global average pooling and that layer follow the given one.

        Raises:
            Unsupported: anything else follows, so that weights do not correspond to features.
        """
        return last_linear(self.graph(layer, shape)).weight.to(self._wide)

    def batched(self, function: Callable, *tensors: Tensor) -> Any:
        """Run a function of tensors over batches of the fixed size; the last batch is padded with its first row.

        The function returns a tensor or a tuple of tensors. Everything that chooses its algorithm by the number of rows
        (convolutions, matrix products) must be run through here.
        """
        return batched(self.batch, function, *tensors)

    def cuts(self) -> list[str]:
        """Return the layers at which the network has been cut."""
        return [*self._cuts]

    def cut_again(self, known: Container[str]) -> bool:
        """Repeat the cuts at layers other than the known ones, and return whether there are any."""
        fresh = [layer for layer in self._cuts if layer not in known]
        for layer in fresh:
            del self._cuts[layer]
        for layer in fresh:
            self._cut(layer)
        return bool(fresh)

    def _passes(self, function: Callable, *tensors: Tensor, backward: bool = False) -> Any:
        self.passes["forward"] += len(tensors[0])
        self.passes["backward"] += backward * len(tensors[0])
        return batched(self.batch, function, *tensors)

    def _count_head(self, features: Tensor, layer: str) -> None:
        self.passes["forward" if layer == "input" else "head"] += len(features)

    def _logits(self, images: Tensor) -> Tensor:
        return self._read(self._cut("input").after(self.normalized(images)), len(images))

    def _by_activations(self, activations: Tensor, others: list, classes: Tensor, layer: str, output: str) -> Tensor:
        activations = activations.detach().requires_grad_()
        logits = self._read(self._cut(layer).after(activations, *others), len(activations))
        (gradient,) = torch.autograd.grad(self.task.outputs[output](logits, classes), activations)
        return gradient.to(self._wide)

    def _read(self, found: object, images: int) -> Tensor:
        return finite(self.name, shaped(self.name, found, images).to(self._wide))

    def _unpacked(self, features: Tensor, bypass: Tensor, layer: str) -> tuple[Tensor, list, Layout]:
        """Undo `features`: return the activations, and the other values that the part after the layer needs."""
        known = self.found.get(sizes(layer, features, bypass))
        layout, tokens, kinds = known or (Layout("first", 0, tuple(features.shape[2:])), False, [])
        others = unpacked(bypass, kinds)
        first = others.pop(0).to(self._wide) if tokens else None
        return self._placed(ungridded(features, first, layout), layout.kind == "first"), others, layout

    def _placed(self, tensor: Tensor, channels: bool = True) -> Tensor:
        fast = tensor.dim() == 4 and channels and not self.plain
        return tensor.to(self._dtype, memory_format=torch.channels_last if fast else torch.contiguous_format)

    def _layout(self, layer: str, activations: Tensor, images: Tensor) -> Layout:
        """Return how a layer's activations hold features in rows and columns."""
        if len(activations) != len(images):
            raise Unsupported(f"its layer {layer} gives {len(activations)} rows for {len(images)} images")
        known = ("layout", layer, tuple(activations.shape[1:]), tuple(images.shape[1:]))
        if known not in self.found:
            self.found[known] = self._layers.layout(layer, tuple(activations.shape), tuple(images.shape[1:]))
        return self.found[known]

    def _cut(self, layer: str, shape: tuple[int, ...] | None = None) -> Halves:
        """Cut the network at a layer, once, with each half on the device in its fast form."""
        if layer not in self._cuts:
            halves = self._layers.halves(layer, shape)
            self._cuts[layer] = Halves(
                *(arrange_channels_last(half.to(self.device, self._dtype), self.plain) for half in halves)
            )
        return self._cuts[layer]

    def _traced(self, layer: str, kind: str, shape: tuple[int, ...] | None) -> torch.fx.GraphModule:
        """Return the part after a layer, if all of its steps are known."""
        return self._layers.check_known(self._cut(layer, shape).after, kind)
