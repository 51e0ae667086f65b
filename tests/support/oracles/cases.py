"""What every oracle is given: a torchvision network of random weights, two images, and which class is explained."""

from collections import OrderedDict
from collections.abc import Callable, Iterator
from copy import deepcopy
from dataclasses import dataclass, replace
from functools import cache

import torch
import torchvision
from torch import Tensor, nn

MEAN, STD = [0.5, 0.4, 0.3], [0.25, 0.2, 0.3]
HEIGHT, WIDTH, CLASSES = 64, 72, 5
# By network: a layer half way down, and an early one of few features.
LAYERS = {
    "resnet18": {"middle": "features.layer3", "narrow": "features.layer1"},
    "squeezenet1_1": {"middle": "features.7", "narrow": "features.2"},
    "mobilenet_v2": {"middle": "features.6", "narrow": "features.3"},
    "mnasnet0_5": {"middle": "features.10", "narrow": "features.8"},
}
OUTPUTS = {
    "logit": lambda logits: logits,
    "probability": lambda logits: logits.softmax(1),
    "loss": lambda logits: -logits.log_softmax(1),
}


class Whole(nn.Module):
    """A network as a plain module: intensities, or normalized images, to an output of every class.

    It normalizes in single precision, as a Classifier does, whatever the network's own.
    """

    def __init__(self, network: nn.Module, output: Callable, *, normalizes: bool, final: str):
        super().__init__()
        self.network, self.output, self.normalizes, self.final = network, output, normalizes, final

    def forward(self, images: Tensor) -> Tensor:
        given = normalized(images.float()) if self.normalizes else images
        return self.output(self.network(given.to(precision(self))))

    def layer(self, layer: str) -> nn.Module:
        return self.network.get_submodule(self.final if layer == "final" else layer)


@dataclass(frozen=True, eq=False)
class Case:
    """One network, and images with their targets and seeds."""

    name: str
    network: nn.Module
    images: Tensor
    targets: Tensor
    seeds: list[int]
    background: Tensor
    final: str = "features"
    reshape: Callable[[Tensor], Tensor] | None = None
    """Brings the layer's activations to (image, feature, row, column)."""

    def whole(self, output: str | Callable = "logit") -> Whole:
        """Take intensities."""
        return Whole(self.network, OUTPUTS.get(output, output), normalizes=True, final=self.final)

    def plain(self) -> Whole:
        """Take normalized images, so that what is hidden by 0 is hidden by the mean."""
        return Whole(self.network, OUTPUTS["logit"], normalizes=False, final=self.final)

    def halves(self, layer: str) -> tuple[nn.Sequential, nn.Sequential]:
        """Cut the network behind a layer: `final`, or one that `features` is a chain of."""
        chain = list(self.network.features.named_children())
        end = len(chain) if layer == "final" else 1 + [f"features.{name}" for name, _ in chain].index(layer)
        layers = [module for _, module in chain]
        return nn.Sequential(*layers[:end]), nn.Sequential(*layers[end:], *self.network.head)

    def normalized(self) -> Tensor:
        return normalized(self.images)

    def features(self, layer: str) -> Tensor:
        with torch.no_grad():
            return self.halves(layer)[0](self.normalized().to(precision(self.network)))

    def copied(self) -> "Case":
        """Return a network to change."""
        return replace(self, network=deepcopy(self.network))

    def rows(self) -> Iterator["Case"]:
        """Assign each image a case of its own."""
        for row in range(len(self.images)):
            part = slice(row, row + 1)
            yield replace(self, images=self.images[part], targets=self.targets[part], seeds=self.seeds[part])


@cache
def case(name: str, dtype: torch.dtype, *, count: int = 2, rank: int = 0) -> Case:
    """Make the case of a network: of the first image the class whose logit has a rank is explained, 0 for the largest.

    Of the second image it is the class of the next rank.
    """
    module = deepcopy(network(name)).to(dtype)
    images = photographs(count)
    with torch.no_grad():
        order = module(normalized(images).to(dtype)).argsort(1, descending=True)
    targets = order[range(count), range(rank, rank + count)]
    return Case(name, module, images, targets, [1000 + 7 * row for row in range(count)], photographs(7)[4:])


def normalized(images: Tensor) -> Tensor:
    return (images - torch.tensor(MEAN).view(-1, 1, 1)) / torch.tensor(STD).view(-1, 1, 1)


def precision(module: nn.Module) -> torch.dtype:
    return next(module.parameters()).dtype


def color(baseline: str) -> Tensor:
    return torch.tensor({"black": [0.0] * 3, "mean": MEAN}[baseline]).view(-1, 1, 1)


def photographs(count: int, height: int = HEIGHT, width: int = WIDTH) -> Tensor:
    """Smooth images with edges, that have regions, and grain, so that no pooling meets a tie."""
    generator = torch.Generator().manual_seed(9)
    found = []
    for _ in range(count):  # image by image, so that more of them keep the first
        coarse = torch.rand(1, 3, 5, 5, generator=generator)
        image = nn.functional.interpolate(coarse, size=(height, width), mode="bilinear")
        image[:, :, height // 4 : height // 2, width // 3 :] = coarse[:, :, :1, :1]
        found.append(image + 0.02 * torch.rand(image.shape, generator=generator))
    return torch.cat(found).clamp(max=1)


@cache
@torch.no_grad()
def network(name: str) -> nn.Sequential:
    """Build a network of torchvision with random weights and statistics, whose logits tell images apart.

    The statistics are moved away from those of the images, but not so far that layers die.
    """
    torch.manual_seed(7)
    whole = getattr(torchvision.models, name)(num_classes=CLASSES)
    layers = OrderedDict(whole.named_children())
    if name == "resnet18":
        head = [layers.pop("avgpool"), nn.Flatten(), layers.pop("fc")]
        features = nn.Sequential(layers)
    elif name == "squeezenet1_1":
        features, head = whole.features, [*whole.classifier, nn.Flatten()]
    elif name == "mnasnet0_5":
        features, head = whole.layers, [nn.AdaptiveAvgPool2d(1), nn.Flatten(), *whole.classifier]
    else:
        features, head = whole.features, [nn.AdaptiveAvgPool2d(1), nn.Flatten(), *whole.classifier]
    module = nn.Sequential(OrderedDict(features=features, head=nn.Sequential(*head)))
    return as_if_trained(module, normalized(photographs(16)))


@torch.no_grad()
def as_if_trained(module: nn.Module, pictures: Tensor) -> nn.Module:
    """Give a network statistics of batches, weights and biases that are not 0 or 1, and logits that tell images apart.

    Nothing in it is in place, or no hook can be put on it.
    """
    normalizations = [layer for layer in module.modules() if isinstance(layer, nn.BatchNorm2d)]
    for layer in module.modules():
        if hasattr(layer, "inplace"):
            layer.inplace = False
        if isinstance(layer, nn.Conv2d | nn.Linear) and layer.bias is not None:
            layer.bias.uniform_(-0.1, 0.1)
    for layer in normalizations:
        layer.momentum = None
    module(pictures)
    for layer in normalizations:
        layer.eps = 0.0  # which zennit leaves in a normalization that it has merged
        layer.running_var[layer.running_var == 0] = 1.0  # of features that never fire
        layer.running_mean += 0.3 * layer.running_var.sqrt() * torch.randn_like(layer.running_mean)
        layer.running_var *= torch.empty_like(layer.running_var).uniform_(0.7, 1.5)
        layer.weight.uniform_(0.5, 1.5)
        layer.bias.uniform_(-0.2, 0.2)
    module.eval()
    last = [layer for layer in module.modules() if isinstance(layer, nn.Conv2d | nn.Linear)][-1]
    last.weight -= last.weight.mean(0)  # what all classes share
    last.weight /= module(pictures).std()
    return module.requires_grad_(False)


def batch_extent() -> float:
    """The range of a normalized batch in which some values are black and some white."""
    ends = [[(end - mean) / std for mean, std in zip(MEAN, STD, strict=True)] for end in (0, 1)]
    return max(ends[1]) - min(ends[0])
