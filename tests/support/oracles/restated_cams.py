"""Formulas of class activation maps a second time: a plain network cut in two, one image after the other."""

import torch
from torch import Tensor, nn

from atlas.study import seeds as draws
from tests.support.oracles.cases import HEIGHT, STD, WIDTH, Case, color, normalized, precision


def cam(case: Case, *, rectified: bool, layer: str) -> Tensor:
    assert not rectified
    (last,) = (module for module in case.network.modules() if isinstance(module, nn.Linear))
    return torch.einsum("nk,nkij->nij", last.weight[case.targets], case.features(layer))[:, None]


def gradcam_pp(case: Case, *, form: str, layer: str) -> Tensor:
    """α = g² / (2 g² + g³ Σ A), feature by feature, in double precision."""
    assert form == "paper"
    found = []
    for row in case.rows():
        (features,), (gradients,) = _layer(row, row.images, layer)
        total = torch.zeros(features.shape[1:], dtype=torch.float64)
        for feature, g in zip(features.double(), gradients.double(), strict=True):
            alphas = torch.where(g == 0, 0.0, g**2 / (2 * g**2 + g**3 * feature.sum()))
            total += (alphas * g.clamp(min=0)).sum() * feature
        found.append(total.clamp(min=0)[None])
    return torch.stack(found)


def smooth_gradcam_pp(case: Case, *, samples: int, deviation: float, form: str, layer: str) -> Tensor:
    """Powers of the gradient are averaged over noisy samples; activations are those of the image."""
    assert form == "paper"
    found = []
    for row in case.rows():
        noise = [draws.normal(row.seeds, "smooth_gradcam_pp", sample, (3, HEIGHT, WIDTH)) for sample in range(samples)]
        slopes = [_layer(row, _moved(row.images, deviation * part), layer)[1][0].double() for part in noise]
        one, two, three = (sum(slope**power for slope in slopes) / samples for power in (1, 2, 3))
        total = 0
        for k, feature in enumerate(row.features(layer)[0].double()):
            divisor = 2 * two[k] + three[k] * feature.sum()
            total += (torch.where(divisor == 0, 0.0, two[k] / divisor) * one[k].clamp(min=0)).sum() * feature
        found.append(total.clamp(min=0)[None])
    return torch.stack(found)


def integrated_gradcam(case: Case, *, steps: int, baseline: str, difference: bool, layer: str) -> Tensor:
    """Points from the baseline on, the image not among them; a mean, where the authors' code sums."""
    found = []
    for row in case.rows():
        start = color(baseline).expand_as(row.images)
        empty = _layer(row, start, layer)[0] if difference else 0
        total = 0
        for step in range(steps):
            features, gradients = _layer(row, start + step / steps * (row.images - start), layer)
            weights = gradients.mean((2, 3), keepdim=True)
            total += (weights * (features - empty)).sum(1, keepdim=True).clamp(min=0) / steps
        found.append(total)
    return torch.cat(found)


def expected_gradcam(case: Case, *, samples: int, difference: str, smoothing: str, scale: float, layer: str) -> Tensor:
    """Draw by draw; the difference is of activations, or the activations of the difference of normalized images."""
    noisy = {"uniform": draws.uniform, "gaussian": draws.normal}[smoothing]
    found = []
    for row in case.rows():
        clean, weights = row.features(layer), 0
        for sample in range(samples):
            draw = draws.rng(row.seeds[0], "background", sample)
            start, share = case.background[[int(draw.integers(len(case.background)))]], float(draw.random())
            point = start + share * (row.images - start)
            noise = scale * noisy(row.seeds, "expected_gradcam", sample, (3, HEIGHT, WIDTH))
            _, gradients = _layer(row, _moved(point, noise), layer)
            if difference == "latent":
                change = clean - _layer(row, start, layer)[0]
            else:
                apart = (normalized(row.images) - normalized(start)).to(precision(row.network))
                with torch.no_grad():
                    change = row.halves(layer)[0](apart)
            weights += (change * gradients).mean((2, 3), keepdim=True) / samples
        found.append((weights * clean).sum(1, keepdim=True).clamp(min=0))
    return torch.cat(found)


def _layer(case: Case, images: Tensor, layer: str) -> tuple[Tensor, Tensor]:
    """A layer's activations at images, and the gradient of the target's logit by them."""
    before, after = case.halves(layer)
    features = before(normalized(images.float()).to(precision(case.network))).detach().requires_grad_()
    (gradients,) = torch.autograd.grad(after(features)[:, int(case.targets)].sum(), features)
    return features.detach(), gradients


def _moved(images: Tensor, noise: Tensor) -> Tensor:
    """Noise of the normalized image."""
    return images + noise * torch.tensor(STD).view(-1, 1, 1)
