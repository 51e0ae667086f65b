"""Square windows that slide over an image or a map of features."""

from itertools import product

from torch import Tensor

from atlas.study.errors import UserError


def covering(function: str, size: tuple[int, ...], window: int, stride: int) -> list[tuple[slice, slice]]:
    """Return the windows that cover a map and overhang its border, cut to it.

    They lie a stride apart, starting half a window before the border; the last one is the first that extends half a
    window beyond the other border or, if windows hardly overlap, covers the rest.

    Raises:
        UserError: the stride is larger than the window, or below 1.
    """
    if not 1 <= stride <= window:
        raise UserError(f"{function}: the setting 'stride' is {stride}, expected 1 to window = {window}")
    # At least until half a window beyond the border, and over the whole map.
    starts = [
        range(-(window // 2), min(max(side - window // 2, side - window + stride - 1), side - 1) + 1, stride)
        for side in size
    ]
    spans = [
        [slice(max(start, 0), min(start + window, side)) for start in along]
        for along, side in zip(starts, size, strict=True)
    ]
    return list(product(*spans))


def spread_over(windows: list[tuple[slice, slice]], drops: Tensor, maps: Tensor) -> Tensor:
    """Spread every window's drop (columns) evenly over its pixels, window by window, in one channel."""
    total = maps.new_zeros(len(maps), 1, *maps.shape[-2:])
    for number, place in enumerate(windows):
        area = (place[0].stop - place[0].start) * (place[1].stop - place[1].start)
        total[(..., *place)] += (drops[:, number] / area)[:, None, None, None]
    return total
