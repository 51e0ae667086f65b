"""Arrange activations as features in rows and columns, and enlarge results of a layer's size."""

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.fx import GraphModule
from torch.nn.functional import interpolate

from atlas.study.errors import Unsupported

SHOWN = 8  # steps of a head named in a message


class Layout(NamedTuple):
    """How activations hold features in rows and columns.

    `kind` is `first`, (image, feature, row, column), `last`, (image, row, column, feature), or `tokens`,
    (image, token, feature), after `extra` tokens without a place.
    """

    kind: str
    extra: int
    grid: tuple[int, ...]


def gridded(activations: Tensor, layout: Layout) -> tuple[Tensor, Tensor | None]:
    """Return activations as (image, feature, row, column), and the tokens without a place, if there are any."""
    if layout.kind == "first":
        return activations, None
    if layout.kind == "last":
        return activations.permute(0, 3, 1, 2).contiguous(), None
    features = activations[:, layout.extra :].mT.unflatten(2, layout.grid)
    return features, activations[:, : layout.extra] if layout.extra else None


def ungridded(features: Tensor, tokens: Tensor | None, layout: Layout) -> Tensor:
    """Undo `gridded`."""
    if layout.kind == "first":
        return features
    if layout.kind == "last":
        return features.permute(0, 2, 3, 1)
    placed = features.flatten(2).mT
    return placed if tokens is None else torch.cat([tokens, placed], dim=1)


def last_linear(graph: GraphModule) -> nn.Linear:
    """Return the linear layer of a graph of global average pooling and one linear layer; checked on features of noise.

    Raises:
        Unsupported: it is anything else, so that weights do not correspond to features.
    """
    nodes = [node for node in graph.graph.nodes if node.op not in ("placeholder", "output", "get_attr")]
    steps = [graph.get_submodule(node.target) if node.op == "call_module" else node.target for node in nodes]
    layers = [step for step in steps if isinstance(step, nn.Linear)]
    if len(layers) == 1 and any(_averages(graph, layers[0], kind) for kind in ("first", "last")):
        return layers[0]
    kinds = [type(step) if isinstance(step, nn.Module) else step for step in steps]
    names = ", ".join(getattr(one, "__name__", str(one)) for one in kinds[-SHOWN:])
    message = names if len(kinds) <= SHOWN else f"{len(kinds)} steps, at the end: {names}"
    raise Unsupported(f"needs a head of global average pooling and one linear layer; this one has {message}")


@torch.no_grad()
def _averages(graph: GraphModule, layer: nn.Linear, kind: str) -> bool:
    shape = (4, layer.in_features, 3, 2)
    noise = torch.randn(shape, generator=torch.Generator().manual_seed(0)).to(layer.weight)
    try:
        found = graph(ungridded(noise, None, Layout(kind, 0, (3, 2))))
    except (RuntimeError, ValueError):  # it expects other features, or another number of them
        return False
    expected = layer(noise.mean((2, 3)))
    near = 0.02 if layer.weight.dtype == torch.bfloat16 else 1e-4
    return found.shape == expected.shape and bool(torch.dist(found, expected) <= near * expected.norm())


def enlarged(maps: Tensor, side: tuple[int, ...]) -> Tensor:
    """Enlarge maps bilinearly in the last two dimensions (align_corners=False), if their size differs."""
    if tuple(maps.shape[-2:]) == side:
        return maps
    planes = maps.contiguous().view(-1, 1, *maps.shape[-2:])
    return interpolate(planes, size=side, mode="bilinear", align_corners=False).view(*maps.shape[:-2], *side)
