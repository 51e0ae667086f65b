"""Bring images to the size that a network is built for."""

import torch
from torch import Tensor, nn

from atlas.study.errors import UserError


@torch.fx.wrap  # kept as one call in a trace: sizes are checked at run time
def reduced(images: Tensor, side: int) -> Tensor:
    """Average n x n pixels, where images are n times `side` in both directions.

    Raises:
        UserError: the images have another size.
    """
    height, width = images.shape[-2:]
    if height != width or height % side:
        raise UserError(
            f"an image is {height} x {width} pixels; the network is built for the side {side} and accepts "
            f"{side} x {side}, and n times that in both directions, such as {2 * side} x {2 * side}"
        )
    return nn.functional.avg_pool2d(images, height // side)
