"""Formulas of gradients, paths and controls a second time: autograd, one image and one point after the other."""

import hashlib
from itertools import product

import numpy as np
import torch
from scipy.ndimage import gaussian_filter
from torch import Tensor, nn

from atlas.study import seeds as draws
from tests.support.oracles.cases import HEIGHT, STD, WIDTH, Case, batch_extent, color

KEPT = {
    "both": lambda gradients: gradients,
    "positive": lambda gradients: gradients.clip(0),
    "negative": lambda gradients: gradients.clip(max=0),
    "absolute": abs,
}


def gradient(case: Case, *, sign: str, output: str, layer: str) -> Tensor:
    assert layer == "input"
    return torch.from_numpy(np.stack([KEPT[sign](_gradient(row, row.images[0], output)) for row in case.rows()]))


def guided_backprop(case: Case, *, sign: str, layer: str) -> Tensor:
    """With an activation that goes back by the rule of its sign in the place of every ReLU."""
    assert layer == "input"

    class Rule(torch.autograd.Function):
        @staticmethod
        def forward(context, entering: Tensor) -> Tensor:
            context.save_for_backward(entering)
            return entering.clamp(min=0)

        @staticmethod
        def backward(context, above: Tensor) -> Tensor:
            (entering,) = context.saved_tensors
            return KEPT[sign](above) * (entering > 0)

    class Guided(nn.Module):
        def forward(self, entering: Tensor) -> Tensor:
            return Rule.apply(entering)

    case = case.copied()
    for module in list(case.network.modules()):
        for name, child in module.named_children():
            if isinstance(child, nn.ReLU):
                setattr(module, name, Guided())
    return gradient(case, sign="both", output="logit", layer="input")


def gag(
    case: Case,
    *,
    samples: int,
    spread: float,
    extent: str,
    output: str,
    sign: str,
    percentile: int,
    floor: str,
) -> Tensor:
    """The authors' steps, by channel: variance, its quantile, the guide, and the guided sum, here divided by n."""
    found = []
    for row in case.rows():
        image, shape = row.images[0], tuple(row.images.shape[1:])
        std = torch.tensor(STD).view(-1, 1, 1)
        deviation = spread * (image.max() - image.min() if extent == "image" else batch_extent() * std)
        noise = [draws.normal(row.seeds, "noise", sample, shape)[0] for sample in range(samples)]
        terms = [_gradient(row, image + deviation * part, output) for part in noise]
        by_normalized = [term * std.numpy() for term in terms]
        found.append(_guide(by_normalized, percentile, floor) * sum(KEPT[sign](term) for term in terms) / samples)
    return torch.from_numpy(np.stack(found))


def integrated_gradients(
    case: Case, *, steps: int, baseline: str, rule: str, sign: str, output: str, layer: str
) -> Tensor:
    assert layer == "input"
    lines = [[_line(row, _absent(row.images[0], baseline), steps, rule, sign, output)] for row in case.rows()]
    return torch.from_numpy(np.stack([_total(terms, sign, 0, "raw") for terms in lines]))


def integrated_gradients_random(
    case: Case,
    *,
    steps: int,
    baselines: int,
    rule: str,
    sign: str,
    output: str,
    percentile: int,
    floor: str,
) -> Tensor:
    """The authors of Guided AbsoluteGrad guide by the variance over baselines."""
    found = []
    for row in case.rows():
        shape = tuple(row.images.shape[1:])
        starts = [draws.uniform(row.seeds, "baseline", number, shape)[0] for number in range(baselines)]
        terms = [_line(row, start, steps, rule, sign, output) for start in starts]
        found.append(_total(terms, sign, percentile, floor) / baselines)
    return torch.from_numpy(np.stack(found))


def blur_ig(case: Case, *, steps: int, max_sigma: float, sign: str, output: str, percentile: int, floor: str) -> Tensor:
    found = []
    for row in case.rows():
        image, terms = row.images[0].double(), []
        for sigma in np.arange(steps) * max_sigma / steps:
            point = _blurred(image, sigma) if sigma else image
            slope = (_blurred(image, sigma + 0.01) - point).numpy() / 0.01
            terms.append(-max_sigma / steps * slope * KEPT[sign](_gradient(row, point, output)))
        found.append(_total(terms, sign, percentile, floor))
    return torch.from_numpy(np.stack(found))


def center(case: Case, *, sigma: float) -> Tensor:
    found = torch.zeros(HEIGHT, WIDTH)
    for row, column in product(range(HEIGHT), range(WIDTH)):
        down, across = ((row + 0.5) / HEIGHT - 0.5) / sigma, ((column + 0.5) / WIDTH - 0.5) / sigma
        found[row, column] = np.exp(-(down**2 + across**2) / 2)
    return found.expand(len(case.images), 1, HEIGHT, WIDTH)


def uniform(case: Case) -> Tensor:
    """Torch's numbers in [0, 1) of a generator that is seeded by a digest of the image's seed."""
    found = []
    for seed in case.seeds:
        digest = hashlib.blake2b(f"{seed}/uniform/0".encode(), digest_size=8).digest()
        generator = torch.Generator().manual_seed(int.from_bytes(digest, "little") >> 1)
        found.append(torch.rand(1, HEIGHT, WIDTH, generator=generator))
    return torch.stack(found)


def _gradient(case: Case, image: Tensor, output: str) -> np.ndarray:
    inputs = image.float()[None].requires_grad_()
    (found,) = torch.autograd.grad(case.whole(output)(inputs)[0, int(case.targets)], inputs)
    return found[0].double().numpy()


def _line(case: Case, start: Tensor, steps: int, rule: str, sign: str, output: str) -> np.ndarray:
    nodes = {"endpoints": np.arange(steps) / (steps - 1), "midpoint": (np.arange(steps) + 0.5) / steps}[rule]
    image = case.images[0]
    slopes = [_gradient(case, start + float(node) * (image - start), output) for node in nodes]
    return (image - start).numpy() * sum(KEPT[sign](slope) for slope in slopes) / steps


def _total(terms: list[np.ndarray], sign: str, percentile: int, floor: str) -> np.ndarray:
    return _guide(terms, percentile, floor) * sum(abs(term) if sign == "absolute" else term for term in terms)


def _guide(terms: list[np.ndarray], percentile: int, floor: str) -> np.ndarray:
    if percentile == 0:
        return np.ones_like(terms[0])
    guides = []
    for variance in torch.from_numpy(np.var(terms, axis=0, ddof=1)):
        held = {
            "raw": variance,
            "minmax": (variance - variance.min()) / (variance.max() - variance.min()),
            "zero": torch.zeros_like(variance),
        }[floor]
        guides.append(torch.where(variance > torch.quantile(variance, percentile / 100), 1.0, held))
    return torch.stack(guides).numpy()


def _absent(image: Tensor, baseline: str) -> Tensor:
    if baseline != "blur":
        return color(baseline).expand_as(image)
    sigma = 0.1 * min(HEIGHT, WIDTH)
    return (_blurred(image, sigma) / _blurred(torch.ones_like(image), sigma)).float()


def _blurred(image: Tensor, sigma: float) -> Tensor:
    """Black beyond the border, as SciPy does it."""
    return torch.from_numpy(gaussian_filter(image.double().numpy(), [0, sigma, sigma], mode="constant"))
