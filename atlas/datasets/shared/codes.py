"""Read pictures whose values are codes: trimaps and segmentations."""

from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image

from atlas.datasets.shared.pictures import Unusable, is_lossy
from atlas.study import unedited


def codes(file: Path, called: str) -> np.ndarray:
    """Return the values of a picture as they are stored; for a palette, the indices.

    Args:
        file: An encoded picture.
        called: What the picture is, for messages.

    Raises:
        Unusable: with the reason.
    """
    try:
        content = unedited.read(file)
        with Image.open(BytesIO(content)) as image:
            lossy, values = is_lossy(image, content), np.asarray(image)
    except Exception as error:  # decoders may raise anything for damaged files
        raise Unusable(f"its {called} {file.name} cannot be read ({error})") from None
    if lossy:
        raise Unusable(f"its {called} {file.name} is of a lossy format, which changes numbers; expected PNG")
    return values
