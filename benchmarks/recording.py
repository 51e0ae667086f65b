"""Measure what flows/dvc_speedups saves: CPU time of recording cells with and without it, interleaved.

`python benchmarks/recording.py [--every N]`, in the folder of a study that has been made: in a copy of it, every Nth
cell, whose output is in place, is recorded twice as in a first run, when dvc.lock holds the cells before it.
"""

import os
import shutil
import statistics
import sys
import tempfile
import time
from argparse import ArgumentParser
from graphlib import TopologicalSorter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from flows.dvc_speedups import VARIABLE
from flows.dvc_speedups.lock_by_stage import HEAD, cut, put
from flows.recording import commit
from flows.repository import repository
from flows.workers import Made, files_of

LEFT_OUT = shutil.ignore_patterns(".venv", ".uv", "site", "*.partial")


def seconds(study: Path, cell: str, made: Made, lock: str, speedups: str) -> float:
    """Record a cell as if it were new, and return the CPU seconds."""
    if lock == HEAD:
        (study / "dvc.lock").unlink(missing_ok=True)
    else:
        (study / "dvc.lock").write_text(lock)
    shutil.rmtree(study / ".dvc" / "cache" / "runs", ignore_errors=True)
    os.environ[VARIABLE] = speedups
    before = time.process_time()
    failed = commit(str(study), {cell: made})
    if failed:
        raise failed[cell]
    return time.process_time() - before


def measure(study: Path, every: int) -> None:
    """Print a row per cell, and all together."""
    with repository(study) as repo:
        graph = repo.index.graph
        inputs = {stage.name: [needed.name for needed in graph.successors(stage)] for stage in graph.nodes}
        outputs = {stage.name: (stage.cmd, Path(stage.outs[0].fs_path)) for stage in graph.nodes}
    made = {cell: Made(0.0, command, {}, output, files_of(output)) for cell, (command, output) in outputs.items()}
    blocks = {block.split(":")[0].strip(): block for block in cut((study / "dvc.lock").read_text())}
    order = [cell for cell in TopologicalSorter(inputs).static_order() if cell in blocks]
    lock, pairs = HEAD, []
    print("| cell | with, s | without, s | ratio |\n| --- | --- | --- | --- |")
    for number, cell in enumerate(order):
        if number % every == 0:
            taken = {how: seconds(study, cell, made[cell], lock, how) for how in ("10", "01")[len(pairs) % 2]}
            pairs.append((taken["1"], taken["0"]))
            print(f"| {cell} | {taken['1']:.2f} | {taken['0']:.2f} | {taken['0'] / taken['1']:.3f} |", flush=True)
        lock = put(cut(lock), blocks[cell])
    ratios = [without / sped_up for sped_up, without in pairs]
    sped_up, without = (sum(one) for one in zip(*pairs, strict=True))
    print(f"| together | {sped_up:.1f} | {without:.1f} | {without / sped_up:.3f} |")
    print(f"{len(pairs)} pairs: median of the ratios {statistics.median(ratios):.3f}")


def main() -> None:
    """Measure in a copy of the study in the working directory."""
    parser = ArgumentParser(description=__doc__)
    parser.add_argument("--every", type=int, default=3)
    given = parser.parse_args()
    os.environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    with tempfile.TemporaryDirectory() as place:
        study = Path(shutil.copytree(".", Path(place, "study"), symlinks=True, ignore=LEFT_OUT))
        measure(study, given.every)
        os.chdir("/")


if __name__ == "__main__":
    main()
