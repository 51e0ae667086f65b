"""What benchmarks have in common that measure ours beside other systems and beside the bare network."""

import json
import subprocess
import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from subprocess import PIPE
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torchvision import models

from atlas.model.classifier import DTYPES
from atlas.study import params
from atlas.study.seeds import generator

HERE = Path(__file__).parent
PYTHON = HERE / "peers" / ".venv" / "bin" / "python"  # of the peers' environment
MEAN, STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
CLASSES = 1000


def parsed(parser: ArgumentParser) -> Namespace:
    """Add the options that these benchmarks have in common, and read the command line."""
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--images", type=int, default=4)
    parser.add_argument("--side", type=int, default=224, help="pixels; a multiple of 32")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--precision", nargs="+", choices=list(DTYPES), default=["float32"], help="of our engine")
    parser.add_argument("--turns", type=int, default=3, help="of which the median counts")
    parser.add_argument("--sizes", nargs="+", type=int, default=[1, 2, 4, 8, 16, 32, 64], help="of batches, tried")
    parser.add_argument("--quick", action="store_true", help="2 images of 64 pixels, few steps: does it run?")
    parser.add_argument("--python", type=Path, default=PYTHON, help="of the peers' environment")
    given = parser.parse_args()
    if given.quick:
        given.images, given.side, given.turns, given.sizes = 2, 64, 1, [1, 8]
    return given


def bare_and_chained(name: str = "resnet18") -> tuple[nn.Module, nn.Module]:
    """Return torchvision's module and ours of the same weights."""
    torch.manual_seed(0)
    build = params.find("networks", "torchvision", "torchvision")
    ours = build(classes=CLASSES, name=name, side=None, settings={})
    bare = getattr(models, name)(weights=None, num_classes=CLASSES)
    bare.load_state_dict(ours.state_dict())
    return bare.eval().requires_grad_(False), ours


def natural(count: int, side: int) -> Tensor:
    """Make images whose amplitude falls with frequency, as photographs' does, in whole grey levels."""
    noise = torch.stack([torch.randn(3, side, side, generator=generator(0, "image", row)) for row in range(count)])
    frequency = torch.fft.fftfreq(side).square()
    spectrum = torch.fft.fft2(noise) / (frequency[:, None] + frequency).sqrt().clamp(min=1 / side)
    images = torch.fft.ifft2(spectrum).real
    return ((images / images.std(dim=(1, 2, 3), keepdim=True) / 5 + 0.5).clamp(0, 1) * 255).round() / 255


def fastest(
    network: nn.Module, images: Tensor, precision: str, given: Namespace
) -> tuple[int, Callable[..., tuple[float, float]]]:
    """Print how fast the bare network is; give the engine's batch, and what measures the bare network at its best.

    The engine takes the smallest batch that comes within 5% of its best: a metric's last batch is padded.

    Returns:
        The batch; what gives seconds a pass to, and to and back where asked, else 0.
    """

    def placed(size: int, form: torch.memory_format) -> Tensor:
        network.to(given.device, DTYPES[precision], memory_format=form)
        batch = images.repeat(-(-size // len(images)), 1, 1, 1)[:size]
        return batch.to(given.device, DTYPES[precision], memory_format=form)

    found = {}
    print(f"bare network, {precision}: images a second\n\n{'batch':>12}{'contiguous':>14}{'channels last':>16}")
    for size in given.sizes:
        for form in (torch.contiguous_format, torch.channels_last):
            found[size, form] = seconds_a_row(network, placed(size, form), given)
        speeds = [1 / found[size, form] for form in (torch.contiguous_format, torch.channels_last)]
        print(f"{size:>12}{speeds[0]:>14.1f}{speeds[1]:>16.1f}", flush=True)
    print()
    best = min(found, key=found.get)
    ours = {one: found[one, torch.channels_last] for one in given.sizes}
    near = min(one for one, seconds in ours.items() if seconds <= 1.05 * min(ours.values()))

    def again(*, back: bool) -> tuple[float, float]:
        batch = placed(*best)
        to = seconds_a_row(network, batch, given)
        if not back:
            return to, 0.0
        slope = batch.requires_grad_()
        return to, seconds_a_row(lambda part: torch.autograd.grad(network(part).amax(dim=1).sum(), part), slope, given)

    return near, again


def seconds_a_row(function: Callable, batch: Tensor, given: Namespace) -> float:
    """Time passes of a batch: the best of two rounds of at least 32 rows each, many more on CUDA."""
    rounds = max(1, (2048 if given.device == "cuda" else 32) // len(batch))
    with torch.set_grad_enabled(batch.requires_grad):
        function(batch)
        return min(timed(lambda: [function(batch) for _ in range(rounds)]) for _ in range(2)) / rounds / len(batch)


def timed(function: Callable) -> float:
    """Return the seconds of a call."""
    wait = torch.cuda.synchronize if torch.cuda.is_available() else lambda: None
    wait()
    began = perf_counter()
    function()
    wait()
    return perf_counter() - began


@contextmanager
def theirs(
    script: str, network: nn.Module, arrays: dict[str, np.ndarray], told: dict[str, Any], given: Namespace
) -> Iterator[Callable[[str], dict | None]]:
    """Return what times a peer, in the peers' own environment, which is asked line by line.

    Args:
        script: The file in `peers/` that answers.
        network: The network.
        arrays: `images`, their `targets`, and what else it asks for.
        told: Settings.
        given: The command line.
    """
    if not given.python.exists():
        print(f"no peers: there is no {given.python}; make it by uv sync --project benchmarks/peers\n")
        yield lambda name: None
        return
    with TemporaryDirectory() as folder:
        told = {"device": given.device, "threads": given.threads, "mean": MEAN, "std": STD, **told}
        weights = {f"network.{name}": value.float().cpu().numpy() for name, value in network.state_dict().items()}
        np.savez(f"{folder}/given.npz", told=json.dumps(told), **arrays, **weights)
        command = [given.python, "-W", "ignore", HERE / "peers" / script, folder]
        with subprocess.Popen(command, stdin=PIPE, stdout=PIPE, text=True) as process:
            if json.loads(process.stdout.readline()) != arrays["targets"].tolist():
                sys.exit("error: the peers' network predicts other classes than ours")

            def ask(name: str) -> dict | None:
                print(name, file=process.stdin, flush=True)
                found = json.loads(process.stdout.readline())
                if "error" in found:
                    print(f"{found['peer']}: {name}: {found['error']}")
                    return None
                return found

            yield ask
            process.stdin.close()


def share(before: tuple[float, float], ours: dict, after: tuple[float, float]) -> float:
    """Return which share of the bare network's speed our passes reach, by its seconds a pass before and after."""
    to, back = ((one + other) / 2 for one, other in zip(before, after, strict=True))
    return ((ours["forward"] - ours["backward"]) * to + ours["backward"] * back) / ours["seconds"]


def passes(found: dict, images: int) -> str:
    """Spell the passes of an image."""
    back = f"+{found['backward'] / images:g}" if found["backward"] else ""
    return f"{found['forward'] / images:g}{back}"


def verdict(value: float, target: float) -> str:
    """Return whether a target is met."""
    return f"{target:g} {'met' if value >= target else 'missed'}"


def print_table(rows: list[dict[str, str]], names: list[str]) -> None:
    """Print cells below their names."""
    widths = {name: max(len(name), *(len(row.get(name, "-")) for row in rows)) + 2 for name in names}
    print("\nan image\n\n" + "".join(name.ljust(widths[name]) for name in names))
    for row in rows:
        print("".join(row.get(name, "-").ljust(widths[name]) for name in names))
