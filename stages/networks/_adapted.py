"""Have a network take images of other sizes than the one that it is built for."""

from typing import Any

import torch
from torch import Tensor, nn

from stages.study.problem import Problem


@torch.fx.wrap  # a trace keeps the call: sizes are checked when there are images
def reduced(images: Tensor, side: int) -> Tensor:
    """Average n x n pixels, where images are n times `side` in both directions.

    Raises:
        Problem: the images have another size.
    """
    height, width = images.shape[-2:]
    if height != width or height % side:
        raise Problem(
            f"an image is {height} x {width} pixels; the network is built for the side {side} and accepts "
            f"{side} x {side}, and n times that in both directions, such as {2 * side} x {2 * side}"
        )
    return nn.functional.avg_pool2d(images, height // side)


def sized(network: nn.Module, side: int) -> nn.Module:
    """Have a network that is built for square images of one side average larger ones first.

    Its modules and weights keep their names.
    """
    kind = type(network)

    def forward(self: nn.Module, images: Any) -> Any:
        return kind.forward(self, reduced(images, side))

    network.__class__ = type(kind.__name__, (kind,), {"forward": forward, "__module__": kind.__module__})
    network.image_size = side
    return network
