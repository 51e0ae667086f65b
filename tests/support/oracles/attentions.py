"""Attention followed back, on the weights of a network's own attention: of torch's layer, or of timm's, by hooks."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from tests.support.oracles.cases import Case


def rollout(case: Case) -> Tensor:
    return _followed(case, lambda weights, slope: (weights.mean(0) + torch.eye(len(weights[0]))) / 2)


def gradient_rollout(case: Case) -> Tensor:
    def step(weights: Tensor, slope: Tensor) -> Tensor:
        return torch.eye(len(weights[0])) + (weights * slope).clamp(min=0).mean(0)

    return _followed(case, step)


def _followed(case: Case, step) -> Tensor:
    found = []
    for row in case.rows():
        with _weights(row.network) as seen:
            (logit,) = row.network(row.normalized().to(next(row.network.parameters())))[:, int(row.targets)]
        total = None
        for weights, slope in zip(seen, torch.autograd.grad(logit, seen), strict=True):
            mixed = step(weights.detach().view(-1, *weights.shape[-2:]).double(), slope.view(-1, *slope.shape[-2:]))
            total = mixed if total is None else mixed @ total
        side = int((len(total) - 1) ** 0.5)
        found.append(total[0, -side * side :].view(1, side, side))
    return torch.stack(found)


@contextmanager
def _weights(network: nn.Module) -> Iterator[list[Tensor]]:
    """Let a network run with its attention's weights noted: what multiplies the values."""
    seen: list[Tensor] = []
    hooks, before = [], {}
    for layer in network.modules():
        if isinstance(layer, nn.MultiheadAttention):
            before[layer] = layer.forward

            def forward(*given, layer=layer, **settings):
                settings |= {"need_weights": True, "average_attn_weights": False}
                mixed, weights = before[layer](*(part.requires_grad_() for part in given), **settings)
                seen.append(weights._base)  # the weights given back are a view of those that are used
                return mixed, weights

            layer.forward = forward
        elif hasattr(layer, "fused_attn"):
            layer.fused_attn = False
            hooks.append(layer.attn_drop.register_forward_hook(lambda _, given, weights: seen.append(weights)))
            hooks.append(layer.register_forward_pre_hook(lambda _, given: (given[0].requires_grad_(), *given[1:])))
    try:
        yield seen
    finally:
        for hook in hooks:
            hook.remove()
        for layer, forward in before.items():
            layer.forward = forward
