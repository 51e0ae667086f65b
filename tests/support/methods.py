"""Small networks on which methods are tested, beside restatements of what they compute."""

from collections import OrderedDict

import numpy as np
import torch
from torch import nn

from atlas.model import classifier as classifier_module
from atlas.model.classifier import Classifier

# What is kept of gradients, by name.
KEPT = {
    "both": lambda gradients: gradients,
    "positive": lambda gradients: gradients.clip(0),
    "negative": lambda gradients: gradients.clip(max=0),
    "absolute": abs,
}
MEAN, STD = [0.5, 0.4, 0.3], [0.25, 0.2, 0.3]
ENGINE = {"device": "cpu", "precision": "float32", "threads": 1, "batch": 8}
HEIGHT, WIDTH, CLASSES = 20, 24, 5


class Whole(nn.Module):
    """What a Classifier runs, as one plain module: the second witness's network."""

    def __init__(self, network: nn.Sequential):
        super().__init__()
        self.features, self.head = network.features, network.head
        self.mean, self.std = (torch.tensor(values).view(-1, 1, 1) for values in (MEAN, STD))

    def normalized(self, images: torch.Tensor) -> torch.Tensor:
        return (images - self.mean) / self.std

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.head(self.features(self.normalized(images)))


def network(head: str, activation: type[nn.Module] = nn.ReLU) -> nn.Sequential:
    """A small random network; `pooled` has a head of global average pooling, `deep` one of several layers."""
    torch.manual_seed(3)
    features = nn.Sequential(
        nn.Conv2d(3, 6, 3, stride=2, padding=1),
        nn.BatchNorm2d(6),
        activation(),
        nn.Conv2d(6, 8, 3, stride=2, padding=1),
        activation(),
    )
    features[1].running_mean.uniform_(-0.5, 0.5)
    features[1].running_var.uniform_(0.5, 2.0)
    pooled = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, CLASSES)]
    deep = [nn.Conv2d(8, 8, 3, padding=1), activation(), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(32, CLASSES)]
    layers = {"pooled": pooled, "deep": deep}[head]
    return nn.Sequential(OrderedDict(features=features, head=nn.Sequential(*layers))).eval()


def linear() -> nn.Sequential:
    torch.manual_seed(4)
    head = nn.Sequential(nn.Flatten(), nn.Linear(3 * HEIGHT * WIDTH, CLASSES))
    return nn.Sequential(OrderedDict(features=nn.Identity(), head=head)).eval()


def classified(module: nn.Sequential) -> Classifier:
    return Classifier("tiny", module, mean=MEAN, std=STD, engine=ENGINE)


def close(found: torch.Tensor, expected, tolerance: float = 1e-5):
    scale = max(float(np.abs(np.asarray(expected)).max()), 1e-12)
    np.testing.assert_allclose(found.numpy() / scale, np.asarray(expected) / scale, rtol=0, atol=tolerance)


def rows_of_passes(monkeypatch) -> list[int]:
    """Return a list to which every call that classifiers run in batches adds its number of rows."""
    rows: list[int] = []
    batched = classifier_module.batched

    def recorded(size, function, *tensors):
        rows.append(len(tensors[0]))
        return batched(size, function, *tensors)

    monkeypatch.setattr(classifier_module, "batched", recorded)
    return rows
