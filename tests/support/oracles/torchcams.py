"""TorchCAM's side of the comparisons: maps of a layer's size, before its scaling to [0, 1]."""

from collections.abc import Callable
from functools import partial
from types import SimpleNamespace

import torch
from torch import Tensor, nn
from torchcam import methods as torchcam

from atlas.study import seeds as draws
from tests.support.oracles.cases import HEIGHT, WIDTH, Case, Whole


def cam(case: Case, *, rectified: bool, layer: str) -> Tensor:
    assert not rectified
    plain = case.plain()
    last = [module for module in plain.modules() if isinstance(module, nn.Linear)][-1]
    return _map(partial(torchcam.CAM, fc_layer=last), case, plain, layer)


def gradcam_pp(case: Case, *, form: str, layer: str) -> Tensor:
    """Its division is made on a copy and lost: hence the form named after it."""
    assert form == "torchcam"
    return _map(torchcam.GradCAMpp, case, case.plain(), layer)


def xgradcam(case: Case, *, layer: str) -> Tensor:
    return _map(torchcam.XGradCAM, case, case.plain(), layer)


def layercam(case: Case, *, layer: str) -> Tensor:
    return _map(torchcam.LayerCAM, case, case.plain(), layer)


def smooth_gradcam_pp(case: Case, *, samples: int, deviation: float, form: str, layer: str) -> Tensor:
    """With the methods' own noise, and without the 1e-8 in the denominator, which outweighs small gradients."""
    assert form == "torchcam"
    noise = [draws.normal(case.seeds, "smooth_gradcam_pp", sample, (3, HEIGHT, WIDTH)) for sample in range(samples)]
    make = partial(torchcam.SmoothGradCAMpp, num_samples=samples)
    return _map(_fed(make, [deviation * part for part in noise]), case, case.plain(), layer, eps=1e-200)


def scorecam(case: Case, *, order: str, fill: str, layer: str) -> Tensor:
    assert order == "normalize_first"
    return _map(torchcam.ScoreCAM, case, _masked(case, fill), layer)


def ss_cam(case: Case, *, samples: int, deviation: float, order: str, fill: str, layer: str) -> Tensor:
    """With the methods' own noise."""
    assert order == "normalize_first"
    count, noise = case.features(layer).shape[1], []
    for sample in range(samples):
        drawn = [draws.normal(case.seeds, "ss_cam", sample * count + k, (1, HEIGHT, WIDTH)) for k in range(count)]
        noise.append(deviation * torch.cat(drawn, dim=1))
    return _map(_fed(partial(torchcam.SSCAM, num_samples=samples), noise), case, _masked(case, fill), layer)


def is_cam(case: Case, *, samples: int, ramp: str, order: str, fill: str, layer: str) -> Tensor:
    """Its strengths are sums of the ramp."""
    assert (ramp, order) == ("cumulative", "normalize_first")
    return _map(partial(torchcam.ISCAM, num_samples=samples), case, _masked(case, fill), layer)


def _masked(case: Case, fill: str) -> Whole:
    """What the package hides it multiplies by 0: black, or the mean color of a normalized image."""
    return case.plain() if fill == "mean" else case.whole()


def _fed(make: Callable, noise: list[Tensor]) -> Callable:
    """Return noise in the place of an extractor's own draws."""

    def fed(network: Whole, layer: nn.Module) -> object:
        extractor, left = make(network, layer), iter(noise)
        extractor._distrib = SimpleNamespace(sample=lambda size: next(left))
        return extractor

    return fed


def _map(make: Callable, case: Case, network: Whole, layer: str, **settings: float) -> Tensor:
    given = case.images if network.normalizes else case.normalized()
    with make(network, network.layer(layer)) as extractor:
        scores = network(given.clone().requires_grad_())
        (found,) = extractor(case.targets.tolist(), scores, normalized=False, **settings)
    return found[:, None].detach()
