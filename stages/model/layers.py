"""Cut a network at one of its layers, lay tokens out as a grid, and enlarge what was made at a layer's size."""

from collections import OrderedDict
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from stages.study.problem import Unsupported


class Halves(NamedTuple):
    """A network cut in two: from normalized images to a layer's activations, and from these to logits."""

    before: nn.Module
    after: nn.Module


class Copy(nn.Module):
    """Stand before layers that may work in place, so that what they are given stays as it is."""

    def forward(self, entering: Tensor) -> Tensor:
        """Give the same in other memory."""
        return entering.clone()


def cut(network: nn.Sequential, layer: str) -> Halves:
    """Cut a network behind a layer.

    Args:
        network: A chain of `features` and `head`.
        layer: `final`, the last spatial layer, where features end; or the path of a module all of whose parents are
            chains, as `features.layer3.1`. (At `input` there is nothing to cut.)

    Raises:
        Unsupported: there is no such layer, or what follows it does not depend on it alone.
    """
    return _cut(network, "features" if layer == "final" else layer, layer, "")


def _cut(chain: nn.Module, path: str, layer: str, parent: str) -> Halves:
    name, _, inner = path.partition(".")
    steps = list(chain.named_children())
    names = [step for step, _ in steps]
    if not isinstance(chain, nn.Sequential) or name not in names:
        known = ", ".join(f"{parent}{step}" for step in names) if isinstance(chain, nn.Sequential) else "none"
        place = f"'{parent[:-1]}'" if parent else "the network"
        raise Unsupported(f"it has no layer '{layer}' to be cut at; there are: input, final, and in {place}: {known}")
    at = names.index(name)
    halves = _cut(steps[at][1], inner, layer, f"{parent}{name}.") if inner else Halves(steps[at][1], nn.Sequential())
    before = nn.Sequential(OrderedDict([*steps[:at], (name, halves.before)]))
    return Halves(before, nn.Sequential(OrderedDict([(name, halves.after), *steps[at + 1 :]])))


def last_linear(graph: torch.fx.GraphModule) -> nn.Linear:
    """Give the linear layer of a graph that is global average pooling and that one alone.

    Raises:
        Unsupported: it is anything else, so that no weight belongs to a feature.
    """
    nodes = [node for node in graph.graph.nodes if node.op not in ("placeholder", "output")]
    steps = [graph.get_submodule(node.target) if node.op == "call_module" else node.target for node in nodes]
    steps = [step for step in steps if not isinstance(step, nn.Dropout | nn.Identity)]
    kinds = [type(step) if isinstance(step, nn.Module) else step for step in steps]
    if kinds != [nn.AdaptiveAvgPool2d, nn.Flatten, nn.Linear] or steps[0].output_size not in (1, (1, 1)):
        names = ", ".join(getattr(kind, "__name__", str(kind)) for kind in kinds)
        raise Unsupported(f"needs a head of global average pooling and one linear layer; this one has {names}")
    return steps[-1]


def gridded(activations: Tensor, grid: tuple[int, int] | None) -> tuple[Tensor, Tensor]:
    """Give activations as features of rows and columns, and what else there is: the class token's, or nothing.

    Raises:
        Unsupported: they are no features of places.
    """
    if activations.dim() == 4:
        return activations, activations.new_empty(len(activations), 0)
    if activations.dim() != 3 or grid is None:
        raise Unsupported(f"its layer gives {activations.dim() - 1} dimensions, and no rows and columns")
    first = activations.shape[1] - grid[0] * grid[1]
    return activations[:, first:].mT.unflatten(2, grid), activations[:, :first]


def ungridded(features: Tensor, beside: Tensor) -> Tensor:
    """Undo `gridded`."""
    return features if beside.dim() == 2 else torch.cat([beside, features.flatten(2).mT], dim=1)


def enlarged(maps: Tensor, side: tuple[int, int]) -> Tensor:
    """Enlarge maps, the last two dimensions, bilinearly, corners not aligned; those of that size stay as they are."""
    if tuple(maps.shape[-2:]) == side:
        return maps
    planes = maps.contiguous().view(-1, 1, *maps.shape[-2:])
    return interpolate(planes, size=side, mode="bilinear", align_corners=False).view(*maps.shape[:-2], *side)
