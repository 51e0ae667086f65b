"""Score a map by whether it lies on the object."""

from typing import Literal

import cv2
import numpy as np
import torch
from torch import Tensor

from atlas.metrics.shared.order import ranking
from atlas.metrics.shared.rows import at_least, by_row, finite
from atlas.model.arrays import Boxes, Hits, Maps, Masks, Scores, Seeds
from atlas.study.schema.types import Count, Share

ATTRS = {
    "pointing_game": {
        "long_name": "Pointing game",
        "units": "1",
        "reference": "zhang2018topdown",
        "better": "higher",
    },
    "wsl": {
        "long_name": "Weakly supervised localization",
        "units": "1",
        "reference": "choe2020evaluating",
        "better": "higher",
        "dim": "threshold",
        "summary": "best_threshold",
    },
    "attribution_localization": {
        "long_name": "Attribution localization",
        "units": "1",
        "reference": "kohlbrenner2020towards",
        "better": "higher",
    },
    "relevance_mass": {
        "long_name": "Relevance mass accuracy",
        "units": "1",
        "reference": "arras2022clevr",
        "better": "higher",
    },
    "relevance_rank": {
        "long_name": "Relevance rank accuracy",
        "units": "1",
        "reference": "arras2022clevr",
        "better": "higher",
    },
    "top_k_intersection": {
        "long_name": "Top-k intersection",
        "units": "1",
        "reference": "theiner2022interpretable",
        "better": "higher",
    },
}


def pointing_game(maps: Maps, boxes: Boxes, seeds: Seeds, *, tolerance: int) -> Scores:
    """Return whether the map's highest pixel lies on an object.

    It is a hit if the pixel lies in a box, or some pixel of a box is at a squared distance strictly below tolerance².
    Of equal highest pixels, one is drawn from the image's seed, in the order of `ranking`: a constant map points
    anywhere, a map of edges at any edge.

    Args:
        tolerance: Pixels by which the point may miss a box; 0 and 1 both require a point inside.

    Returns:
        1 or 0, higher is better.

    Undefined where there is no box, or the map is not finite.

    Differs from the paper (Zhang et al. 2018; tolerance and rule as in TorchRay): scores are hits per image, to be
    averaged over images, where TorchRay averages per class first; the tolerance is in pixels of the input, where
    TorchRay's 15 are those of the photograph; of equal highest pixels, TorchRay takes the first in reading order, where
    objects are rare.
    """
    at_least(0, "pointing_game", "tolerance", tolerance)
    width = maps.shape[2]
    point = ranking(maps, seeds)[:, :1]
    across = _beyond(point % width, boxes[:, :, 0], boxes[:, :, 2])
    down = _beyond(point // width, boxes[:, :, 1], boxes[:, :, 3])
    distance = across**2 + down**2
    used = _used(boxes)
    hit = (used & ((distance == 0) | (distance < tolerance**2))).any(dim=1)
    return hit.to(maps.dtype).where(used.any(dim=1) & finite(maps), torch.nan)


def wsl(maps: Maps, boxes: Boxes, *, thresholds: Count, iou: Share) -> Hits:
    """Return, at each threshold, whether the box around the map's largest contour matches an object's box.

    The map is scaled to [0, 1] and to whole grey levels 0 ... 255, and thresholded at the level int(t max), t = 0, 1/T,
    ... The contour that encloses the largest area gives the box. It is a hit if its intersection over union with a box
    of the object (the best, if there are several) reaches `iou`. A map that is constant or not finite is treated as
    black: it has no contour, and its box is the top left pixel.

    Args:
        thresholds: T, the number of thresholds.
        iou: Intersection over union from which on a box counts as a hit.

    Returns:
        1 or 0 for each threshold, higher is better. The paper's figure is the mean over images at the threshold
        where that mean is highest.

    Undefined where there is no box.

    Differs from the paper: none (Choe et al. 2020, MaxBoxAcc). As in its code, areas include both edges, and the
    estimated box ends one pixel after its contour, unless that is the last pixel.
    """
    at_least(1, "wsl", "thresholds", thresholds)
    hits = [
        _box_hits(one, rows[used], thresholds, iou)
        for one, rows, used in zip(maps.cpu().numpy(), boxes.cpu().numpy(), _used(boxes).cpu().numpy(), strict=True)
    ]
    return torch.tensor(np.stack(hits), dtype=maps.dtype, device=maps.device)


def attribution_localization(maps: Maps, masks: Masks) -> Scores:
    """Measure the share of absolute attribution that lies on the object.

        Σ_mask |a| / Σ |a|

    Returns:
        0 to 1, higher is better. A uniform map scores the mask's area.

    Undefined where the mask is empty, or the map is zero everywhere or not finite.

    Differs from the paper (Kohlbrenner et al. 2020): absolute values, as in Quantus, where the paper uses the positive
    part; not weighted by the object's size.
    """
    return by_row(_share, maps.abs(), masks)


def relevance_mass(maps: Maps, masks: Masks, *, sign: Literal["both", "positive"]) -> Scores:
    """Measure the share of the map's sum that lies on the object.

        Σ_mask a / Σ a

    Args:
        sign: Whether attributions of both signs are summed, or negative ones count as 0.

    Returns:
        Higher is better; a uniform map scores the mask's area. With `positive`, 0 to 1. With `both`, any number: the
        sum of a map of both signs may be close to 0.

    Undefined where the mask is empty, the sum is not above 0, or the map is not finite.

    Differs from the paper (Arras et al. 2022): with `positive`, none. `both` is Quantus's rule; Quantus also divides by
    a sum below 0, so that more attribution on the object scores lower.
    """
    counted = maps.clamp(min=0) if sign == "positive" else maps
    # If terms cancel, rounding errors remain; in double precision they are negligible.
    share = by_row(_share, counted.double(), masks).to(maps.dtype)
    return share.where(finite(maps), torch.nan)


def relevance_rank(maps: Maps, masks: Masks, seeds: Seeds) -> Scores:
    """Measure the share of the top |mask| pixels that lie on the object.

    Equal attributions are ordered by a random key of the image, so a constant map scores the mask's area on average.

    Returns:
        0 to 1, higher is better.

    Undefined where the mask is empty, or the map is not finite.

    Differs from the paper: only in the order of equal attributions (Arras et al. 2022).
    """
    inside = masks.flatten(1).gather(1, ranking(maps, seeds))
    size = inside.sum(dim=1)
    top = torch.arange(inside.shape[1], device=maps.device) < size[:, None]
    share = (inside & top).sum(dim=1) / size
    return share.where(finite(maps), torch.nan)


def top_k_intersection(maps: Maps, masks: Masks, seeds: Seeds, *, k: Count) -> Scores:
    """Measure the share of the top k pixels that lie on the object.

    Equal attributions are ordered by a random key of the image.

    Args:
        k: Number of pixels, at most those of the map.

    Returns:
        0 to 1, higher is better; at most |mask| / k where the object is smaller than k pixels.

    Undefined where the mask is empty, or the map is not finite.

    Differs from the paper: only in the order of equal attributions (Theiner et al. 2022).
    """
    at_least(1, "top_k_intersection", "k", k)
    inside = masks.flatten(1).gather(1, ranking(maps, seeds))
    if k > inside.shape[1]:
        raise ValueError(f"top_k_intersection: k is {k}, expected at most the map's {inside.shape[1]} pixels")
    share = inside[:, :k].sum(dim=1) / k
    return share.where(inside.any(dim=1) & finite(maps), torch.nan)


def _used(boxes: Tensor) -> Tensor:
    return (boxes[:, :, 2] > boxes[:, :, 0]) & (boxes[:, :, 3] > boxes[:, :, 1])


def _beyond(position: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """Return by how many pixels a position misses an interval whose end is one past its last pixel."""
    return torch.maximum(low - position, position - (high - 1)).clamp(min=0)


def _share(one: Tensor, mask: Tensor) -> Tensor:
    total = one.sum()
    share = (one * mask).sum() / total
    return torch.where(mask.any() & (total > 0), share, torch.nan)


def _box_hits(one: np.ndarray, boxes: np.ndarray, thresholds: int, iou: float) -> np.ndarray:
    if not len(boxes):
        return np.full(thresholds, np.nan)
    grey = _grey(one)
    if not grey.any():
        return np.full(thresholds, _overlap(np.zeros((1, 4), int), boxes) >= iou, float)
    levels = [index * int(grey.max()) // thresholds for index in range(thresholds)]
    # Levels with no grey value between them give the same mask: at most 255 masks, whatever the number of thresholds.
    below = np.searchsorted(np.unique(grey), levels, side="right")
    _, first, mask_of = np.unique(below, return_index=True, return_inverse=True)
    masks = [cv2.threshold(grey, levels[index], 1, cv2.THRESH_BINARY)[1] for index in first]
    parts = [cv2.connectedComponentsWithStats(mask, connectivity=8)[2][1:, :4] for mask in masks]
    right = _overlap(_estimated(np.concatenate(parts), grey), boxes) >= iou
    by_mask = np.split(right, np.cumsum([len(part) for part in parts])[:-1])
    hits = [_largest_is_right(*of_mask) for of_mask in zip(masks, parts, by_mask, strict=True)]
    return np.array(hits, float)[mask_of]


def _largest_is_right(mask: np.ndarray, parts: np.ndarray, right: np.ndarray) -> np.bool_:
    """Return whether the part within the largest contour has a matching box.

    The largest contour is the outer one of some part. If all parts match, or none does, it need not be found: noisy
    maps have hundreds of parts, and contours are slow.
    """
    if right.any() and not right.all():
        contours, _ = cv2.findContours(mask, cv2.RETR_TREE, cv2.CHAIN_APPROX_SIMPLE)
        largest = cv2.boundingRect(max(contours, key=cv2.contourArea))
        right = right[(parts == largest).all(axis=1)]
    return right.any()


def _grey(one: np.ndarray) -> np.ndarray:
    if not np.isfinite(one).all() or one.min() == one.max():
        return np.zeros(one.shape, np.uint8)
    lifted = one - one.min()
    return (lifted / lifted.max() * 255).astype(np.uint8)


def _estimated(around: np.ndarray, grey: np.ndarray) -> np.ndarray:
    """Convert x, y, width, height to the protocol's corners."""
    last = [grey.shape[1] - 1, grey.shape[0] - 1]
    return np.concatenate([around[:, :2], np.minimum(around[:, :2] + around[:, 2:], last)], axis=1)


def _overlap(estimated: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """Return for each estimated box, both corners inclusive, the best intersection over union with half-open boxes."""
    low, high = estimated[:, None, :2], estimated[:, None, 2:] + 1
    both = (np.minimum(high, boxes[:, 2:]) - np.maximum(low, boxes[:, :2])).clip(min=0).prod(axis=2)
    area = (high - low).prod(axis=2) + (boxes[:, 2:] - boxes[:, :2]).prod(axis=1)
    return (both / (area - both)).max(axis=1)
