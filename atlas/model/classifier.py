"""Run a classifier: images in [0, 1] to logits, gradients and features, in batches of one fixed size.

At a fixed batch shape and thread count a row's logits and gradients are bit for bit the same in any position of any
batch; at another batch size they differ in the last digits. So every pass has the same number of rows, the last
one padded, and a map comes out the same whether its image is computed alone, in a full batch, or after a restart.
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
from atlas.model.graph.beside import described, packed, sizes, unpacked
from atlas.model.graph.cuts import Cuts
from atlas.model.graph.cutting import Halves, graph_of
from atlas.model.graph.fuse import arranged, rectify, relus
from atlas.model.layers import Layout, gridded, last_linear, ungridded
from atlas.model.outputs import finite, reading, shaped
from atlas.study.errors import Unsupported

# float64 is for checks alone: no study may ask for it.
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float64": torch.float64}


class Classifier:
    """Own a frozen network: its normalization, device, precision, batch shape and the count of its passes.

    The network is any module that makes logits of normalized images. It can be cut at any of its modules, named by its
    path (`atlas.model.graph.cutting`), so that methods can run what follows alone; `final` is the last place of
    features in rows and columns before they are pooled, and `input` the normalized images.

    Where it is `plain` the network runs as it was built: nothing folded or traced, no other layout in memory.
    """

    def __init__(self, name: str, network: nn.Module, *, mean: list, std: list, engine: dict, plain=False):
        self.name, self.plain = name, plain
        self.device = torch.device(engine["device"])
        self.batch = engine["batch"]
        self.passes = {"forward": 0, "backward": 0, "head": 0}
        self._engine, self._dtype = engine, DTYPES[engine["precision"]]
        self._wide = torch.promote_types(self._dtype, torch.float32)  # of what is given back
        self.mean = torch.tensor(mean, device=self.device)
        self.std = torch.tensor(std, device=self.device)
        self._network = network.eval().requires_grad_(False)
        self.reading = reading(network)
        self.found: dict[Hashable, Any] = {}  # what was found out about the network, once
        self._layers = Cuts(self._network, plain, len(mean))
        self._cuts: dict[str, Halves] = {}
        self._cut("input")

    def altered(self, alter: Callable[[nn.Module], None], **engine: Any) -> "Classifier":
        """Return a classifier of an altered copy of the network, on another engine; its passes count as this one's."""
        given = {**self._engine, **engine}
        network = deepcopy(self._network).to("cpu", torch.promote_types(DTYPES[given["precision"]], torch.float32))
        alter(network)
        about = {"mean": self.mean.tolist(), "std": self.std.tolist(), "engine": given, "plain": self.plain}
        made = Classifier(self.name, network, **about)
        made.passes = self.passes
        return made

    def logits(self, images: Images) -> Logits:
        """Return the logits of every class."""
        with torch.no_grad():
            return self._passes(lambda part: self._logits(part), images)

    def probabilities(self, images: Images) -> Logits:
        """Return the probability of every class."""
        return self.reading.probabilities(self.logits(images))

    def gradient(self, images: Images, targets: Targets, output: str) -> Images:
        """Differentiate the target's logit, probability or loss by the image: its unit per unit of intensity.

        Args:
            images, targets: In [0, 1]; the classes.
            output: logit, probability or loss (the cross-entropy, in nats).
        """

        def of(part: Tensor, classes: Tensor) -> Tensor:
            part = part.detach().requires_grad_()
            (gradient,) = torch.autograd.grad(self.reading.outputs[output](self._logits(part), classes), part)
            return gradient.contiguous()

        return self._passes(of, images, targets, backward=True)

    def features(self, images: Images, layer: str) -> tuple[Features, Tensor]:
        """Return a layer's activations, and beside them what `head` needs too.

        Beside them are what its tokens of no place hold, and what else passes by the layer: numbers, a row an image.
        """
        before = self._cut(layer, tuple(images.shape[1:])).before

        def of(part: Tensor) -> tuple[Tensor, Tensor]:
            activations, *others = before(self.normalized(part))
            layout = self._layout(layer, activations, part)
            features, tokens = gridded(activations.to(self._wide), layout)
            others = others if tokens is None else [tokens, *others]
            beside = packed(others, len(part), self._wide, self.device)
            kinds = [described(one, len(part)) for one in others]
            self.found[sizes(layer, features, beside)] = layout, tokens is not None, kinds
            return features, beside

        self.passes["forward"] += len(images) if layer != "input" else 0  # there nothing is run
        with torch.no_grad():
            return self.batched(of, images)

    def features_and_gradients(
        self, images: Images, targets: Targets, layer: str, output: str
    ) -> tuple[Features, Features]:
        """Return a layer's activations and the gradient of the target's output by them.

        At the layer `input`: the normalized image and the gradient by that.
        """
        before = self._cut(layer, tuple(images.shape[1:])).before

        def both(part: Tensor, classes: Tensor) -> tuple[Tensor, ...]:
            with torch.no_grad():
                activations, *others = before(self.normalized(part))
            layout = self._layout(layer, activations, part)
            gradient = self._by_activations(activations, others, classes, layer, output)
            return tuple(gridded(one.to(self._wide), layout)[0].contiguous() for one in (activations, gradient))

        return self._passes(both, images, targets, backward=True)

    def head(self, features: Features, beside: Tensor, layer: str) -> Logits:
        """Return the logits of a layer's activations: a pass of what follows it, counted apart but for `input`."""
        after = self._cut(layer).after

        def of(part: Tensor, others: Tensor) -> Tensor:
            activations, others, _ = self._unpacked(part, others, layer)
            return self._read(after(activations, *others), len(part))

        self._count_head(features, layer)
        with torch.no_grad():
            return self.batched(of, features, beside)

    def head_gradient(self, features: Features, beside: Tensor, targets: Targets, layer: str, output: str) -> Features:
        """Differentiate the target's output by a layer's activations: a pass of what follows it, and one back."""

        def of(part: Tensor, others: Tensor, classes: Tensor) -> Tensor:
            activations, others, layout = self._unpacked(part, others, layer)
            return gridded(self._by_activations(activations, others, classes, layer, output), layout)[0].contiguous()

        self._count_head(features, layer)
        self.passes["backward"] += len(features)
        return self.batched(of, features, beside, targets)

    @contextmanager
    def rectified(self, sign: str, layer: str, shape: tuple[int, ...] | None = None) -> Iterator[None]:
        """Let only gradients of one sign back through every ReLU while this lasts (Springenberg et al. 2015).

        Args:
            sign: positive, negative, or absolute, which turns all gradients positive.
            layer, shape: Where gradients are taken; that of an image, if one is at hand, to find the layer.

        Raises:
            Unsupported: there is none, or the network cannot be traced, so that one may be where no hook can be.
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
        """Return the way from a layer's activations to logits as a new graph over the same layers.

        Raises:
            Unsupported: the network cannot be traced, or its logits depend on what passes by the layer.
        """
        after = self._traced(layer, "layer", shape)
        if sum(node.op == "placeholder" for node in after.graph.nodes) > 1:
            raise Unsupported(f"other values pass by its layer {layer}, which what follows needs too")
        return graph_of(after)

    def propagated(
        self, function: Callable, images: Images, *others: Tensor, layer: str, forward: int, backward: int, token=False
    ) -> Tensor:
        """Take attributions from a function of a batch that runs the network itself, so many times to and fro.

        Args:
            function: Of a layer's activations, at `input` the normalized images, and the other tensors; gives
                (logits, attributions).
            images, others: Rows of one another.
            layer: Where the function begins.
            forward, backward: Passes that it and what comes before take.
            token: Whether they are the class token's; raises Unsupported where there is none.
        """
        before = self._cut(layer, tuple(images.shape[1:])).before

        def of(part: Tensor, *others: Tensor) -> Tensor:
            with torch.no_grad():
                activations, *_ = before(self.normalized(part))
            logits, attributions = function(activations, *others)
            finite(self.name, logits)
            layout = self._layout(layer, attributions, part)
            if token and not layout.beside:
                raise Unsupported("it has no class token, whose attention would be followed")
            return gridded(attributions.to(self._wide), layout)[0].contiguous()

        self.passes["forward"] += forward * len(images)
        self.passes["backward"] += backward * len(images)
        return self.batched(of, images, *others)

    def normalized(self, images: Tensor) -> Tensor:
        """Return what the network sees of images."""
        return self._placed((images - self.mean.view(-1, 1, 1)) / self.std.view(-1, 1, 1))

    def head_weights(self, layer: str, shape: tuple[int, ...] | None = None) -> HeadWeights:
        """Return the final linear layer's weights, where after a layer come global average pooling and that one alone.

        Raises:
            Unsupported: anything else comes, so that no weight belongs to a feature.
        """
        return last_linear(self.graph(layer, shape)).weight.to(self._wide)

    def batched(self, function: Callable, *tensors: Tensor) -> Any:
        """Run a function of tensors over batches of the fixed size, the last one padded with its first row.

        It gives a tensor or a tuple of them. Whatever chooses its algorithm by the number of rows (convolutions,
        matrix products) goes through here.
        """
        return batched(self.batch, function, *tensors)

    def cuts(self) -> list[str]:
        """Name the layers that the network has been cut at."""
        return [*self._cuts]

    def recut(self, known: Container[str]) -> bool:
        """Cut the network anew where it has been cut at layers that are not known; say whether there are such."""
        fresh = [layer for layer in self._cuts if layer not in known]
        for layer in fresh:
            del self._cuts[layer]
        for layer in fresh:
            self._cut(layer)
        return bool(fresh)

    def _passes(self, function: Callable, *tensors: Tensor, backward: bool = False) -> Any:
        self.passes["forward"] += len(tensors[0])
        self.passes["backward"] += backward * len(tensors[0])
        return self.batched(function, *tensors)

    def _count_head(self, features: Tensor, layer: str) -> None:
        self.passes["forward" if layer == "input" else "head"] += len(features)

    def _logits(self, images: Tensor) -> Tensor:
        return self._read(self._cut("input").after(self.normalized(images)), len(images))

    def _by_activations(self, activations: Tensor, others: list, classes: Tensor, layer: str, output: str) -> Tensor:
        activations = activations.detach().requires_grad_()
        logits = self._read(self._cut(layer).after(activations, *others), len(activations))
        (gradient,) = torch.autograd.grad(self.reading.outputs[output](logits, classes), activations)
        return gradient.to(self._wide)

    def _read(self, found: object, images: int) -> Tensor:
        return finite(self.name, shaped(self.name, found, images).to(self._wide))

    def _unpacked(self, features: Tensor, beside: Tensor, layer: str) -> tuple[Tensor, list, Layout]:
        """Undo what `features` does: activations, and what else follows the layer."""
        known = self.found.get(sizes(layer, features, beside))
        layout, tokens, kinds = known or (Layout("first", 0, tuple(features.shape[2:])), False, [])
        others = unpacked(beside, kinds)
        first = others.pop(0).to(self._wide) if tokens else None
        return self._placed(ungridded(features, first, layout), layout.kind == "first"), others, layout

    def _placed(self, tensor: Tensor, channels: bool = True) -> Tensor:
        fast = tensor.dim() == 4 and channels and not self.plain
        return tensor.to(self._dtype, memory_format=torch.channels_last if fast else torch.contiguous_format)

    def _layout(self, layer: str, activations: Tensor, images: Tensor) -> Layout:
        """Return how a layer's activations hold features of rows and columns."""
        if len(activations) != len(images):
            raise Unsupported(f"its layer {layer} gives {len(activations)} rows for {len(images)} images")
        known = ("layout", layer, tuple(activations.shape[1:]), tuple(images.shape[1:]))
        if known not in self.found:
            self.found[known] = self._layers.layout(layer, tuple(activations.shape), tuple(images.shape[1:]))
        return self.found[known]

    def _cut(self, layer: str, shape: tuple[int, ...] | None = None) -> Halves:
        """Cut the network at a layer, once, each half made fast."""
        if layer not in self._cuts:
            halves = self._layers.halves(layer, shape)
            self._cuts[layer] = Halves(*(arranged(half.to(self.device, self._dtype), self.plain) for half in halves))
        return self._cuts[layer]

    def _traced(self, layer: str, kind: str, shape: tuple[int, ...] | None) -> torch.fx.GraphModule:
        """Return what follows a layer, if all of it is known."""
        after = self._cut(layer, shape).after
        self._layers.check_known(after, kind)
        return after
