"""Images and maps as lossless WebP files inside the page."""

import base64
import io
from typing import NamedTuple

import matplotlib as mpl
import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image

# A few pixels of gradient maps are far above all others; beyond this quantile the last color is used.
BRIGHTEST = 0.995
DIVERGING, SEQUENTIAL = "RdBu_r", "inferno"
STEP = 2  # every second of a map's 256 colors is used: invisible, and saves a fifth of the space


class Picture(NamedTuple):
    """A WebP as a data URI, with its size and alternative text."""

    uri: str
    width: int
    height: int
    alt: str


def image(pixels: UInt8[np.ndarray, "channel y x"], alt: str, *, side: int) -> Picture:
    """Show an image, reduced to at most a number of pixels per side; see `visible`."""
    small = np.round(shrink(visible(pixels), side=side)).astype(np.uint8)
    colors = np.moveaxis(np.broadcast_to(small, (3, *small.shape[1:])), 0, -1)
    alt = alt if len(pixels) in (1, 3) else f"{alt} (the mean of its {len(pixels)} channels)"
    return _picture(colors, alt)


def visible(pixels: UInt8[np.ndarray, "channel y x"]) -> Float[np.ndarray, "channel y x"]:
    """Return an image as it can be shown: three channels as colors, others as gray, of several the mean."""
    values = pixels.astype(np.float64)
    return values if len(values) == 3 else values.mean(axis=0, keepdims=True)


def attribution(values: Float[np.ndarray, "y x"], alt: str, *, signed: bool, side: int) -> Picture:
    """Show a map in colors, scaled by its own range: signed ones around 0, others from 0."""
    small = shrink(values[None].astype(np.float64), side=side)[0]
    levels = quantize(small, signed=signed) // STEP * STEP
    return _picture(palette(DIVERGING if signed else SEQUENTIAL)[levels], alt)


def indexed(places: UInt8[np.ndarray, "y x"], colors: UInt8[np.ndarray, "color 3"], alt: str, *, side: int) -> Picture:
    """Show pixels by index in a list of colors; a reduced picture takes the pixel in the middle of every part."""
    rows, columns = (
        ((np.arange(to) + 0.5) * size / to).astype(int)
        for size, to in zip(places.shape, reduced(places.shape, side=side), strict=True)
    )
    return _picture(colors[places[rows][:, columns]], alt)


def gray(values: Float[np.ndarray, "y x"], alt: str, *, side: int) -> Picture:
    """Show shares from 0, black, to 1, white."""
    small = np.round(255 * shrink(values[None].astype(np.float64), side=side)[0]).astype(np.uint8)
    return _picture(np.repeat(small[..., None], 3, axis=-1), alt)


def quantize(values: Float[np.ndarray, "y x"], *, signed: bool) -> UInt8[np.ndarray, "y x"]:
    """Scale a map to the 256 colors of a palette; 0 is the middle of a signed palette, and the start of another."""
    top = np.quantile(np.abs(values), BRIGHTEST)
    top = top if top > 0 else np.abs(values).max()
    scaled = values / top if top > 0 else np.zeros_like(values)
    scaled = (scaled + 1) / 2 if signed else scaled
    return np.round(255 * np.clip(scaled, 0, 1)).astype(np.uint8)


def shrink(values: Float[np.ndarray, "channel y x"], *, side: int) -> Float[np.ndarray, "channel row column"]:
    """Reduce an image so that no side is longer than `side`: each pixel is the mean of the area that it covers."""
    height, width = reduced(values.shape[1:], side=side)
    if (height, width) == values.shape[1:]:
        return values
    return _covered(values.shape[1], height) @ values @ _covered(values.shape[2], width).T


def reduced(shape: tuple[int, ...], *, side: int) -> tuple[int, int]:
    """Return the height and width of a picture with no side longer than `side`."""
    longest = max(*shape, side)
    height, width = (max(1, round(size * side / longest)) for size in shape)
    return height, width


def _covered(size: int, to: int) -> Float[np.ndarray, "to size"]:
    """Return the weight of each of `size` pixels in the mean of each of `to` larger ones."""
    edges, at = np.linspace(0, size, to + 1)[:, None], np.arange(size)
    return np.clip(np.minimum(edges[1:], at + 1) - np.maximum(edges[:-1], at), 0, None) * (to / size)


def palette(name: str) -> UInt8[np.ndarray, "color 3"]:
    """Return the 256 colors of a color map."""
    return (mpl.colormaps[name](np.arange(256))[:, :3] * 255).round().astype(np.uint8)


def legend(name: str) -> str:
    """Return a color map as a CSS gradient."""
    colors = mpl.colormaps[name](np.linspace(0, 1, 9))[:, :3]
    return "linear-gradient(90deg," + ",".join(mpl.colors.to_hex(color) for color in colors) + ")"


def _picture(colors: UInt8[np.ndarray, "y x 3"], alt: str) -> Picture:
    """Write a WebP, without a time stamp or a program's name."""
    out = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(colors)).save(out, "webp", lossless=True)
    height, width = colors.shape[:2]
    return Picture(f"data:image/webp;base64,{base64.b64encode(out.getvalue()).decode()}", width, height, alt)
