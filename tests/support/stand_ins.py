"""Folders of small files in place of stores, for a study of which nothing is computed but all cells are recorded."""

import json
import random
import subprocess
from contextlib import chdir
from pathlib import Path

from flows.recording import commit
from flows.repository import repository
from flows.workers import Made, files_of
from tests.support.study import environment

BYTES = 1000  # of a file
OF_FAMILY = ("maps", "votes", "scores")  # outputs that have as many files as are asked for; others have
OTHERS = 10
FOLDERS = 5  # of an output, as arrays of a store are
Cell = tuple[str, str]  # its command and its output


def write(study: Path, files: int) -> dict[str, Cell]:
    """Write an output for every cell, and return the cells by name."""
    draw = random.Random(0)
    subprocess.run(["python", "-m", "stages.versions"], cwd=study, env=environment(study), check=True)
    with repository(study) as repo:
        stages = {stage.name: (stage.cmd, [Path(out.fs_path) for out in stage.outs]) for stage in repo.index.stages}
    for cell, (_, outputs) in stages.items():
        for output in outputs if cell != "versions" else []:
            kind = output.relative_to(study.resolve()).parts[1]
            if output.suffix == ".json":
                output.write_text("{}")
                continue
            for number in range(files if kind in OF_FAMILY else OTHERS):
                file = output / f"{number % FOLDERS}" / f"{number}.json"
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_text(json.dumps({"value": draw.randbytes(BYTES // 2).hex()}))
    return {cell: (command, str(outputs[0])) for cell, (command, outputs) in stages.items()}


def record(study: Path, cells: dict[str, Cell]) -> None:
    """Record cells as the flow records them."""
    places = {cell: (command, Path(output)) for cell, (command, output) in cells.items()}
    made = {cell: Made(0.0, command, {}, output, files_of(output)) for cell, (command, output) in places.items()}
    with chdir(study):
        assert commit(str(study), made) == {}
