"""Print what the stages of a study cost when it was made: rows, seconds, passes and peak memory, by stage.

    uv run python benchmarks/visits.py [--study studies/photographs]

It reads `.atlas/log.jsonl`, which every visit of a cell adds a line to: all visits since that file was begun count. The
seconds are those in which rows are made and assembled, of processes side by side; of a cell's process beside them, of
DVC and of stages without rows there are none. Peak memory is that of the largest process.
"""

import json
from argparse import ArgumentParser
from pathlib import Path

COLUMNS = ("stage", "cells", "rows made", "seconds", "forward", "backward", "peak MB")


def main() -> None:
    """Print the table."""
    parser = ArgumentParser(description="Print what the stages of a study cost.")
    parser.add_argument("--study", type=Path, default=Path())
    visits = (parser.parse_args().study / ".atlas" / "log.jsonl").read_text().splitlines()
    print("| " + " | ".join(COLUMNS) + " |\n|" + " --- |" * len(COLUMNS))
    by_stage: dict[str, list[dict]] = {}
    for visit in map(json.loads, visits):
        by_stage.setdefault(visit["cell"].partition("@")[0], []).append(visit)
    for stage, known in by_stage.items():
        passes = [counts for visit in known for counts in visit["passes"].values()]
        print(
            f"| {stage} | {len({visit['cell'] for visit in known})} | {sum(visit['rows_computed'] for visit in known)} "
            f"| {sum(visit['seconds'] for visit in known):.0f} | {sum(one.get('forward', 0) for one in passes)} "
            f"| {sum(one.get('backward', 0) for one in passes)} | {max(visit['peak_mb'] or 0 for visit in known)} |"
        )


if __name__ == "__main__":
    main()
