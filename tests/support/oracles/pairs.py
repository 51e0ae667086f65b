"""PAIR's side of the comparisons: one image at a time, of y x channel, in double precision."""

from collections.abc import Callable
from unittest.mock import patch

import numpy as np
import saliency.core as pair
import torch
from torch import Tensor

from atlas.study import seeds as draws
from tests.support.oracles.cases import Case, color


def smoothgrad(case: Case, *, samples: int, spread: float, extent: str, output: str, sign: str) -> Tensor:
    assert (extent, sign) == ("image", "both")
    return _noisy(case, output, samples, spread, magnitude=False)


def smoothgrad_squared(case: Case, *, samples: int, spread: float, extent: str, output: str) -> Tensor:
    assert extent == "image"
    return _noisy(case, output, samples, spread, magnitude=True)


def _noisy(case: Case, output: str, samples: int, spread: float, *, magnitude: bool) -> Tensor:
    """With the methods' own noise."""

    def one(row: Case, values: np.ndarray, call: Callable) -> np.ndarray:
        shape = tuple(row.images.shape[1:])
        noise = iter([draws.normal(row.seeds, "noise", sample, shape)[0] for sample in range(samples)])

        def normal(mean: float, deviation: float, size: tuple) -> np.ndarray:
            return mean + deviation * next(noise).movedim(0, -1).numpy()

        with patch.object(np.random, "normal", normal):
            settings = {"stdev_spread": spread, "nsamples": samples, "magnitude": magnitude}
            return pair.GradientSaliency().GetSmoothedMask(values, call, **settings)

    return _each(case, output, one)


def integrated_gradients(
    case: Case, *, steps: int, baseline: str, rule: str, sign: str, output: str, layer: str
) -> Tensor:
    assert (rule, sign, layer) == ("endpoints", "both", "input")

    def one(_: Case, values: np.ndarray, call: Callable) -> np.ndarray:
        start = np.broadcast_to(color(baseline).movedim(0, -1).double().numpy(), values.shape)
        return pair.IntegratedGradients().GetMask(values, call, x_baseline=start, x_steps=steps)

    return _each(case, output, one)


def guided_ig(
    case: Case,
    *,
    steps: int,
    baseline: str,
    fraction: float,
    max_distance: float,
    sign: str,
    output: str,
    percentile: int,
    floor: str,
) -> Tensor:
    """It calls `np.quantile` with an argument that NumPy has since renamed."""
    assert (sign, percentile) == ("both", 0)
    quantile = np.quantile

    def one(_: Case, values: np.ndarray, call: Callable) -> np.ndarray:
        start = np.broadcast_to(color(baseline).movedim(0, -1).double().numpy(), values.shape)
        settings = {"x_steps": steps, "fraction": fraction, "max_dist": max_distance}
        with patch.object(np, "quantile", lambda a, q, interpolation: quantile(a, q, method=interpolation)):
            return pair.GuidedIG().GetMask(values, call, x_baseline=start, **settings)

    return _each(case, output, one)


def blur_ig(case: Case, *, steps: int, max_sigma: float, sign: str, output: str, percentile: int, floor: str) -> Tensor:
    assert (sign, percentile) == ("both", 0)

    def one(_: Case, values: np.ndarray, call: Callable) -> np.ndarray:
        return pair.BlurIG().GetMask(values, call, steps=steps, max_sigma=max_sigma)

    return _each(case, output, one)


def xrai(case: Case, *, steps: int, rule: str, output: str, dilation: int, min_pixels: int) -> Tensor:
    """From the same baselines, which it takes from the image unless it is told; the rest are its own settings."""
    assert (rule, dilation, min_pixels) == ("endpoints", 5, 50)

    def one(_: Case, values: np.ndarray, call: Callable) -> np.ndarray:
        ends = [np.zeros_like(values), np.ones_like(values)]
        settings = pair.XRAIParameters(steps=steps)
        return pair.XRAI().GetMask(values, call, baselines=ends, extra_parameters=settings)[..., None]

    return _each(case, output, one)


def _each(case: Case, output: str, one: Callable) -> Tensor:
    found = []
    for row in case.rows():
        values = row.images[0].movedim(0, -1).double().numpy()
        found.append(torch.from_numpy(one(row, values, _gradients(row, output))).movedim(-1, 0))
    return torch.stack(found)


def _gradients(case: Case, output: str) -> Callable[..., dict[str, np.ndarray]]:
    """The network as PAIR calls it."""
    whole = case.whole(output)

    def call(points: np.ndarray, call_model_args: None = None, expected_keys: list | None = None) -> dict:
        inputs = torch.from_numpy(np.asarray(points)).float().movedim(-1, 1).requires_grad_()
        (found,) = torch.autograd.grad(whole(inputs)[:, int(case.targets)].sum(), inputs)
        return {pair.INPUT_OUTPUT_GRADIENTS: found.movedim(1, -1).double().numpy()}

    return call
