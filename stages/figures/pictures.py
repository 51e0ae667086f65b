"""Images and maps as small PNG files inside the page."""

import base64
import struct
import zlib
from typing import NamedTuple

import matplotlib as mpl
import numpy as np
from jaxtyping import Float, UInt8

# A few pixels of gradient maps are far above all others; beyond this quantile the color stays the last one.
BRIGHTEST = 0.995
DIVERGING, SEQUENTIAL = "RdBu_r", "inferno"


class Picture(NamedTuple):
    """A PNG as a data URI, with its size and what it shows."""

    uri: str
    width: int
    height: int
    alt: str


def image(pixels: UInt8[np.ndarray, "channel y x"], alt: str, *, side: int) -> Picture:
    """Show an image, reduced to at most a number of pixels a side; see `visible`."""
    small = np.round(shrink(visible(pixels), side=side)).astype(np.uint8)
    colors = np.moveaxis(np.broadcast_to(small, (3, *small.shape[1:])), 0, -1)
    alt = alt if len(pixels) in (1, 3) else f"{alt} (the mean of its {len(pixels)} channels)"
    return _picture(colors.reshape(len(colors), -1), colors.shape[1], 2, b"", alt)


def visible(pixels: UInt8[np.ndarray, "channel y x"]) -> Float[np.ndarray, "channel y x"]:
    """Give an image as it can be shown: three channels as colors, one as gray, the mean of any other number as gray."""
    values = pixels.astype(np.float64)
    return values if len(values) == 3 else values.mean(axis=0, keepdims=True)


def attribution(values: Float[np.ndarray, "y x"], alt: str, *, signed: bool, side: int) -> Picture:
    """Show a map by colors, scaled by itself: signed ones around 0, others from 0."""
    small = shrink(values[None].astype(np.float64), side=side)[0]
    levels = quantize(small, signed=signed)
    return _picture(levels, levels.shape[1], 3, palette(DIVERGING if signed else SEQUENTIAL), alt)


def indexed(places: UInt8[np.ndarray, "y x"], colors: UInt8[np.ndarray, "color 3"], alt: str, *, side: int) -> Picture:
    """Show pixels by their place in a list of colors; a large picture keeps the middle pixel of every block."""
    block = -(-max(places.shape) // side)
    height, width = (size // block for size in places.shape)
    small = places[block // 2 :: block, block // 2 :: block][:height, :width]
    return _picture(small, width, 3, colors.tobytes(), alt)


def gray(values: Float[np.ndarray, "y x"], alt: str, *, side: int) -> Picture:
    """Show shares from 0, black, to 1, white."""
    small = np.round(255 * shrink(values[None].astype(np.float64), side=side)[0]).astype(np.uint8)
    return _picture(small, small.shape[1], 0, b"", alt)


def quantize(values: Float[np.ndarray, "y x"], *, signed: bool) -> UInt8[np.ndarray, "y x"]:
    """Scale a map to the 256 colors of a palette; 0 is the middle of a signed one, and the start of another."""
    top = np.quantile(np.abs(values), BRIGHTEST)
    top = top if top > 0 else np.abs(values).max()
    scaled = values / top if top > 0 else np.zeros_like(values)
    scaled = (scaled + 1) / 2 if signed else scaled
    return np.round(255 * np.clip(scaled, 0, 1)).astype(np.uint8)


def shrink(values: Float[np.ndarray, "channel y x"], *, side: int) -> Float[np.ndarray, "channel row column"]:
    """Average blocks of pixels so that no side is longer than `side`; an edge that fills no block is cut off."""
    block = -(-max(values.shape[1:]) // side)
    channels, height, width = values.shape[0], values.shape[1] // block, values.shape[2] // block
    cut = values[:, : height * block, : width * block]
    return cut.reshape(channels, height, block, width, block).mean(axis=(2, 4))


def palette(name: str) -> bytes:
    """Give the 256 colors of a color map."""
    return (mpl.colormaps[name](np.arange(256))[:, :3] * 255).round().astype(np.uint8).tobytes()


def legend(name: str) -> str:
    """Give a color map as a CSS gradient."""
    colors = mpl.colormaps[name](np.linspace(0, 1, 9))[:, :3]
    return "linear-gradient(90deg," + ",".join(mpl.colors.to_hex(color) for color in colors) + ")"


def _picture(rows: UInt8[np.ndarray, "y byte"], width: int, color: int, colors: bytes, alt: str) -> Picture:
    """Write a PNG by hand: no time stamp and no program's name in it."""
    header = struct.pack(">IIBBBBB", width, len(rows), 8, color, 0, 0, 0)
    lines = np.concatenate([np.zeros((len(rows), 1), np.uint8), rows], axis=1).tobytes()
    chunks = [(b"IHDR", header), *([(b"PLTE", colors)] if colors else [])]
    chunks += [(b"IDAT", zlib.compress(lines, 9)), (b"IEND", b"")]
    data = b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body)) for kind, body in chunks
    )
    return Picture(f"data:image/png;base64,{base64.b64encode(data).decode()}", width, len(rows), alt)
