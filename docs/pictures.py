"""Write the pictures on the pages of methods: each family's maps of one photograph, in the study of photographs.

Reads the made study (`make photographs`). `make pictures` runs it again.
"""

import sys
from pathlib import Path

from atlas.study.study import Study
from flows.commands.show import show

ROOT = Path(__file__).parent.parent
IMAGE = "imagenet_16_251.jpg"


def main(folder: Path) -> None:
    """Write a picture for each family that the study has, by its first classifier."""
    place = ROOT / "docs" / "pictures"
    place.mkdir(exist_ok=True)
    for family, listed in Study(folder).methods.items():
        show(folder, IMAGE, None, list(listed), marked=False, metric=None, output=place / f"{family}.png")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "studies" / "photographs")
