"""Measure `collect` beside torchvision's ImageFolder and DataLoader, and its memory by the number of pictures.

    uv run python benchmarks/collect.py [--pictures 5000] [--few 200] [--turns 5]

JPEGs of 500 x 375, smooth with some grain, are made once. Both sides resize the shorter side to 256 and crop the middle
224 x 224, with as many workers as there are processors; `collect` also checks every picture and writes the store. They
take turns in one process, after one unmeasured turn on a few pictures; of the ratios of neighbors in time the median
counts (theirs by ours: more than 1 is faster). Then `collect` runs in processes of its own, on few and on all pictures,
and its peak memory is told.
"""

import statistics
import subprocess
import sys
import tempfile
import time
from argparse import ArgumentParser
from pathlib import Path

import numpy as np
import yaml
from PIL import Image

from atlas.study.cores import cores

ROOT = Path(__file__).parents[1]
CLASSES = 10
PEAK = """
import sys
from pathlib import Path
from stages import collect
collect.main(Path(sys.argv[1]), "photographs")
print(next(line for line in open("/proc/self/status") if line.startswith("VmHWM")).split()[1])
"""


def main() -> None:
    """Print both tables."""
    parser = ArgumentParser(description="Measure collect.")
    for name, default in (("pictures", 5000), ("few", 200), ("turns", 5)):
        parser.add_argument(f"--{name}", type=int, default=default)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        few, many = (study(Path(place, name), getattr(given, name)) for name in ("few", "pictures"))
        speed(few, many, given.pictures, given.turns)
        print()
        for name, house in (("few", few), ("pictures", many)):
            print(f"peak memory of collect at {getattr(given, name):5d} pictures: {peak(house) / 2**20:.0f} MB")


def study(house: Path, count: int) -> Path:
    """Make a study of pictures."""
    params = yaml.safe_load((ROOT / "params.yaml").read_text())
    fit = {"mode": "crop", "size": 224, "resize": 256}
    params["datasets"] |= {"photographs": {"family": "folder", "path": "photos", "fit": fit}}
    house.mkdir(parents=True)
    (house / "params.yaml").write_text(yaml.safe_dump(params))
    random = np.random.default_rng(0)
    for number in range(count):
        coarse = Image.fromarray(random.integers(0, 256, (12, 16, 3)).astype("uint8"))
        smooth = np.asarray(coarse.resize((500, 375), Image.Resampling.BICUBIC)).astype("int16")
        grain = random.integers(-8, 9, (375, 500, 1))
        file = house / "photos" / str(number % CLASSES) / f"{number:06d}.jpg"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray((smooth + grain).clip(0, 255).astype("uint8")).save(file, quality=90)
    return house


def speed(few: Path, many: Path, count: int, turns: int) -> None:
    """Let both sides take turns and print what they took."""
    ours, theirs = collected(few), loaded(few)
    ratios = []
    for _ in range(turns):
        theirs, ours = loaded(many), collected(many)
        ratios.append(theirs / ours)
        print(f"collect {count / ours:6.0f} pictures/s, DataLoader {count / theirs:6.0f} pictures/s", flush=True)
    told = f"{statistics.median(ratios):.2f} (from {min(ratios):.2f} to {max(ratios):.2f})"
    print(f"{count} pictures, {cores()} workers: median ratio {told}")


def collected(house: Path) -> float:
    """Return the seconds that `collect` takes."""
    from stages import collect

    begun = time.perf_counter()
    collect.main(house, "photographs")
    return time.perf_counter() - begun


def loaded(house: Path) -> float:
    """Return the seconds that a DataLoader takes to hand over all pictures as bytes."""
    from torch.utils.data import DataLoader
    from torchvision.datasets import ImageFolder
    from torchvision.transforms import v2

    steps = v2.Compose([v2.Resize(256), v2.CenterCrop(224), v2.PILToTensor()])
    begun = time.perf_counter()
    pictures = ImageFolder(house / "photos", steps)
    seen = sum(len(batch) for batch, _ in DataLoader(pictures, batch_size=64, num_workers=cores()))
    assert seen == len(pictures)
    return time.perf_counter() - begun


def peak(house: Path) -> int:
    """Return the peak memory of a process that collects, in bytes."""
    told = subprocess.run([sys.executable, "-c", PEAK, house], cwd=ROOT, check=True, capture_output=True, text=True)
    return 1024 * int(told.stdout)


if __name__ == "__main__":
    main()
