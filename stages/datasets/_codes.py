"""Read pictures whose values are numbers of something: trimaps and segmentations."""

from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image

from stages.datasets._pictures import Unusable
from stages.study import unedited


def codes(file: Path, called: str) -> np.ndarray:
    """Return the values of a picture as they are stored: of a palette, the numbers.

    Args:
        file: An encoded picture.
        called: What it is, for messages.

    Raises:
        Unusable: with the reason.
    """
    try:
        with Image.open(BytesIO(unedited.read(file))) as image:
            return np.asarray(image)
    except Exception as error:  # decoders raise whatever the damage makes them stumble over
        raise Unusable(f"its {called} {file.name} cannot be read ({error})") from None
