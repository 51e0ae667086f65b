"""A vision transformer as a chain of layers, its attention spelled out so that a traced graph shows the weights."""

from collections import OrderedDict

import torch
from torch import Tensor, nn
from torchvision.models import VisionTransformer
from torchvision.models.vision_transformer import EncoderBlock

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
            f"torchvision: an image is {height} x {width} pixels; a transformer built for the side {side} accepts "
            f"{side} x {side}, and n times that in both directions, such as {2 * side} x {2 * side}"
        )
    return nn.functional.avg_pool2d(images, height // side)


class Reduce(nn.Module):
    """Bring images to the side that a transformer is built for."""

    def __init__(self, side: int):
        super().__init__()
        self.side = side

    def forward(self, images: Tensor) -> Tensor:
        """Average n x n pixels."""
        return reduced(images, self.side)


class Tokens(nn.Module):
    """Turn images into tokens: the class token first, then the patches row by row, each with its position added."""

    def __init__(self, of: VisionTransformer):
        super().__init__()
        self.conv_proj = of.conv_proj
        self.class_token = of.class_token
        self.pos_embedding = of.encoder.pos_embedding

    def forward(self, images: Tensor) -> Tensor:
        """Give tokens (image, 1 + row · column, width)."""
        patches = self.conv_proj(images).flatten(2).transpose(1, 2)
        first = self.class_token.expand(patches.shape[0], -1, -1)
        return torch.cat([first, patches], dim=1) + self.pos_embedding


class Attention(nn.Module):
    """Mix tokens with one another, every head by weights of its own.

        softmax(Q Kᵀ / √d) V,    Q, K, V of width d in each head, linear in the tokens

    `softmax` is a layer, so that a hook, or a step of a traced graph, has the weights (image, head, token, token):
    each row, over the last dimension, says how much a token takes from every other, and sums to 1.
    """

    def __init__(self, of: nn.MultiheadAttention):
        super().__init__()
        self.heads = of.num_heads
        self.scale = of.head_dim**-0.5
        self.in_proj = _linear(of.in_proj_weight, of.in_proj_bias)
        self.softmax = nn.Softmax(dim=-1)
        self.out_proj = _linear(of.out_proj.weight, of.out_proj.bias)

    def forward(self, tokens: Tensor) -> Tensor:
        """Give mixed tokens of the same shape."""
        # (image, token, 3 · head · d) to three of (image, head, token, d)
        three = self.in_proj(tokens).unflatten(-1, (3, self.heads, -1)).transpose(1, 3)
        queries, keys, values = three.unbind(2)
        weights = self.softmax((queries * self.scale) @ keys.transpose(-2, -1))
        return self.out_proj((weights @ values).transpose(1, 2).flatten(2))


class Block(nn.Module):
    """Add attention, then two linear layers, to the tokens, each after a normalization of its own."""

    def __init__(self, of: EncoderBlock):
        super().__init__()
        self.ln_1 = of.ln_1
        self.self_attention = Attention(of.self_attention)
        self.ln_2 = of.ln_2
        self.mlp = nn.Sequential(*(layer for layer in of.mlp if not isinstance(layer, nn.Dropout)))

    def forward(self, tokens: Tensor) -> Tensor:
        """Give tokens of the same shape."""
        tokens = tokens + self.self_attention(self.ln_1(tokens))
        return tokens + self.mlp(self.ln_2(tokens))


class ClassToken(nn.Module):
    """Pick the class token."""

    def forward(self, tokens: Tensor) -> Tensor:
        """Give the first token of every image."""
        return tokens[:, 0]


def transformer(of: VisionTransformer) -> nn.Sequential:
    """Turn torchvision's vision transformer into a chain, which takes over its weights.

    Between the parts are tokens (image, 1 + row · column, width). The last block belongs to the head: after it no
    token but the class token reaches the logits.

    Args:
        of: With square images, patches by one convolution, one linear layer for a head, and without dropout.

    Returns:
        `features`: `reduce`, `tokens`, and the blocks but the last in `layers`; `head`: the last block, under its
        number, `norm`, `token` and `head`. Its attribute `grid` says how many rows and columns the patches are.
    """
    *blocks, last = (Block(block) for block in of.encoder.layers)
    features = OrderedDict(reduce=Reduce(of.image_size), tokens=Tokens(of), layers=nn.Sequential(*blocks))
    head = {f"layer_{len(blocks)}": last, "norm": of.encoder.ln, "token": ClassToken(), "head": of.heads.head}
    network = nn.Sequential(OrderedDict(features=nn.Sequential(features), head=nn.Sequential(OrderedDict(head))))
    network.grid = (of.image_size // of.patch_size,) * 2
    return network


def _linear(weight: nn.Parameter, bias: nn.Parameter) -> nn.Linear:
    layer = nn.Linear(weight.shape[1], weight.shape[0], device="meta")  # no numbers are drawn that are not used
    layer.weight, layer.bias = weight, bias
    return layer
