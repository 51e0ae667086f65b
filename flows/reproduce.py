"""The flow: what `dvc repro` does, in parallel and on warm workers, on a schedule if wanted."""

import os
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

# Before Prefect is imported: no telemetry, and patience with a slow machine.
os.environ.setdefault("DO_NOT_TRACK", "1")
os.environ.setdefault("PREFECT_SERVER_ANALYTICS_ENABLED", "false")
os.environ.setdefault("PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS", "120")
os.environ.setdefault("PREFECT_LOGGING_LEVEL", "WARNING")

from prefect import flow, task
from prefect.artifacts import create_link_artifact, create_markdown_artifact
from prefect.cache_policies import NO_CACHE
from prefect.futures import wait
from prefect.task_runners import ThreadPoolTaskRunner

from flows.draft import untold
from flows.plan import WARM, clean, plan, verb
from flows.workers import fill, pool, record
from stages.study.problem import Problem

HEAD, SHOWN = 2, 10  # lines of the leaderboard: its head, and the methods that are told


class NotMade(Problem):
    """Cells failed, or need one that did: each with its reason."""

    def __init__(self, missing: dict[str, str]):
        super().__init__("these cells failed: " + ", ".join(missing) + "; what they said stands above")
        self.missing = missing


@task(cache_policy=NO_CACHE, task_run_name="{cell}")
def visit(
    study: Path, cell: str, workers: ProcessPoolExecutor, recorder: ProcessPoolExecutor
) -> tuple[str, float, float]:
    """Fill a cell's rows on a warm worker where its verb has rows, then let DVC run and record it.

    Filled cells are recorded one after another: two that DVC records at once wait for each other's locks.
    """
    name, parts = verb(cell)
    filling = workers.submit(fill, str(study), name, parts).result() if name in WARM else 0.0
    recording = (recorder if name in WARM else workers).submit(record, str(study), cell).result()
    print(f"{cell}: done in {filling + recording:.1f} s", flush=True)
    return cell, filling, recording


@flow(name="reproduce", validate_parameters=False, task_runner=ThreadPoolTaskRunner(max_workers=64))
def reproduce(study: str, workers: int) -> list[tuple[str, float, float]]:
    """Visit the stale cells, each as soon as its inputs are there; give each cell's seconds filling and recording.

    Where something was made and nothing failed, the run ends with two artifacts: the leaderboard, and a link to the
    report.

    Raises:
        NotMade: cells failed; all that do not depend on them were visited.
    """
    here = Path(study).resolve()
    with pool(workers) as processes, pool(1) as recorder:
        processes.submit(os.getpid)  # the imports begin now
        for gone in clean(here):
            print(f"no longer named in params.yaml, deleted: {gone.relative_to(here)}")
        futures: dict = {}
        needs = plan(here).needs
        for cell, inputs in needs.items():
            futures[cell] = visit.submit(
                here, cell, processes, recorder, wait_for=[futures[needed] for needed in inputs]
            )
        wait(list(futures.values()))
        states = {cell: future.state for cell, future in futures.items()}
        failed = {cell: _told(state) for cell, state in states.items() if state.is_failed()}
        if failed:
            raise NotMade(untold(failed, needs))
        if states:
            tell(here)
        return [state.result() for state in states.values()]


def tell(study: Path) -> None:
    """Leave the best methods and a link to the report among Prefect's artifacts."""
    report = study / "data" / "report"
    lines = (report / "leaderboard.md").read_text().splitlines()
    methods = len(lines) - HEAD
    said = f"The best {min(SHOWN, methods)} of {methods} methods of {study} by their mean rank, 1 is best."
    table = "\n".join(lines[: HEAD + SHOWN])
    create_markdown_artifact(f"{said}\n\n{table}\n", key="leaderboard", description=f"Mean ranks: {study}")
    create_link_artifact((report / "index.html").as_uri(), "The report", key="report", description=f"Of {study}")


def _told(state: Any) -> str:
    return f"failed: {state.result(raise_on_failure=False)}"
