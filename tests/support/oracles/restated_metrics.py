"""Published rules of metrics a second time, each in the terms of its own protocol."""

from collections.abc import Callable

import cv2
import numpy as np
from scipy.ndimage import convolve, distance_transform_edt, gaussian_filter


def torchray_hit(one: np.ndarray, corners: list[tuple[int, ...]], tolerance: int) -> bool:
    """TorchRay: is a pixel of a box nearer than the tolerance to the highest pixel?

    Args:
        corners: xmin ymin xmax ymax of VOC's boxes, counted from 1, the last pixel included.
    """
    mask = np.zeros(one.shape, bool)
    for left, top, right, bottom in corners:
        mask[top - 1 : bottom, left - 1 : right] = True
    point = np.unravel_index(one.argmax(), one.shape)
    squared = np.rint(distance_transform_edt(~mask)[point] ** 2)
    return bool(mask[point] or squared < tolerance**2)


def max_box_acc(maps: np.ndarray, boxes: list[list[list[int]]], interval: float, iou: float) -> tuple[float, int]:
    """wsolevaluation: the share of images whose box is right, at the best of all thresholds, and which that is.

    Args:
        boxes: x0 y0 x1 y1 of each image's boxes, the last pixel included.
    """
    thresholds = np.arange(0, 1, interval)
    right = np.zeros(len(thresholds))
    for one, truths in zip(maps, boxes, strict=True):
        grey = ((one - one.min()) / (one.max() - one.min()) * 255).astype(np.uint8)
        for place, threshold in enumerate(thresholds):
            box = _box(grey, int(threshold * grey.max()))
            right[place] += max(_overlap(box, truth) for truth in truths) >= iou
    return right.max() / len(maps), int(right.argmax())


def _box(grey: np.ndarray, level: int) -> list[int]:
    """The box of the contour of the largest area, its far corner one past it but within the image."""
    above = np.where(grey > level, 255, 0).astype(np.uint8)
    contours, _ = cv2.findContours(above, cv2.RETR_TREE, cv2.CHAIN_APPROX_SIMPLE)
    if not contours:
        return [0, 0, 0, 0]
    x, y, width, height = cv2.boundingRect(max(contours, key=cv2.contourArea))
    return [x, y, min(x + width, grey.shape[1] - 1), min(y + height, grey.shape[0] - 1)]


def _overlap(one: list[int], other: list[int]) -> float:
    width = min(one[2], other[2]) - max(one[0], other[0]) + 1
    height = min(one[3], other[3]) - max(one[1], other[1]) + 1
    both = max(width, 0) * max(height, 0)
    areas = [(x1 - x0 + 1) * (y1 - y0 + 1) for x0, y0, x1, y1 in (one, other)]
    return both / (sum(areas) - both)


def grid_scores(one: np.ndarray, cells: int) -> list[float]:
    """Attribution-Evaluation: each cell's share of the positive attribution, row by row; 0 below 1e-7 in all."""
    positive = np.maximum(one, 0).astype(np.float64)
    total = positive.sum()
    rows = [part for row in np.split(positive, cells) for part in np.split(row, cells, axis=1)]
    return [part.sum() / total if total > 1e-7 else 0.0 for part in rows]


def causal_metric(
    probability: Callable[[np.ndarray], float], one: np.ndarray, start: np.ndarray, finish: np.ndarray, pixels: int
) -> tuple[list[float], float]:
    """RISE: the probability while pixels of `finish` take their places in `start`, and the area under it."""
    order = np.argsort(-one, axis=None)
    image, scores = start.copy(), [probability(start)]
    for first in range(0, one.size, pixels):
        rows, columns = np.unravel_index(order[first : first + pixels], one.shape)
        image[:, rows, columns] = finish[:, rows, columns]
        scores.append(probability(image))
    return scores, (sum(scores) - scores[0] / 2 - scores[-1] / 2) / (len(scores) - 1)


def rise_blur(image: np.ndarray, mean: np.ndarray) -> np.ndarray:
    """RISE: the filtered delta of 11 pixels over the image, the mean color around it."""
    delta = np.zeros((11, 11))
    delta[5, 5] = 1
    kernel, color = gaussian_filter(delta, 5), mean[:, None, None]
    return np.stack([convolve(channel, kernel, mode="constant") for channel in image - color]) + color
