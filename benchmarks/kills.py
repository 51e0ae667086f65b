"""Kill a tiny study's run while it assembles, places and records, at random instants, and compare what a rerun makes.

`python benchmarks/kills.py [KILLS]`: each time two cells are stale; they are made and recorded as the flow does it,
and the whole process group is killed. A rerun must end with the bytes of a run that nobody disturbed: outputs, dvc.lock
and every file of DVC's cache. Takes about 15 minutes on two slow cores.
"""

import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from tests.support.study import build, environment, files, run, tiny, write

CELLS = ("attribute@resnet_vanilla-control", "score@resnet_vanilla-control")
RUN = f"""
import os, sys
from atlas.cache.rows import RowStore
from flows.plan import at_work, clean, verb
from flows.recording import commit
from flows.workers import make
from pathlib import Path

finish = RowStore.finish

def finishing(self, *given):
    print(self.cell, "computed", flush=True)
    finish(self, *given)

RowStore.finish = finishing
print("begun", flush=True)
with at_work(Path()):
    clean(Path())
    for cell in {CELLS!r}:
        name, parts = verb(cell)
        assert commit(os.getcwd(), {{cell: make(os.getcwd(), name, parts)}}) == {{}}
        print(cell, "recorded", flush=True)
"""


def changed() -> dict:
    """Make two cells stale."""
    params = tiny()
    params["methods"]["control"]["center"]["channels"] = "abs_sum"
    params["metrics"]["localization"]["relevance_rank"]["count"] = 7
    return params


def start(house: Path) -> subprocess.Popen:
    """Begin a run in a process group of its own."""
    return subprocess.Popen(
        [sys.executable, "-c", RUN],
        cwd=house,
        env=environment(house),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def state(house: Path) -> dict[str, str]:
    """Digest what a run leaves; scratch that a killed process left is nobody's."""
    found = {f"data/{name}": data for name, data in files(house / "data").items()}
    found |= {f"cache/{name}": data for name, data in files(house / ".dvc/cache/files").items()}
    found["dvc.lock"] = (house / "dvc.lock").read_bytes()
    return {
        name: hashlib.md5(data).hexdigest()
        for name, data in found.items()
        if ".partial" not in name and not Path(name).name.endswith(".tmp")
    }


def timed(house: Path) -> dict[str, float]:
    """Run undisturbed; give when what was said, in seconds."""
    began, process, said = time.monotonic(), start(house), {}
    for line in process.stdout:
        said[line.strip()] = time.monotonic() - began
    assert process.wait() == 0, said
    return said


def killed(house: Path, cell: str, wait: float) -> str | None:
    """Kill a run some seconds after a cell's rows are computed; return what it said last, None if it had ended."""
    process, said = start(house), ""
    for line in process.stdout:
        said = line.strip()
        if said == f"{cell} computed":
            break
    time.sleep(wait)
    os.killpg(process.pid, signal.SIGKILL)
    said = [said, *process.communicate()[0].splitlines()][-1]
    return said if process.returncode == -signal.SIGKILL else None


def main(kills: int) -> None:
    """Kill that many runs and say how many ended byte-equal."""
    chance = random.Random(0)
    with tempfile.TemporaryDirectory() as place:
        ready = build(Path(place, "ready"), tiny())
        run(ready, "dvc", "repro", "-q", *CELLS)
        write(ready, changed())
        whole = Path(shutil.copytree(ready, Path(place, "whole"), symlinks=True))
        said = timed(whole)
        due = state(whole)
        ended, where = Counter(), Counter()
        for number in range(kills):
            house = Path(shutil.copytree(ready, Path(place, "house"), symlinks=True))
            began, cell = time.monotonic(), chance.choice(CELLS)
            last = killed(house, cell, chance.uniform(0, said[f"{cell} recorded"] - said[f"{cell} computed"]))
            where[last or "it had ended"] += 1
            again = start(house)
            told = again.communicate()[0]
            made = state(house) if again.returncode == 0 else {}
            differ = sorted(name for name in due.keys() | made.keys() if due.get(name) != made.get(name))
            ended["byte-equal" if not differ else "other"] += 1
            seconds = time.monotonic() - began
            print(
                json.dumps({"kill": number, "after": last, "differ": differ[:5], "seconds": round(seconds, 1)}),
                flush=True,
            )
            if differ:
                print(told)
            shutil.rmtree(house)
        print(dict(ended), dict(where))


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 40)
