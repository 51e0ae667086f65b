"""Decode pictures and masks as they occur in real folders, each by a stated rule.

A picture is upright: its EXIF orientation is applied, unless its dataset's boxes and masks refer to the pixels as
stored, as in published datasets. Accepted formats are those of `FORMATS`, recognized by a file's content and not by its
name. With `channels: rgb` (the default), gray, 1-bit, palette and CMYK pictures become RGB (CMYK without color
management); with `gray` they become gray with the weights of ITU-R 601; transparent parts become white. With `as_is` a
picture keeps its channels: gray 1, gray with alpha 2, RGB 3, RGB with alpha 4, CMYK 4; 1-bit is gray, and a palette
becomes its colors. Of unsigned 16-bit values with 0 for black, the high byte is used. Of a file with several
photographs (MPO, as phones and cameras write it), the first is used.

Unusable files are left out, with the reason: an empty file, one that is no image or is truncated, an animation or any
other file of several frames, any other integers of more than 8 bits, fractions, CIELAB, a picture of more pixels than
Pillow's limit against decompression bombs.
A mask is object where its value (or palette index, or any of its colors) is not 0; alpha is ignored. A lossy format
leaves small values beside the object: there, object is what is at least half as bright as white (128), and a mask with
values above black but none that bright is left out. JPEG, JPEG 2000 and AVIF count as lossy, WebP and TIFF if their
files say so.
"""

from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, UnidentifiedImageError

from atlas.study import unedited

FORMATS = ["JPEG", "PNG", "GIF", "BMP", "TIFF", "WEBP", "PPM", "JPEG2000", "AVIF"]
ORIENTATION = 0x0112  # EXIF tag
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
LOSSY = ("JPEG", "MPO", "JPEG2000", "AVIF")
LOSSY_TIFF = ("jpeg", "tiff_jpeg", "webp")  # compressions, by Pillow's names
BITS, PHOTOMETRIC, ZERO_IS_BLACK = 258, 262, 1  # TIFF tags and value
PLAIN = {"1": "L", "CMYK": "CMYK", "L": "L"}  # mode after `as_is`, by mode; RGB for others


class Unusable(Exception):
    """A picture or its mask cannot be used; the message says why."""


def picture(file: Path | bytes, channels: str, turned: bool) -> Image.Image | np.ndarray:
    """Decode a picture: a Pillow image without alpha, or bytes `channel y x`.

    Raises:
        Unusable: with the reason.
    """
    found = _opened(_content(file))
    image = _bytes(found)
    if turned:
        image = _upright(image, found)
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
    content = _content(file)
    image = found = _opened(content)
    lossy = is_lossy(found, content)
    if lossy:
        image = _bytes(image)
    if turned:
        image = _upright(image, found)
    if image.mode in ("LA", "La"):
        image = image.convert("L")
    elif image.mode in ("RGBA", "RGBa", "CMYK", "YCbCr"):
        image = image.convert("RGB")
    values = np.asarray(image)
    if image.mode == "PA":
        values = values[..., 0]
    if lossy:
        if 0 < values.max() < 128:
            expected = "of a lossy format object is what is at least 128; expected that, or PNG"
            raise Unusable(f"its values end at {values.max()}, and {expected}")
        values = values >= 128
    return values.astype(bool) if values.ndim == 2 else np.any(values, axis=2)


def is_lossy(image: Image.Image, content: bytes) -> bool:
    """Return whether a file's format may have changed values, by the opened image and the file's content."""
    if image.format == "TIFF":
        return image.info.get("compression") in LOSSY_TIFF
    if image.format != "WEBP":
        return image.format in LOSSY
    at = 12  # offset of the first chunk: name, length, and data padded to an even number of bytes
    while at + 8 <= len(content) and content[at : at + 4] != b"VP8 ":
        length = int.from_bytes(content[at + 4 : at + 8], "little")
        at += 8 + length + length % 2
    return content[at : at + 4] == b"VP8 "


def _content(file: Path | bytes) -> bytes:
    try:
        return file if isinstance(file, bytes) else unedited.read(file)
    except OSError as error:
        raise Unusable(f"cannot be read ({error.strerror})") from None


def _opened(content: bytes) -> Image.Image:
    """Load an image of one frame."""
    if not content:
        raise Unusable("an empty file")
    try:
        image = Image.open(BytesIO(content), formats=FORMATS)
        frames = getattr(image, "n_frames", 1)
        if frames > 1 and image.format != "MPO":
            raise Unusable(f"{frames} frames; expected one")
        image.load()
    except (Unusable, MemoryError):
        raise
    except UnidentifiedImageError:
        raise Unusable("no image that can be read") from None
    except Image.DecompressionBombError as error:
        raise Unusable(f"too large ({error})") from None
    except Exception as error:  # decoders may raise anything for damaged files
        raise Unusable(f"a damaged image ({error})") from None
    if image.mode == "LAB":
        raise Unusable("colors of CIELAB; expected RGB, CMYK, a palette or gray")
    return image


def _upright(image: Image.Image, opened: Image.Image) -> Image.Image:
    """Rotate an image by its EXIF orientation, read from the image as it was opened."""
    try:
        turn = TURNS.get(opened.getexif().get(ORIENTATION, 1))
    except Exception:  # damaged EXIF
        turn = None
    return image if turn is None else image.transpose(turn)


def _bytes(image: Image.Image) -> Image.Image:
    """Reduce 16 bits to the high byte; images with at most one byte per channel are unchanged."""
    if image.mode != "F" and image.mode[0] != "I":
        return image
    usual: Any = {BITS: (16,), PHOTOMETRIC: ZERO_IS_BLACK}
    tags = getattr(image, "tag_v2", usual)  # those of a TIFF
    bits, black = tags.get(BITS, (1,))[0], tags.get(PHOTOMETRIC) == ZERO_IS_BLACK
    # Pillow's mode I is used for the 16 bits of a PGM, but also for signed 16 bits and 32 bits of a TIFF.
    if not (black and bits == 16 and (image.mode.startswith("I;16") or (image.mode, image.format) == ("I", "PPM"))):
        expected = "expected 8, or 16 without a sign and with 0 for black"
        raise Unusable(f"values of {bits} bits, of which it is unknown which is white; {expected}")
    return Image.fromarray((np.asarray(image).astype("int32") >> 8).astype("uint8"))
