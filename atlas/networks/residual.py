"""Small residual networks, for images of a few dozen pixels per side."""

from collections import OrderedDict
from typing import Annotated

from torch import Tensor, nn

from atlas.study.schema.types import Count, Items


class Residual(nn.Module):
    """Add a shortcut to two convolutions; the shortcut is a strided 1 x 1 convolution where the shape changes."""

    def __init__(self, entering: int, leaving: int, stride: int):
        super().__init__()
        self.convolution1 = nn.Conv2d(entering, leaving, 3, stride, padding=1, bias=False)
        self.normalization1 = nn.BatchNorm2d(leaving)
        self.relu1 = nn.ReLU()
        self.convolution2 = nn.Conv2d(leaving, leaving, 3, padding=1, bias=False)
        self.normalization2 = nn.BatchNorm2d(leaving)
        self.shortcut = nn.Sequential()
        if entering != leaving or stride != 1:
            self.shortcut = nn.Sequential(nn.Conv2d(entering, leaving, 1, stride, bias=False), nn.BatchNorm2d(leaving))
        self.relu2 = nn.ReLU()

    def forward(self, entering: Tensor) -> Tensor:
        """Return the features after the second ReLU."""
        features = self.relu1(self.normalization1(self.convolution1(entering)))
        features = self.normalization2(self.convolution2(features))
        return self.relu2(features + self.shortcut(entering))


def small_resnet(*, classes: int, widths: Annotated[list[Count], Items(1)], blocks: Count) -> nn.Sequential:
    """Build a residual network whose stem and every stage but the first halve the resolution.

    Three widths and 64 pixels per side give stages of 32, 16 and 8 pixels per side. Every ReLU is a module of its own,
    not in place, so that it can be hooked.

    Args:
        classes: Number of logits.
        widths: Channels of each stage; the first is also the stem's.
        blocks: Residual blocks per stage.

    Returns:
        `features`, which end with the last block's ReLU, and `head`: global average pooling and one linear layer.

    Differs from He et al. 2016: the stem is one strided 3 x 3 convolution without pooling; there are only two or three
    stages.
    """
    layers = [nn.Conv2d(3, widths[0], 3, 2, padding=1, bias=False), nn.BatchNorm2d(widths[0]), nn.ReLU()]
    entering = widths[0]
    for stage, leaving in enumerate(widths):
        for block in range(blocks):
            layers.append(Residual(entering, leaving, stride=2 if stage > 0 and block == 0 else 1))
            entering = leaving
    head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(entering, classes))
    return nn.Sequential(OrderedDict(features=nn.Sequential(*layers), head=head))
