"""Formulas of methods that hide or ablate a second time: one mask, one feature and one location after the other."""

from collections.abc import Callable
from itertools import product

import numpy as np
import torch
from skimage.transform import resize
from torch import Tensor
from torch.nn.functional import interpolate

from atlas.study import seeds as draws
from tests.support.oracles.cases import HEIGHT, WIDTH, Case, color

Ask = Callable[..., Tensor]


def scorecam(case: Case, *, order: str, fill: str, layer: str) -> Tensor:
    return _scored(case, order, fill, layer, [1.0])


def is_cam(case: Case, *, samples: int, ramp: str, order: str, fill: str, layer: str) -> Tensor:
    assert ramp == "linear"
    return _scored(case, order, fill, layer, [(sample + 1) / samples for sample in range(samples)])


def _scored(case: Case, order: str, fill: str, layer: str, strengths: list[float]) -> Tensor:
    """Feature by feature: the mean logit behind its mask at several strengths; the softmax of these weighs it."""
    found = []
    for row in case.rows():
        (features,), scores = row.features(layer), []
        for feature in features:
            mask = _mask(feature, order).to(row.images)
            shown = torch.cat([color(fill) + strength * mask * (row.images - color(fill)) for strength in strengths])
            scores.append(_logits(row, shown).mean())
        weights = torch.stack(scores).softmax(0)
        found.append(torch.einsum("k,kij->ij", weights, features).clamp(min=0)[None])
    return torch.stack(found)


def _mask(feature: Tensor, order: str) -> Tensor:
    def large(part: Tensor) -> Tensor:
        return interpolate(part[None, None], size=(HEIGHT, WIDTH), mode="bilinear", align_corners=False)[0, 0]

    def scaled(part: Tensor) -> Tensor:
        return (part - part.min()) / (part.max() - part.min())

    if feature.max() == feature.min():
        return torch.zeros(HEIGHT, WIDTH)
    return large(scaled(feature)) if order == "normalize_first" else scaled(large(feature))


def ablation_cam(case: Case, *, divisor: str, layer: str) -> Tensor:
    """Of a negative logit, whose map turns over where it is divided by and not its magnitude."""
    assert divisor == "magnitude"

    def one(features: Tensor, logits: Ask) -> Tensor:
        (whole,), total = logits(features[None]), 0
        for k, feature in enumerate(features):
            without = features.clone()
            without[k] = 0
            total += (whole - logits(without[None])[0]) / abs(whole) * feature
        return total.clamp(min=0)

    return _on_features(case, layer, one)


def recipro_cam(case: Case, *, spread: bool, layer: str) -> Tensor:
    stencil = torch.tensor([[1.0, 2, 1], [2, 4, 2], [1, 2, 1]]) / 16

    def one(features: Tensor, logits: Ask) -> Tensor:
        height, width = features.shape[1:]
        found = torch.zeros(height, width)
        for i, j in product(range(height), range(width)):
            alone = torch.zeros_like(features)
            for a, b in product((-1, 0, 1), repeat=2):
                if 0 <= i + a < height and 0 <= j + b < width:
                    share = stencil[a + 1, b + 1] if spread else float(a == b == 0)
                    alone[:, i + a, j + b] = share * features[:, i, j]
            found[i, j] = logits(alone[None], "probability")[0]
        return found

    return _on_features(case, layer, one)


def rise_features(case: Case, *, masks: int, cells: int, probability: float, seed: int, layer: str) -> Tensor:
    def one(features: Tensor, logits: Ask) -> Tensor:
        shown = _rise_masks(features.shape[1:], masks, cells, probability, seed)
        asked = [logits((features * mask)[None], "probability")[0] for mask in shown.to(features)]
        return sum(p * mask for p, mask in zip(asked, shown, strict=True)) / (masks * probability)

    return _on_features(case, layer, one)


def rise(case: Case, *, masks: int, cells: int, probability: float, fill: str, seed: int) -> Tensor:
    """The authors' masks; with `mean` they hide the normalized image, as the authors do."""
    shown, found = _rise_masks((HEIGHT, WIDTH), masks, cells, probability, seed), []
    for row in case.rows():
        masked = [color(fill) + mask * (row.images - color(fill)) for mask in shown.float()]
        asked = [_logits(row, part, "probability")[0] for part in masked]
        found.append(sum(p * mask for p, mask in zip(asked, shown, strict=True)) / (masks * probability))
    return torch.stack(found)[:, None]


def _rise_masks(size: tuple[int, int], masks: int, cells: int, probability: float, seed: int) -> Tensor:
    height, width = size
    steps = -(-height // cells), -(-width // cells)
    found = []
    for draw in torch.rand(masks, cells**2 + 2, generator=draws.generator(seed, "rise")).numpy():
        grid = (draw[:-2] < probability).astype(float).reshape(cells, cells)
        sides = [(cells + 1) * step for step in steps]
        large = resize(grid, sides, order=1, mode="reflect", anti_aliasing=False)
        top, left = (int(share * step) for share, step in zip(draw[-2:], steps, strict=True))
        found.append(large[top : top + height, left : left + width])
    return torch.from_numpy(np.stack(found))


def _logits(case: Case, images: Tensor, output: str = "logit") -> Tensor:
    with torch.no_grad():
        return case.whole(output)(images)[:, int(case.targets)]


def _on_features(case: Case, layer: str, one: Callable[[Tensor, Ask], Tensor]) -> Tensor:
    return torch.stack([one(row.features(layer)[0], _asked(row, layer)) for row in case.rows()])[:, None]


def _asked(case: Case, layer: str) -> Ask:
    after = case.halves(layer)[1]

    def ask(features: Tensor, output: str = "logit") -> Tensor:
        with torch.no_grad():
            logits = after(features)
        return (logits if output == "logit" else logits.softmax(1))[:, int(case.targets)]

    return ask
