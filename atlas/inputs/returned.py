"""Check what methods and metrics return."""

import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor


def checked_attributions(found: Any, images: "Tensor") -> "Tensor":
    """Return what a method returned for some images, after checking that these are attributions.

    Raises:
        TypeError, ValueError: they are not.
    """
    found = _number(found, "attributions")
    rows, side = len(images), tuple(images.shape[-2:])
    sound = found.dim() == 4 and len(found) == rows and 0 not in found.shape
    if not sound or found.shape[2] > side[0] or found.shape[3] > side[1]:
        expected = f"({rows}, channels, at most {side[0]}, at most {side[1]})"
        raise ValueError(f"attributions of the shape {tuple(found.shape)}; expected {expected}")
    return found


def checked_scores(found: Any, shape: tuple[int, ...]) -> "Tensor":
    """Return what a metric returned, after checking that these are scores of the expected shape.

    Raises:
        TypeError, ValueError: they are not.
    """
    found = _number(found, "scores")
    if tuple(found.shape) != shape:
        raise ValueError(f"scores of the shape {tuple(found.shape)}; expected {shape}")
    if found.isinf().any():
        raise ValueError("an infinite score; a score is a number, or NaN where it is undefined")
    return found


def _number(found: Any, what: str) -> "Tensor":
    torch = sys.modules["torch"]
    if not isinstance(found, torch.Tensor):
        kind = f"{type(found).__module__}.{type(found).__qualname__}".removeprefix("builtins.")
        raise TypeError(f"{what} that are a {kind}; expected a torch.Tensor")
    if not found.is_floating_point() or found.layout != torch.strided:
        raise TypeError(f"{what} of {found.dtype}, {found.layout}; expected floating-point numbers, torch.strided")
    return found.detach()
