"""Captum's side of the comparisons."""

from unittest.mock import patch

import torch
from captum import attr as captum
from captum.attr._core import deep_lift as captum_deep_lift
from torch import Tensor, nn

from atlas.study import seeds as draws
from tests.support.oracles.cases import STD, Case, batch_extent, color, normalized

RULES = {"gauss_legendre": "gausslegendre", "midpoint": "riemann_middle"}
SIGNED = {"both": lambda found: found, "positive": lambda found: found.clamp(min=0), "absolute": Tensor.abs}


def gradient(case: Case, *, sign: str, output: str, layer: str) -> Tensor:
    """Saliency, or the part of a layer's gradient × activation that is the gradient."""
    whole = case.whole(output)
    if layer == "input":
        found = captum.Saliency(whole).attribute(_inputs(case), target=case.targets, abs=False)
    else:
        explainer = captum.LayerGradientXActivation(whole, whole.layer(layer), multiply_by_inputs=False)
        found = explainer.attribute(_inputs(case), target=case.targets)
    return SIGNED[sign](found.detach())


def input_x_gradient(case: Case, *, baseline: str, output: str, layer: str) -> Tensor:
    assert baseline == ("black" if layer == "input" else "zero")
    whole = case.whole(output)
    if layer == "input":
        return captum.InputXGradient(whole).attribute(_inputs(case), target=case.targets).detach()
    explainer = captum.LayerGradientXActivation(whole, whole.layer(layer))
    return explainer.attribute(_inputs(case), target=case.targets).detach()


class _ReLU6(nn.ReLU):
    def forward(self, input: Tensor) -> Tensor:
        return nn.functional.relu6(input)


def _rectified(case: Case) -> Case:
    """Let Captum know ReLU6 for a ReLU."""
    case = case.copied()
    for layer in case.network.modules():
        if isinstance(layer, nn.ReLU6):
            layer.__class__ = _ReLU6
    return case


def guided_backprop(case: Case, *, sign: str, layer: str) -> Tensor:
    """Of a layer: of what follows it, as a network of its own."""
    assert sign == "positive"
    case = _rectified(case)
    if layer == "input":
        return captum.GuidedBackprop(case.whole()).attribute(_inputs(case), target=case.targets)
    features = case.features(layer).requires_grad_()
    return captum.GuidedBackprop(case.halves(layer)[1]).attribute(features, target=case.targets)


def smoothgrad(case: Case, *, samples: int, spread: float, extent: str, output: str, sign: str) -> Tensor:
    return _noisy(case, "smoothgrad", samples, spread, extent, output, absolute=sign == "absolute")


def vargrad(case: Case, *, samples: int, spread: float, extent: str, output: str) -> Tensor:
    """Captum divides by n where ours divides by n − 1."""
    return _noisy(case, "vargrad", samples, spread, extent, output, absolute=False) * samples / (samples - 1)


def _noisy(case: Case, kind: str, samples: int, spread: float, extent: str, output: str, *, absolute: bool) -> Tensor:
    """Image by image: Captum's noise has one scale for all. It is the methods' own noise."""
    found = []
    for row in case.rows():
        tunnel = captum.NoiseTunnel(captum.Saliency(row.whole(output)))
        shape = tuple(row.images.shape[1:])
        noise = torch.cat([draws.normal(row.seeds, "noise", sample, shape) for sample in range(samples)])
        deviation = spread * float(row.images.max() - row.images.min() if extent == "image" else batch_extent())
        noise = noise if extent == "image" else noise * torch.tensor(STD).view(-1, 1, 1)
        with patch.object(torch, "normal", lambda mean, deviations, noise=noise: mean + deviations * noise):
            settings = {"nt_type": kind, "nt_samples": samples, "stdevs": deviation}
            found.append(tunnel.attribute(row.images, target=row.targets, abs=absolute, **settings).detach())
    return torch.cat(found)


def integrated_gradients(
    case: Case, *, steps: int, baseline: str, rule: str, sign: str, output: str, layer: str
) -> Tensor:
    """Of a layer: of what follows it, as a network of its own, from activations of 0."""
    assert sign == "both"
    settings = {"target": case.targets, "n_steps": steps, "method": RULES[rule]}
    if layer == "input":
        starts = color(baseline).expand_as(case.images)
        return captum.IntegratedGradients(case.whole(output)).attribute(case.images, starts, **settings)
    features = case.features(layer)
    return captum.IntegratedGradients(case.halves(layer)[1]).attribute(features, 0.0, **settings)


def integrated_gradients_random(
    case: Case, *, steps: int, baselines: int, rule: str, output: str, **_: object
) -> Tensor:
    """From the methods' own baselines, one after the other."""
    explainer, shape = captum.IntegratedGradients(case.whole(output)), tuple(case.images.shape[1:])
    found = torch.zeros_like(case.images)
    for number in range(baselines):
        starts = draws.uniform(case.seeds, "baseline", number, shape)
        settings = {"target": case.targets, "n_steps": steps, "method": RULES[rule]}
        found += explainer.attribute(case.images, starts, **settings) / baselines
    return found


def gradcam(case: Case, *, layer: str) -> Tensor:
    whole = case.whole()
    explainer = captum.LayerGradCam(whole, whole.layer(layer))
    return explainer.attribute(_inputs(case), target=case.targets, relu_attributions=True).detach()


def guided_gradcam(case: Case, *, layer: str) -> Tensor:
    whole = _rectified(case).whole()
    explainer = captum.GuidedGradCam(whole, whole.layer(layer))
    return explainer.attribute(_inputs(case), target=case.targets, interpolate_mode="bilinear").detach()


def occlusion(case: Case, *, window: int, stride: int, fill: str) -> Tensor:
    starts = color(fill).expand_as(case.images)
    return _occluded(case.whole(), case.images, case.targets, starts, window, stride)


def occlusion_features(case: Case, *, window: int, stride: int, layer: str) -> Tensor:
    features = case.features(layer)
    return _occluded(case.halves(layer)[1], features, case.targets, torch.zeros_like(features), window, stride)


def _occluded(network: nn.Module, images: Tensor, targets: Tensor, starts: Tensor, window: int, stride: int) -> Tensor:
    """Captum's windows do not overhang: NaN where ours do. It gives the mean drop, ours is the sum per place."""
    shape = {"sliding_window_shapes": (images.shape[1], window, window), "strides": (images.shape[1], stride, stride)}
    found = captum.Occlusion(network).attribute(images, target=targets, baselines=starts, **shape)[:, :1]
    found = found * (window / stride) ** 2 / window**2
    frame, inner = torch.full_like(found, torch.nan), window - stride
    rows, columns = (slice(inner, (side - window) // stride * stride + stride) for side in images.shape[2:])
    frame[:, :, rows, columns] = found[:, :, rows, columns]
    return frame


def deep_lift(case: Case, *, baseline: str) -> Tensor:
    """Captum knows ReLU6, which is of ReLU's kind, only when told."""
    starts = normalized(color(baseline).expand_as(case.images))
    known = {nn.ReLU6: captum_deep_lift.nonlinear}
    with patch.dict(captum_deep_lift.SUPPORTED_NON_LINEAR, known):
        inputs = case.normalized().requires_grad_()
        return captum.DeepLift(case.plain()).attribute(inputs, starts, target=case.targets).detach()


def _inputs(case: Case) -> Tensor:
    return case.images.clone().requires_grad_()
