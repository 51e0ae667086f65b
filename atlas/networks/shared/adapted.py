"""Make a network accept images of other sizes than the one that it is built for."""

from typing import Any

from torch import nn

from atlas.model import resizing


def sized(network: nn.Module, side: int) -> nn.Module:
    """Make a network for square images of one side average larger images down first.

    Its modules and weights keep their names.
    """
    kind = type(network)

    def forward(self: nn.Module, images: Any) -> Any:
        return kind.forward(self, resizing.reduced(images, side))

    network.__class__ = type(kind.__name__, (kind,), {"forward": forward, "__module__": kind.__module__})
    changed: Any = network
    changed.image_size = side
    return network
