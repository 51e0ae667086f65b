"""Regions of an image at several scales, and how XRAI ranks them."""

import warnings

import numpy as np
from skimage.morphology import isotropic_dilation
from skimage.segmentation import felzenszwalb
from skimage.transform import resize

# The authors' settings, for images of this side with values from −1 to 1.
SIDE = 224
SCALES = (50, 100, 150, 250, 500, 1200)
SIGMA = 0.8
SMALLEST = 150


def regions(image: np.ndarray, dilation: int) -> np.ndarray:
    """Return the masks of all of Felzenszwalb and Huttenlocher's segments, dilated by a disk: bool, region y x.

    The image (y x channel) is scaled to the range −1 to 1 and to 224 × 224 pixels, for which the scales are defined;
    the segments are scaled back to its own size, dilated, and may then overlap.
    """
    low, high = image.min(), image.max()
    stretched = 2 * (image.astype(float) - low) / (high - low) - 1 if high > low else np.zeros(image.shape)
    enlarged = resize(stretched, (SIDE, SIDE), order=3, mode="constant", preserve_range=True, anti_aliasing=True)
    found = []
    for scale in SCALES:
        with warnings.catch_warnings():  # warns about more than three channels, which are intended
            warnings.simplefilter("ignore", RuntimeWarning)
            labels = felzenszwalb(enlarged, scale=scale, sigma=SIGMA, min_size=SMALLEST)
        labels = resize(labels, image.shape[:2], order=0, mode="constant", preserve_range=True, anti_aliasing=False)
        found += [isotropic_dilation(labels == label, dilation) for label in np.unique(labels)]
    return np.stack(found)


def ranked(attributions: np.ndarray, masks: np.ndarray, min_pixels: int) -> np.ndarray:
    """Repeatedly add the region whose new pixels have the highest mean; return for each pixel the mean it came with.

    Regions with fewer than min_pixels new pixels are skipped; pixels in no added region get their own mean.

    Args:
        attributions: One value per pixel.
        masks: Regions, which may overlap.
        min_pixels: New pixels that a region must bring, at least 1.
    """
    values = attributions.ravel().astype(float)
    members = masks.reshape(len(masks), -1)
    result = np.empty_like(values)
    left = np.ones(len(values), dtype=bool)
    counts, sums = members.sum(1), members @ values
    while (counts >= min_pixels).any():
        means = np.where(counts >= min_pixels, sums / np.maximum(counts, 1), -np.inf)
        new = np.flatnonzero(members[means.argmax()] & left)
        result[new] = values[new].mean()
        left[new] = False
        # Only new pixels affect the other regions, so all rounds together visit every pixel once.
        counts = counts - members[:, new].sum(1)
        sums = sums - members[:, new] @ values[new]
    if left.any():
        result[left] = values[left].mean()
    return result.reshape(attributions.shape)
