"""The flow: what `dvc repro` does, in parallel and on warm workers, if wanted on a schedule."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from flows.messages import Failure, debugging, one_line, print_line

# Set before Prefect is imported: no telemetry, and longer timeouts for slow machines. Failures are reported at the end.
os.environ.setdefault("DO_NOT_TRACK", "1")
os.environ.setdefault("PREFECT_SERVER_ANALYTICS_ENABLED", "false")
os.environ.setdefault("PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS", "120")
os.environ.setdefault("PREFECT_LOGGING_LEVEL", "WARNING")
os.environ.setdefault("PREFECT_LOGGING_LOGGERS_PREFECT_TASK_RUNS_LEVEL", "ERROR" if debugging() else "CRITICAL")
os.environ.setdefault("PREFECT_LOGGING_LOGGERS_PREFECT_FLOW_RUNS_LEVEL", "ERROR" if debugging() else "CRITICAL")

from prefect import flow, task
from prefect.artifacts import create_link_artifact, create_markdown_artifact
from prefect.cache_policies import NO_CACHE
from prefect.futures import wait
from prefect.task_runners import ThreadPoolTaskRunner

from atlas.study.errors import UserError
from flows.draft import why_missing
from flows.dvc_speedups import unknown_version
from flows.plan import at_work, clean, plan, verb
from flows.recording import Recorder, record
from flows.workers import Killed, Workers, make

HEAD, SHOWN = 2, 10  # lines of the leaderboard: its head, and the methods shown
Result = TypeVar("Result")
AGAIN = 2  # retries of a cell whose process was killed


class NotMade(Failure):
    """Cells failed, or need a failed one, each with its reason.

    Args:
        failed: The reasons of failed cells.
        missing: The same, and the reasons of cells that were not run because they need one of them.
    """

    def __init__(self, failed: dict[str, str], missing: dict[str, str]):
        idle = [cell for cell in missing if cell not in failed]
        were = f"{len(idle)} {'was' if len(idle) == 1 else 'were'} not run"
        lines = [f"{_number(len(failed), 'cell')} failed and {were}; all else was made"]
        lines += [f"  {cell} failed: {reason.removeprefix(cell + ': ')}" for cell, reason in failed.items()]
        lines += [f"  {cell} was not run: {missing[cell]}" for cell in idle]
        super().__init__("\n".join(lines))
        self.missing = missing


@task(cache_policy=NO_CACHE, task_run_name="{cell}")
def visit(study: Path, cell: str, workers: Workers, recorder: Recorder | None) -> tuple[str, float, float]:
    """Make a cell on a warm worker, then record it; without a recorder DVC runs the cell's command and records it.

    Raises:
        UserError: its process was killed on every try.
    """
    if recorder is None:
        making, recording = 0.0, _patiently(cell, lambda: workers.run(record, str(study), cell))
    else:
        making, recording = _patiently(cell, lambda: _made(study, cell, workers, recorder))
    print(f"{cell}: done in {making + recording:.1f} s", flush=True)
    return cell, making, recording


def _made(study: Path, cell: str, workers: Workers, recorder: Recorder) -> tuple[float, float]:
    """Make a cell and record it; after a kill both are due again: DVC may have left a part of the output."""
    made = workers.run(make, str(study), *verb(cell))
    return made.seconds, recorder.record(cell, made)


def _patiently(cell: str, act: Callable[[], Result]) -> Result:
    """Repeat a cell's work if its process is killed, up to `AGAIN` times; the rows computed so far are kept."""
    for time in range(1, AGAIN + 1):
        try:
            return act()
        except Killed as killed:
            print(f"{cell}: {killed}; again, {time} of {AGAIN} times", flush=True)
    try:
        return act()
    except Killed as killed:
        raise UserError(f"{killed}, {AGAIN + 1} times") from None


RUNNER: Any = ThreadPoolTaskRunner(max_workers=64)


@flow(name="reproduce", validate_parameters=False, task_runner=RUNNER)
def reproduce(study: str, workers: int) -> list[tuple[str, float, float]]:
    """Visit the stale cells, each as soon as its inputs exist; return each cell's seconds of computing and recording.

    If something was made and nothing failed, the run ends with two artifacts: the leaderboard, and a link to the
    report.

    Raises:
        NotMade: cells failed; all that do not depend on them were visited.
    """
    here = Path(study).resolve()
    if reason := unknown_version():
        print_line(reason)
    with at_work(here), Workers(workers) as processes, Workers(1) as recording:
        for gone in clean(here):
            print(f"no longer named in params.yaml, deleted: {gone.relative_to(here)}")
        futures: dict = {}
        needs, _, warm = plan(here)
        recorder = Recorder(here, recording)
        for cell, inputs in needs.items():
            how = recorder if cell in warm else None
            futures[cell] = visit.submit(
                here, cell, processes, how, return_state=False, wait_for=[futures[needed] for needed in inputs]
            )
        wait(list(futures.values()))
        states = {cell: future.state for cell, future in futures.items()}
        failed = {cell: _reason(state) for cell, state in states.items() if state.is_failed()}
        if failed:
            raise NotMade(failed, why_missing(failed, needs))
        if states:
            publish(here)
        return [state.result() for state in states.values()]


def publish(study: Path) -> None:
    """Publish the best methods and a link to the report as Prefect artifacts."""
    report = study / "data" / "report"
    lines = (report / "leaderboard.md").read_text().splitlines()
    methods = len(lines) - HEAD
    said = f"The best {min(SHOWN, methods)} of {methods} methods of {study} by their mean rank, 1 is best."
    table = "\n".join(lines[: HEAD + SHOWN])
    create_markdown_artifact(f"{said}\n\n{table}\n", key="leaderboard", description=f"Mean ranks: {study}")
    create_link_artifact((report / "index.html").as_uri(), "The report", key="report", description=f"Of {study}")


def _reason(state: Any) -> str:
    """Return why a cell failed, in one line."""
    error = state.result(raise_on_failure=False)
    return " ".join(str(error).split()) if isinstance(error, UserError) else one_line(error)


def _number(number: int, word: str) -> str:
    return f"{number} {word}{'' if number == 1 else 's'}"
