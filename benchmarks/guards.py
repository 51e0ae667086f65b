"""Measure what watching calls costs: CPU time of cells with and without it, interleaved, by the median of the ratios.

`python benchmarks/guards.py [--rounds N] CELL...`, in the folder of a study that has been made: every cell
(`attribute@resnet_vanilla-cam`, `score@resnet_vanilla-cam`) is filled anew by a process of its own, once as the product
does it and once with methods and metrics called directly. It works on a copy without dvc.lock, so that no row is found;
importing is part of both.
"""

import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
from argparse import ArgumentParser
from pathlib import Path

FILL = """
import sys
from pathlib import Path
from flows.plan import verb
from atlas.inputs import calls
from atlas.cache.rows import RowStore
from atlas.study.params import find
from atlas.study.schema.signatures import signature

def direct(bound, given):
    asks = signature(bound.kind, bound.family, bound.function).inputs
    return find(bound.kind, bound.family, bound.function)(*(given[name] for name in asks), **bound.settings)

if sys.argv[2] == "direct":
    calls.call = direct
RowStore.finish = lambda *given: None  # the study's own output stays as it is
name, parts = verb(sys.argv[1])
import importlib
importlib.import_module(f"stages.{name}").main(Path(), *parts)
"""


def seconds(cell: str, how: str) -> float:
    """Fill a cell from nothing, and give the CPU seconds that its process took."""
    shutil.rmtree(Path(".atlas/cells", cell), ignore_errors=True)
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, "-c", FILL, cell, how], check=True, env={**os.environ, "PYTHONPATH": os.getcwd()})
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    shutil.rmtree(Path(".atlas/cells", cell), ignore_errors=True)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main() -> None:
    """Measure the cells that the command line names."""
    parser = ArgumentParser(description=__doc__)
    parser.add_argument("cells", nargs="+")
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        for name in ("params.yaml", "atlas", "stages", "flows", "data", "uv.lock"):
            Path(place, name).symlink_to(Path(name).absolute())
        os.chdir(place)
        measure(given.cells, given.rounds)
        os.chdir("/")


def measure(cells: list[str], rounds: int) -> None:
    """Print a row a cell, and all together."""
    sums = []
    print("| cell | watched, s | direct, s | ratio |\n| --- | --- | --- | --- |")
    for cell in cells:
        pairs = []
        for number in range(rounds):
            order = ("watched", "direct") if number % 2 else ("direct", "watched")
            taken = {how: seconds(cell, how) for how in order}
            pairs.append((taken["watched"], taken["direct"]))
        watched, direct = (statistics.median(one) for one in zip(*pairs, strict=True))
        sums.append((watched, direct))
        ratio = statistics.median(one / other for one, other in pairs)
        print(f"| {cell} | {watched:.1f} | {direct:.1f} | {ratio:.3f} |", flush=True)
    watched, direct = (sum(one) for one in zip(*sums, strict=True))
    print(f"| together | {watched:.1f} | {direct:.1f} | {watched / direct:.3f} |")


if __name__ == "__main__":
    main()
