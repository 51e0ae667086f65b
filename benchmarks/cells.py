"""Measure what looking for stale cells and recording takes, in studies of many cells, on stand-ins for stores.

    uv run python benchmarks/cells.py [--classifiers 12] [--families 13] [--files 25] [--dvc] [--profile 15]

It writes a study with as many classifiers and families of methods, and for each output a folder with so many small
files in place of a store; nothing is computed. All cells are recorded as the flow records them, so that nothing is
stale. It prints the CPU and wall seconds of recording all cells together, and some of them again one by one, of `atlas
status`, of `atlas reproduce` with nothing to do and, with --dvc, of `dvc status`; then the functions of
`flows.plan.plan` that take the longest. Targets on two quiet cores: recording at most 0.5 s a cell; `atlas reproduce`
under 4 s at 2 x 8 (64 cells), under 15 s at 12 x 13 (544 cells), between them in proportion to the cells.
"""

import json
import resource
import subprocess
import sys
from argparse import ArgumentParser, Namespace
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import NamedTuple

import yaml

sys.path.insert(0, str(Path(__file__).parents[1]))

from tests.support import stand_ins
from tests.support.every import SETTINGS
from tests.support.study import build, environment

HERE = Path(__file__).resolve().parents[1]
AGAIN = 10  # cells that are recorded one by one
CHANNELS = {"channels": "sum"}
RECORDING, CELLS, SECONDS = 0.5, (64, 544), (4, 15)

# What a run of the flow does once cells are made, in a process that has imported what it needs: of all cells together,
# or of some one by one.
RECORD = """
import json, sys
from pathlib import Path
from time import perf_counter, process_time
import dvc.repo.reproduce
from tests.support.stand_ins import record

cells = json.loads(Path("../cells.json").read_text())
chosen = [{cell: cells[cell]} for cell in sys.argv[1:]] or [cells]
cpu, wall = process_time(), perf_counter()
for together in chosen:
    record(Path.cwd(), together)
print(process_time() - cpu, perf_counter() - wall)
"""
PROFILE = """
import cProfile, pstats, sys
from pathlib import Path

profile = cProfile.Profile()
profile.enable()
from flows.plan import plan
assert not plan(Path()).needs
profile.disable()
for order in ("tottime", "cumtime"):
    pstats.Stats(profile).strip_dirs().sort_stats(order).print_stats(int(sys.argv[1]))
"""


class Taken(NamedTuple):
    """What a process and its children took, in seconds: of the CPUs, by themselves and for them in the kernel; wall."""

    cpu: float
    wall: float
    said: str


def main() -> None:
    """Print what each step takes."""
    given = arguments()
    with TemporaryDirectory(dir=given.folder) as folder:
        study = write(Path(folder, "study"), given)
        cells = stand_ins.write(study, given.files)
        (study.parent / "cells.json").write_text(json.dumps(cells))
        number = sum(1 for one in (study / "data").rglob("*") if one.is_file())
        lines = report(study, given, cells, number)
    print("\n".join(lines))


def report(study: Path, given: Namespace, cells: dict, number: int) -> list[str]:
    """Print the table of steps; return the top of the profile."""
    print(f"{len(cells)} cells, {number} files", flush=True)
    print("| step | CPU s | wall s | target, s |\n| --- | --- | --- | --- |", flush=True)
    recorded(study, "recording all cells together, per cell", [], len(cells))
    show("`atlas status`, dvc.lock being new", measured(study, ["atlas", "status"]))
    show("`atlas status`", measured(study, ["atlas", "status"]), limit(len(cells)))
    show("`atlas reproduce`", measured(study, ["atlas", "reproduce"]), limit(len(cells)))
    again = [cell for cell in cells if cell.startswith("score@")][-AGAIN:]
    recorded(study, "recording some again, one by one, per cell", again, len(again))
    if given.dvc:
        show("`dvc status`", measured(study, ["dvc", "status"]))
    return [measured(study, ["python", "-c", PROFILE, str(given.profile)]).said] if given.profile else []


def recorded(study: Path, name: str, cells: list[str], number: int) -> None:
    """Record cells, all if none are named, and show what it took per cell."""
    cpu, wall = map(float, measured(study, ["python", "-c", RECORD, *cells]).said.split())
    show(name, Taken(cpu / number, wall / number, ""), RECORDING)


def show(name: str, taken: Taken, target: float | None = None) -> None:
    """Print a row of the table."""
    due = "" if target is None else f"{target:.1f} {'met' if taken.wall <= target else 'missed'}"
    print(f"| {name} | {taken.cpu:.2f} | {taken.wall:.2f} | {due} |", flush=True)


def arguments() -> Namespace:
    """Read the command line."""
    parser = ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--classifiers", type=int, default=12)
    parser.add_argument("--families", type=int, default=13)
    parser.add_argument("--files", type=int, default=25, help="files of each store of maps, votes and scores")
    parser.add_argument("--dvc", action="store_true", help="measure `dvc status`, too")
    parser.add_argument("--profile", type=int, default=15, help="lines of the profile; 0: no profile")
    parser.add_argument("--folder", type=Path, help="where the study is written; by default the system's place")
    return parser.parse_args()


def limit(cells: int) -> float:
    """Return the target of a run with nothing to do, which grows with the number of cells."""
    (few, many), (least, most) = CELLS, SECONDS
    return least + (most - least) * max(0, cells - few) / (many - few)


def write(study: Path, given: Namespace) -> Path:
    """Write a study: the default one, with other numbers of classifiers and families."""
    params = yaml.safe_load((HERE / "params.yaml").read_text())
    kinds = list(params["classifiers"].values())
    names = [f"network_{number:03}" for number in range(given.classifiers)]
    params["classifiers"] = {name: kinds[number % len(kinds)] for number, name in enumerate(names)}
    for entry in params["classifiers"].values():
        entry["images"]["correct_by"] = names[:2]
    params["methods"] = methods(params["methods"], given.families)
    known = {name for listed in params["methods"].values() for name in listed}
    for one in params["certify"].values():
        one["methods"] = [name for name in one["methods"] if name in known]
    return build(study, params)


def methods(entries: dict, number: int) -> dict:
    """Return as many families: the default study's, then others with each of their functions."""
    every = {family: {name: {**one, **CHANNELS} for name, one in listed.items()} for family, listed in SETTINGS.items()}
    families = {**entries, **{family: listed for family, listed in every.items() if family not in entries}}
    if number > len(families):
        sys.exit(f"--families: {number}; there are {len(families)}")
    return dict(list(families.items())[:number])


def measured(study: Path, command: list[str]) -> Taken:
    """Run a command in a study."""
    path = Path(sys.executable).parent
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), perf_counter()
    done = subprocess.run(
        [str(path / command[0]), *command[1:]], cwd=study, env=environment(study), capture_output=True, text=True
    )
    wall, after = perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode:
        sys.exit(f"{' '.join(command[:2])}: {done.stderr}")
    return Taken(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, wall, done.stdout)


if __name__ == "__main__":
    main()
