"""Run a classifier: images in [0, 1] to logits, gradients and features, in batches of one fixed size.

At a fixed batch shape and thread count a row's logits and gradients are bit for bit the same in any position and any
company; at another batch size they differ in the last digits. So every pass has the same number of rows, the last
one padded, and a map comes out the same whether its image is computed alone, in a full batch, or after a restart.
"""

import json
import os
from collections.abc import Callable
from contextlib import contextmanager
from functools import partial, wraps
from pathlib import Path

import torch
from torch import Tensor, nn

from stages.arrays import Features, HeadWeights, Images, Logits, Targets
from stages.folding import folded
from stages.params import find
from stages.problem import Problem

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


class Unsupported(Exception):
    """Say why a method cannot serve a classifier; the report prints n/a with this reason."""


class NotFinite(Problem):
    """A network gave NaN or infinity."""


class Classifier:
    """Own a frozen network: its normalization, device, precision, batch shape and the count of its passes.

    The network is an `nn.Sequential` of two named parts, `features` (images to the last spatial layer) and `head`
    (features to logits), so that methods can run the head alone.
    """

    def __init__(self, name: str, network: nn.Sequential, *, mean: list[float], std: list[float], engine: dict):
        self.name = name
        self.device = torch.device(engine["device"])
        self.batch = engine["batch"]
        self.passes = {"forward": 0, "backward": 0, "head": 0}
        self._dtype = DTYPES[engine["precision"]]
        self.mean = torch.tensor(mean, device=self.device)
        self.std = torch.tensor(std, device=self.device)
        parts = [folded(part.eval().requires_grad_(False)) for part in (network.features, network.head)]
        place = {"device": self.device, "dtype": self._dtype, "memory_format": torch.channels_last}
        self._features, self._head = (part.to(**place) for part in parts)

    def logits(self, images: Images) -> Logits:
        """Give the logits of every class."""
        with torch.no_grad():
            return self._passes(lambda part: self._logits(part), images)

    def probabilities(self, images: Images) -> Logits:
        """Give the softmax of the logits."""
        return self.logits(images).softmax(dim=1)

    def gradient(self, images: Images, targets: Targets, output: str = "logit") -> Images:
        """Differentiate the target's logit, its probability or its loss by the image: per unit of intensity."""
        totals = {"logit": _target_logits, "probability": _target_probabilities, "loss": _cross_entropy}
        return self._gradient(images, targets, totals[output])

    def loss_gradient(self, images: Images, targets: Targets) -> Images:
        """Differentiate the cross-entropy of the target by the image: nats per unit of intensity."""
        return self._gradient(images, targets, _cross_entropy)

    def guided_gradient(self, images: Images, targets: Targets, sign: str) -> Images:
        """Differentiate the target's logit, letting only gradients of one sign back through every ReLU.

        On a network without ReLU this is the gradient (Springenberg et al. 2015, where the sign is positive).

        Args:
            images: In [0, 1].
            targets: The classes.
            sign: positive, negative, or absolute, which turns all gradients positive.

        Raises:
            Unsupported: the network cannot be traced, so that it may call ReLU where no hook can be.
        """
        if not all(isinstance(part, torch.fx.GraphModule) for part in (self._features, self._head)):
            raise Unsupported("its forward cannot be traced, so that not every ReLU can be found")
        with self._rectified_backward(sign):
            return self._gradient(images, targets, _target_logits)

    def features(self, images: Images) -> Features:
        """Give the activations of the last spatial layer."""
        with torch.no_grad():
            return self._passes(lambda part: self._features(self.normalized(part)).float(), images)

    def features_and_gradients(self, images: Images, targets: Targets) -> tuple[Features, Features]:
        """Give the last spatial layer's activations and the gradient of the target's logit by them."""

        def both(part: Tensor, classes: Tensor) -> Tensor:
            with torch.no_grad():
                features = self._features(self.normalized(part))
            features.requires_grad_()
            total = _target_logits(self._finite(self._head(features).float()), classes)
            (gradient,) = torch.autograd.grad(total, features)
            return torch.stack([features.detach().float(), gradient.float()], dim=1)

        pairs = self._passes(both, images, targets, backward=True)
        return pairs[:, 0], pairs[:, 1]

    def head(self, features: Features) -> Logits:
        """Give the logits of a feature map: a pass of the head alone, counted apart."""
        self.passes["head"] += len(features)
        with torch.no_grad():
            return self.batched(lambda part: self._finite(self._head(self._placed(part)).float()), features)

    def graph(self) -> torch.fx.GraphModule:
        """Give the way from normalized images to logits as a new graph over the same layers; else `Unsupported`."""
        if not all(isinstance(part, torch.fx.GraphModule) for part in (self._features, self._head)):
            raise Unsupported("its forward cannot be traced, so that not every layer can be found")
        return torch.fx.symbolic_trace(nn.Sequential(self._features, self._head))

    def propagated(self, function: Callable, images: Images, targets: Targets, *, forward: int = 1) -> Images:
        """Take attributions from a function of a batch that gives (logits, attributions) and goes back once."""

        def of(part: Tensor, classes: Tensor) -> Tensor:
            logits, attributions = function(part, classes)
            self._finite(logits)
            return attributions.float().contiguous()

        self.passes["forward"] += (forward - 1) * len(images)
        return self._passes(of, images, targets, backward=True)

    def normalized(self, images: Tensor) -> Tensor:
        """Give what the network sees of images."""
        return self._placed((images - self.mean.view(-1, 1, 1)) / self.std.view(-1, 1, 1))

    def head_weights(self) -> HeadWeights:
        """Give the final linear layer's weights, where the head is global average pooling and that layer.

        Raises:
            Unsupported: the head is anything else, so that no weight belongs to a feature.
        """
        layers = [layer for layer in self._head.modules() if not isinstance(layer, nn.Dropout | nn.Identity)]
        layers = [layer for layer in layers if not list(layer.children())]
        kinds = [type(layer) for layer in layers]
        if kinds[-3:] != [nn.AdaptiveAvgPool2d, nn.Flatten, nn.Linear] or len(kinds) != 3:
            names = ", ".join(kind.__name__ for kind in kinds)
            raise Unsupported(f"needs a head of global average pooling and one linear layer; this one has {names}")
        return layers[-1].weight.float()

    def batched(self, function: Callable[..., Tensor], *tensors: Tensor) -> Tensor:
        """Run a function of tensors over batches of the fixed size, the last one padded with its first row.

        Whatever chooses its algorithm by the number of rows (convolutions, matrix products) goes through here.
        """
        rows = len(tensors[0])
        results = []
        for start in range(0, rows, self.batch):
            # A strided part would be summed in another order than a padded one.
            parts = [tensor[start : start + self.batch].contiguous() for tensor in tensors]
            count = len(parts[0])
            if count < self.batch:
                parts = [torch.cat([part, part[:1].expand(self.batch - count, *part.shape[1:])]) for part in parts]
            results.append(function(*parts)[:count])
        return torch.cat(results) if len(results) > 1 else results[0]

    def _gradient(self, images: Tensor, targets: Tensor, total: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
        def of(part: Tensor, classes: Tensor) -> Tensor:
            part = part.detach().requires_grad_()
            (gradient,) = torch.autograd.grad(total(self._logits(part), classes), part)
            return gradient.contiguous()

        return self._passes(of, images, targets, backward=True)

    def _passes(self, function: Callable[..., Tensor], *tensors: Tensor, backward: bool = False) -> Tensor:
        self.passes["forward"] += len(tensors[0])
        self.passes["backward"] += len(tensors[0]) if backward else 0
        return self.batched(function, *tensors)

    def _logits(self, images: Tensor) -> Tensor:
        return self._finite(self._head(self._features(self.normalized(images))).float())

    def _placed(self, tensor: Tensor) -> Tensor:
        return tensor.to(self._dtype, memory_format=torch.channels_last)

    def _finite(self, logits: Tensor) -> Tensor:
        if not torch.isfinite(logits).all():
            raise NotFinite(f"classifier {self.name}: its logits are not finite (NaN or infinity)")
        return logits

    @contextmanager
    def _rectified_backward(self, sign: str):
        def rectify(module: nn.Module, down: tuple[Tensor], up: tuple[Tensor]) -> tuple[Tensor]:
            if sign == "absolute":
                return (down[0].abs(),)
            return (down[0].clamp(min=0) if sign == "positive" else down[0].clamp(max=0),)

        relus = [layer for part in (self._features, self._head) for layer in part.modules()]
        relus = [layer for layer in relus if isinstance(layer, nn.ReLU)]
        hooks = [relu.register_full_backward_hook(rectify) for relu in relus]
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()


def start(engine: dict) -> None:
    """Set torch to the engine's threads and to deterministic algorithms, once per process.

    Raises:
        Problem: the engine's device is not there.
    """
    if engine["device"] == "cuda" and not torch.cuda.is_available():
        raise Problem("params.yaml: engine.device = cuda, but torch sees no CUDA device here; accepted: cpu")
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # what deterministic matrix products need
    torch.set_num_threads(engine["threads"])
    torch.backends.cudnn.benchmark = False
    torch.backends.cudnn.deterministic = True
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False


def load(folder: Path, name: str, network: dict, engine: dict) -> Classifier:
    """Load a trained classifier from its folder: `weights.safetensors` and `card.json`.

    Raises:
        Problem: the weights are not those of the network that params.yaml describes.
    """
    from safetensors.torch import load_file

    card = json.loads((folder / "card.json").read_text())
    module = build(network, classes=len(card["classes"]))
    try:
        module.load_state_dict(load_file(folder / "weights.safetensors"))
    except RuntimeError as mismatch:
        raise Problem(
            f"{folder}/weights.safetensors: not the weights of classifiers.{name}.network: {mismatch}"
        ) from None
    return Classifier(name, module, mean=card["mean"], std=card["std"], engine=engine)


def build(network: dict, *, classes: int) -> nn.Sequential:
    """Build the network that an entry of params.yaml names, with its settings."""
    settings = {key: value for key, value in network.items() if key not in ("family", "function")}
    function = network.get("function", network["family"])
    return find("networks", network["family"], function)(classes=classes, **settings)


def shared(function: Callable | None = None, *, calls: int = 1) -> Callable:
    """Remember a function's last calls, so that functions of one family do common work once per batch.

    Tensors and objects are compared by identity, everything else by value.

    Args:
        function: What is decorated.
        calls: How many calls are held; more than one where entries with unlike settings take turns.
    """
    if function is None:
        return partial(shared, calls=calls)
    held: list[tuple] = []

    @wraps(function)
    def remembering(*args: object, **settings: object) -> object:
        for known, set_to, result in held:
            if _same(known, args) and set_to == settings:
                return result
        del held[: max(0, len(held) + 1 - calls)]  # what is held goes before more is made
        result = function(*args, **settings)
        held.append((args, settings, result))
        return result

    return remembering


def _same(old: tuple, new: tuple) -> bool:
    plain = (int, float, str, list, tuple, type(None))
    return len(old) == len(new) and all(
        a == b if isinstance(b, plain) else a is b for a, b in zip(old, new, strict=True)
    )


def _target_logits(logits: Tensor, targets: Tensor) -> Tensor:
    return logits.gather(1, targets[:, None]).sum()


def _target_probabilities(logits: Tensor, targets: Tensor) -> Tensor:
    return logits.softmax(dim=1).gather(1, targets[:, None]).sum()


def _cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    return nn.functional.cross_entropy(logits, targets, reduction="sum")
