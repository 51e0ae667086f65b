"""The flow: what `dvc repro` does, in parallel and on warm workers, on a schedule if wanted."""

import os
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

# Before Prefect is imported: no telemetry, and patience with a slow machine.
os.environ.setdefault("DO_NOT_TRACK", "1")
os.environ.setdefault("PREFECT_SERVER_ANALYTICS_ENABLED", "false")
os.environ.setdefault("PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS", "120")
os.environ.setdefault("PREFECT_LOGGING_LEVEL", "WARNING")

from prefect import flow, task
from prefect.cache_policies import NO_CACHE
from prefect.task_runners import ThreadPoolTaskRunner

from flows.plan import WARM, clean, plan, verb
from flows.workers import fill, pool, record
from stages.params import Problem


@task(cache_policy=NO_CACHE, task_run_name="{cell}")
def visit(study: Path, cell: str, workers: ProcessPoolExecutor) -> tuple[str, float, float]:
    """Fill a cell's rows on a warm worker where its verb has rows, then let DVC run and record it."""
    name, parts = verb(cell)
    start = time.monotonic()
    if name in WARM:
        workers.submit(fill, str(study), name, parts).result()
    filled = time.monotonic()
    workers.submit(record, str(study), cell).result()
    ended = time.monotonic()
    print(f"{cell}: done in {ended - start:.1f} s", flush=True)
    return cell, filled - start, ended - filled


def run(study: Path, workers: int) -> list[tuple[str, float, float]]:
    """Visit the stale cells, each as soon as its inputs are there; give each cell's seconds filling and recording."""
    study = study.resolve()
    with pool(workers) as processes:
        processes.submit(os.getpid)  # the imports begin now
        for gone in clean(study):
            print(f"no longer named in params.yaml, deleted: {gone.relative_to(study)}")
        needs = plan(study).needs
        futures: dict = {}
        for cell, inputs in needs.items():
            futures[cell] = visit.submit(study, cell, processes, wait_for=[futures[needed] for needed in inputs])
        done = {cell: future.wait() or future.state for cell, future in futures.items()}
        failed = [cell for cell, state in done.items() if state.is_failed()]
        if failed:
            raise Problem(f"these cells failed: {', '.join(failed)}; what they said stands above")
        return [state.result() for state in done.values() if state.is_completed()]


def reproduce(workers: int):
    """Make the flow with so many workers."""
    return flow(run, name="reproduce", task_runner=ThreadPoolTaskRunner(max_workers=workers), validate_parameters=False)
