"""Square windows that slide over an image or a map of features."""

from itertools import product

from torch import Tensor

from stages.problem import Problem


def covering(function: str, size: tuple[int, int], window: int, stride: int) -> list[tuple[slice, slice]]:
    """Give the windows that cover a map and overhang its border, cut to it.

    Raises:
        Problem: they are further apart than they are wide, or not apart.
    """
    if not 1 <= stride <= window:
        raise Problem(f"{function}: the setting 'stride' is {stride}, expected 1 to window = {window}")
    starts = [range(stride - window, side, stride) for side in size]
    spans = [
        [slice(max(start, 0), min(start + window, side)) for start in along]
        for along, side in zip(starts, size, strict=True)
    ]
    return list(product(*spans))


def spread_over(windows: list[tuple[slice, slice]], drops: Tensor, maps: Tensor) -> Tensor:
    """Spread every window's drop (columns) evenly over it, window after window, in one channel of the maps' size."""
    total = maps.new_zeros(len(maps), 1, *maps.shape[-2:])
    for number, place in enumerate(windows):
        area = (place[0].stop - place[0].start) * (place[1].stop - place[1].start)
        total[(..., *place)] += (drops[:, number] / area)[:, None, None, None]
    return total
