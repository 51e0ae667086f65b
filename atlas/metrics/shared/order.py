"""Order the pixels of a map, with ties broken by a documented rule."""

from torch import Tensor

from atlas.model.arrays import Maps, Seeds
from atlas.model.batch_cache import shared
from atlas.study.seeds import uniform


@shared(calls=4)  # several calls, as metrics on all images and on fewer alternate
def ranking(maps: Maps, seeds: Seeds) -> Tensor:
    """Order the positions of each map by (-h, random key of the image): highest value first.

    Rectified, upsampled and binary maps have large plateaus. Breaking their ties by position would favor a corner,
    where objects are rare; an unstable sort would break them differently from run to run. The key is drawn from the
    image's seed alone, so it is the same for every method and in every batch.

    Returns:
        Positions y * width + x, one row per image.
    """
    drawn = _drawn_order(seeds, maps[0].numel()).to(maps.device)
    values = maps.flatten(1).gather(1, drawn)
    return drawn.gather(1, values.argsort(dim=1, descending=True, stable=True))


@shared(calls=4)  # several calls, as metrics on all images and on fewer alternate
def _drawn_order(seeds: Seeds, pixels: int) -> Tensor:
    return uniform(seeds, "ties", 0, (pixels,)).argsort(dim=1, stable=True)
