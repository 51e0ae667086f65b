"""Set each method beside another package's, on the original module of real networks: the largest differences.

    uv pip install timm    # for its networks
    uv run python benchmarks/networks.py [resnet50 swin_t ...]

Networks of torchvision and timm, as they are built, with random weights and statistics of batches, in double precision,
images of 64 to 224 pixels a side. The others are captum, pytorch-grad-cam, TorchCAM and zennit on the very module; for
rollout it is its own attention, by hooks. A difference is the largest of a map as a share of its largest value. Beside
it stands by how much the maps of DeepLIFT miss the change of the logit (`sum`), and how much of it those of LRP keep.
"""

import sys
from pathlib import Path
from time import perf_counter

import torch

sys.path.insert(0, str(Path(__file__).parents[1]))

from atlas.model import classifier, runtime
from tests.support.oracles import originals


def main(names: list[str]) -> None:
    """Print a table, network by network, and below it the reasons."""
    classifier.DTYPES["float64"] = torch.float64
    runtime.start({"device": "cpu", "threads": 1})
    notes: dict[str, int] = {}
    print("| network |", " | ".join(originals.METHODS), "|")
    print("| --- |", " | ".join("---" for _ in originals.METHODS), "|")
    for name in names or originals.NETWORKS:
        start, cells = perf_counter(), []
        for method in originals.METHODS:
            result = originals.compare(name, method)
            message = result.message
            if message.startswith("n/a: "):
                message = f"n/a {notes.setdefault(message.removeprefix('n/a: '), len(notes) + 1)}"
            elif "no peer" in message:
                message, _, why = message.partition("(")
                message += f"no peer {notes.setdefault(why.rstrip(')'), len(notes) + 1)}"
            cells.append(" ".join([*([f"{result.difference:.0e}"] if result.difference is not None else []), message]))
        originals.pair.cache_clear()
        print(f"| {name} |", " | ".join(cells), "|", flush=True)
        print(f"{name}: {perf_counter() - start:.0f} s", file=sys.stderr)
    print()
    for note, number in notes.items():
        print(f"{number}. {note}")


if __name__ == "__main__":
    main(sys.argv[1:])
