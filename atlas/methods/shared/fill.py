"""The color that stands for absent pixels."""

import torch
from torch import Tensor

from atlas.model.classifier import Classifier
from atlas.study.schema.types import Color


def color(classifier: Classifier, fill: Color) -> Tensor:
    """Return a color that broadcasts over images: intensity 0, or the classifier's mean, which is 0 once normalized."""
    mean = classifier.mean.view(-1, 1, 1)
    return {"black": torch.zeros_like(mean), "mean": mean}[fill]
