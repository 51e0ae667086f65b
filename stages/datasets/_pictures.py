"""Decode pictures and masks as real folders hold them, each by a stated rule.

A picture is upright: what its EXIF says of its orientation is done, unless its dataset's boxes and masks count the
pixels as they are stored, as those of published datasets do. Formats are those of `FORMATS`, told by a file's
content and not by its name. With `channels: rgb` (the default) gray, 1-bit, palette and CMYK pictures become RGB (CMYK
without color management), with `gray` they become gray by the weights of ITU-R 601; transparency is laid over white.
With `as_is` a picture keeps its channels: gray 1, gray with alpha 2, RGB 3, RGB with alpha 4, CMYK 4; 1-bit is gray,
and a palette is the colors it stands for. Of 16 bits the high byte is taken.
A photograph with others inside its file (MPO, as phones and cameras write it) is the first of them.

What cannot be used is left out, and the reason told: an empty file, one that is no image or is truncated, an animation
or any other file of several frames, values of 32 bits, a picture of more pixels than Pillow takes for honest.
A mask is object where its value (or its palette's number, or any of its colors) is not 0; its alpha says nothing.
"""

from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

from stages.study import unedited

FORMATS = ["JPEG", "PNG", "GIF", "BMP", "TIFF", "WEBP", "PPM", "JPEG2000", "AVIF"]
ORIENTATION = 0x0112  # of EXIF
TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
ALPHA = ("RGBA", "RGBa", "LA", "La", "PA")
PLAIN = {"1": "L", "CMYK": "CMYK", "L": "L"}  # by mode, what `as_is` makes of it; else RGB


class Unusable(Exception):
    """A picture or its mask cannot be used; the message says why."""


def picture(file: Path | bytes, channels: str, turned: bool) -> Image.Image | np.ndarray:
    """Decode a picture: an image of Pillow without alpha, or bytes `channel y x`.

    Raises:
        Unusable: with the reason.
    """
    image = _bytes(_opened(file, turned))
    alpha = image.mode in ALPHA or "transparency" in image.info
    if channels == "as_is":
        if not alpha:
            return image.convert(PLAIN.get(image.mode, "RGB"))
        return np.asarray(image.convert("LA" if image.mode in ("L", "LA", "La") else "RGBA")).transpose(2, 0, 1)
    if alpha:
        colors = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", colors.size, "white"), colors)
    mode = "L" if channels == "gray" else "RGB"
    if image.mode not in ("1", "L", "RGB"):
        image = image.convert("RGB")
    return image if image.mode == mode else image.convert(mode)


def mask(file: Path, turned: bool) -> np.ndarray:
    """Decode a mask: where the object is, `y x`.

    Raises:
        Unusable: with the reason.
    """
    image = _opened(file, turned)
    if image.mode in ALPHA and image.mode != "PA":
        image = image.convert("L" if image.mode in ("LA", "La") else "RGB")
    values = np.asarray(image)
    if image.mode == "PA":
        values = values[..., 0]
    return values.astype(bool) if values.ndim == 2 else values.any(axis=2)


def _opened(file: Path | bytes, turned: bool) -> Image.Image:
    """Load an image of one frame, upright where it is to be turned."""
    try:
        content = file if isinstance(file, bytes) else unedited.read(file)
    except OSError as error:
        raise Unusable(f"cannot be read ({error.strerror})") from None
    if not content:
        raise Unusable("an empty file")
    try:
        image = Image.open(BytesIO(content), formats=FORMATS)
        frames = getattr(image, "n_frames", 1)
        if frames > 1 and image.format != "MPO":
            raise Unusable(f"{frames} frames; expected one")
        image.load()
        return _upright(image) if turned else image
    except (Unusable, MemoryError):
        raise
    except UnidentifiedImageError:
        raise Unusable("no image that can be read") from None
    except Image.DecompressionBombError as error:
        raise Unusable(f"too large ({error})") from None
    except Exception as error:  # decoders raise whatever the damage makes them stumble over
        raise Unusable(f"a damaged image ({error})") from None


def _upright(image: Image.Image) -> Image.Image:
    try:
        turn = TURNS.get(image.getexif().get(ORIENTATION))
    except Exception:  # of EXIF that is damaged nothing is known
        turn = None
    return image if turn is None else image.transpose(turn)


def _bytes(image: Image.Image) -> Image.Image:
    """Take the high byte of 16 bits; images of a byte a channel, or less, stay as they are."""
    if image.mode == "F" or (image.mode == "I" and not _of_16_bits(image)):
        raise Unusable("values of 32 bits, of which nobody knows which is white; expected 8 or 16")
    if image.mode == "I" or image.mode.startswith("I;16"):
        return Image.fromarray((np.asarray(image).astype("int32") >> 8).astype("uint8"))
    return image


def _of_16_bits(image: Image.Image) -> bool:
    low, high = image.getextrema()
    return low >= 0 and high < 2**16
