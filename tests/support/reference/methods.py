"""The methods a second time: slowly, from their formulas, on one image and a plain network."""

from collections.abc import Callable

import numpy as np
import torch
from skimage.transform import resize
from torch import nn

from atlas.study import seeds


def gradient(network: nn.Module, image: torch.Tensor, target: int) -> np.ndarray:
    image = image[None].clone().requires_grad_()
    network(image)[0, target].backward()
    return image.grad[0].numpy()


def noisy_gradients(network, image, target, seed: int, samples: int, spread: float) -> np.ndarray:
    deviation = spread * (image.max() - image.min())
    noise = [seeds.normal([seed], "noise", sample, tuple(image.shape))[0] for sample in range(samples)]
    return np.stack([gradient(network, image + deviation * eps, target) for eps in noise])


def gag(gradients: np.ndarray, percentile: int, floor: str, kept: Callable, std: list[float]) -> np.ndarray:
    """Guided AbsoluteGrad of an image from its noisy gradients, divided by their number."""
    samples, channels, height, width = gradients.shape
    result = np.zeros((channels, height, width))
    for channel in range(channels):
        variance = gradients[:, channel].astype(float).var(axis=0, ddof=1)
        threshold = np.percentile(variance, percentile)
        for row in range(height):
            for column in range(width):
                v = variance[row, column]
                if percentile == 0 or v > threshold:
                    guide = 1.0
                elif floor == "raw":
                    guide = v * std[channel] ** 2  # of gradients by the normalized image
                elif floor == "minmax":
                    guide = (v - variance.min()) / (variance.max() - variance.min())
                else:
                    guide = 0.0
                for gradient in gradients[:, channel, row, column]:
                    result[channel, row, column] += guide * kept(gradient) / samples
    return result


def layer(network: nn.Module, image: torch.Tensor, target: int) -> tuple[np.ndarray, np.ndarray]:
    """The last features, and the gradient of the target's logit by them."""
    features = network.features(network.normalized(image[None])).detach().requires_grad_()
    network.head(features)[0, target].backward()
    return features.detach()[0].double().numpy(), features.grad[0].double().numpy()


def gradcam(features: np.ndarray, gradients: np.ndarray) -> np.ndarray:
    coarse = np.zeros(features.shape[1:])
    for feature, gradient in zip(features, gradients, strict=True):
        coarse += gradient.mean() * feature
    return np.maximum(coarse, 0)


def gradcam_pp(features: np.ndarray, gradients: np.ndarray) -> np.ndarray:
    coarse = np.zeros(features.shape[1:])
    for feature, gradient in zip(features, gradients, strict=True):
        weight = 0.0
        for g in gradient.flat:
            denominator = 2 * g**2 + g**3 * feature.sum()
            alpha = 0.0 if g == 0 or denominator == 0 else g**2 / denominator
            weight += alpha * max(g, 0.0)
        coarse += weight * feature
    return np.maximum(coarse, 0)


def hirescam(features: np.ndarray, gradients: np.ndarray) -> np.ndarray:
    return np.maximum(sum(g * a for g, a in zip(gradients, features, strict=True)), 0)


def layercam(features: np.ndarray, gradients: np.ndarray) -> np.ndarray:
    coarse = np.zeros(features.shape[1:])
    for row, column in np.ndindex(*coarse.shape):
        for a, g in zip(features[:, row, column], gradients[:, row, column], strict=True):
            coarse[row, column] += max(g, 0.0) * a
    return np.maximum(coarse, 0)


def enlarged(coarse: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    return resize(coarse, size, order=1, mode="edge", anti_aliasing=False, preserve_range=True)


def integrated_gradients(network, image, target, baseline, points, weights) -> np.ndarray:
    total = sum(
        weight * gradient(network, baseline + point * (image - baseline), target)
        for point, weight in zip(points, weights, strict=True)
    )
    return (image - baseline).numpy() * total


def starts(side: int, window: int, stride: int) -> list[int]:
    """Where windows start: half a window before the border, then a stride apart until half a window is beyond it."""
    found = [-(window // 2)]
    while (found[-1] + stride <= side - window // 2 and found[-1] + stride < side) or found[-1] + window < side:
        found.append(found[-1] + stride)
    return found


def occlusion(network, image, target, window: int, stride: int, color: torch.Tensor) -> np.ndarray:
    _, height, width = image.shape
    result = np.zeros((height, width))
    with torch.no_grad():
        clean = network(image[None])[0, target].item()
        for top in starts(height, window, stride):
            for left in starts(width, window, stride):
                inside = np.zeros((height, width), dtype=bool)
                for row in range(top, top + window):
                    for column in range(left, left + window):
                        if 0 <= row < height and 0 <= column < width:
                            inside[row, column] = True
                hidden = torch.where(torch.from_numpy(inside), color, image)
                result[inside] += (clean - network(hidden[None])[0, target].item()) / inside.sum()
    return result


def rise(network, image, target, masks, cells, probability, color, seed: int) -> np.ndarray:
    _, height, width = image.shape
    cell = (-(-height // cells), -(-width // cells))
    drawn = torch.rand(masks, cells**2 + 2, generator=seeds.generator(seed, "rise")).numpy()
    result = np.zeros((height, width))
    for draw in drawn:
        grid = (draw[: cells**2] < probability).astype(float).reshape(cells, cells)
        large = resize(
            grid, ((cells + 1) * cell[0], (cells + 1) * cell[1]), order=1, mode="reflect", anti_aliasing=False
        )
        top, left = int(draw[-2] * cell[0]), int(draw[-1] * cell[1])
        mask = large[top : top + height, left : left + width]
        shown = torch.from_numpy(mask).float()
        with torch.no_grad():
            logits = network((image * shown + color * (1 - shown))[None])[0]
        result += logits.softmax(0)[target].item() * mask
    return result / (masks * probability)
