"""Divide images into superpixels, and order these by a map."""

import numpy as np
import torch
from skimage.segmentation import slic
from torch import Tensor

from atlas.model.arrays import Images, Maps, Seeds
from atlas.model.batch_cache import shared
from atlas.study.seeds import uniform


@shared(calls=4)  # several calls, as metrics on all images and on fewer alternate
def segmented(images: Images, superpixels: int, compactness: float, sigma: float) -> Tensor:
    """Number each image's SLIC superpixels from 0, computed from its intensities: image y x, on the CPU."""

    def of(image: Tensor) -> np.ndarray:
        pixels = image.permute(1, 2, 0).cpu().numpy()
        cut = slic(pixels, n_segments=superpixels, compactness=compactness, sigma=sigma, start_label=0, channel_axis=-1)
        return np.unique(cut, return_inverse=True)[1].reshape(cut.shape)

    return torch.from_numpy(np.stack([of(image) for image in images]))


def turns(maps: Maps, segments: Tensor, seeds: Seeds) -> Tensor:
    """Return for each pixel the position of its segment in the order, from 1: the segment of the highest mean first.

    Equal means are ordered by a random key of the image.
    """
    rows = zip(maps.cpu(), segments, seeds, strict=True)
    return torch.stack([_turn(one, labels, seed) for one, labels, seed in rows])


def _turn(one: Tensor, labels: Tensor, seed: int) -> Tensor:
    count = int(labels.max()) + 1
    sums = torch.zeros(count, dtype=torch.float64).index_add_(0, labels.flatten(), one.flatten().double())
    means = sums / labels.flatten().bincount(minlength=count)
    drawn = uniform([seed], "segments", 0, (count,))[0].argsort()
    order = drawn[means[drawn].argsort(descending=True, stable=True)]
    return order.argsort()[labels] + 1
