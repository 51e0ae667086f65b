"""Measure the peak memory of stages by the number of images.

    uv run python benchmarks/memory.py [--few 200] [--many 5000] [--folder F]

A study of JPEGs that are fitted to 224 x 224, and of a small network of random weights, is made at either number; then
`collect`, `prepare`, `predict`, `select`, `attribute` (a gradient) and `score` (deletion in four steps) run on it, each
a process of its own, whose largest resident size is taken. Where a stage's peak at many images is more than 1.15 times
that at few, it exits with status 1. 5,000 images take 2.5 GB of disk.
"""

import hashlib
import subprocess
import sys
from argparse import ArgumentParser
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter

import numpy as np
import yaml
from PIL import Image
from safetensors.torch import save

from atlas.networks.residual import small_resnet

ROOT = Path(__file__).parents[1]
CLASSES, SIDE, WIDTHS, ALLOWED = 10, 224, [4, 8, 8], 1.15
STAGES = {
    "collect": ["photographs"],
    "prepare": ["small"],
    "predict": ["small"],
    "select": ["small"],
    "tile": ["small"],
    "attribute": ["small", "gradient"],
    "score": ["small", "gradient"],
}
TOLD = ("collect", "prepare", "predict", "select", "attribute", "score")
PEAK = """
import importlib
import sys
from pathlib import Path
importlib.import_module(f"stages.{sys.argv[1]}").main(Path(sys.argv[2]), *sys.argv[3:])
print(next(line for line in open("/proc/self/status") if line.startswith("VmHWM")).split()[1])
"""


def main() -> None:
    """Print a row for each stage."""
    parser = ArgumentParser(description="Measure the peak memory of stages.")
    for name, default in (("few", 200), ("many", 5000)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--folder", type=Path, help="where to write, and to delete again; the system's own if not said")
    given = parser.parse_args()
    few, many = (measured(count, given.folder) for count in (given.few, given.many))
    print(f"{'':10}{given.few:>7} images{given.many:>7} images  ratio")
    for stage in TOLD:
        print(f"{stage:10}{few[stage]:>11.0f} MB{many[stage]:>11.0f} MB{many[stage] / few[stage]:>7.2f}")
    if any(many[stage] > ALLOWED * few[stage] for stage in TOLD):
        sys.exit(1)


def measured(count: int, folder: Path | None) -> dict[str, float]:
    """Run the stages on a study of so many images; return the peak memory of each, in MB."""
    peaks = {}
    with TemporaryDirectory(dir=folder) as place:
        study = Path(place)
        write(study, count)
        for stage, names in STAGES.items():
            begun = perf_counter()
            peaks[stage] = peak(study, stage, names)
            told = f"{stage} of {count} images: {perf_counter() - begun:.0f} s, {peaks[stage]:.0f} MB"
            print(told, file=sys.stderr, flush=True)
    return peaks


def write(study: Path, count: int) -> None:
    """Write pictures of random squares, and a study of them with one method and one metric."""
    params = yaml.safe_load((ROOT / "params.yaml").read_text())
    weights = save(small_resnet(classes=CLASSES, widths=WIDTHS, blocks=1).state_dict())
    (study / "weights.safetensors").write_bytes(weights)
    deletion = {"pixels": SIDE**2 // 4, "baseline": "black", "relative": False}
    small = {
        "dataset": "photographs",
        "network": {"family": "residual", "function": "small_resnet", "widths": WIDTHS, "blocks": 1},
        "weights": {"file": "weights.safetensors", "sha256": hashlib.sha256(weights).hexdigest()},
        "preprocess": {"mean": [0.5] * 3, "std": [0.25] * 3},
        "images": {"background": 8, "count": count - 8},
    }
    params |= {
        "datasets": {"photographs": {"family": "folder", "path": "photos", "fit": {"mode": "squash", "size": SIDE}}},
        "classifiers": {"small": small},
        "robustness_eval": None,
        "methods": {"gradient": {"gradient": params["methods"]["gradient"]["gradient"]}},
        "metrics": {"faithfulness": {"deletion": deletion}},
        "certify": {},
    }
    (study / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False))
    random = np.random.default_rng(0)
    for number in range(count):
        squares = Image.fromarray(random.integers(0, 256, (16, 16, 3)).astype("uint8"))
        file = study / "photos" / str(number % CLASSES) / f"{number:06d}.jpg"
        file.parent.mkdir(parents=True, exist_ok=True)
        squares.resize((256, 256), Image.Resampling.NEAREST).save(file, quality=90)


def peak(study: Path, stage: str, names: list[str]) -> float:
    """Return the peak memory of a process that runs a stage, in MB."""
    command = [sys.executable, "-c", PEAK, stage, study, *names]
    done = subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True)
    return int(done.stdout.split()[-1]) / 2**10


if __name__ == "__main__":
    main()
