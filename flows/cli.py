"""The face of the project: `atlas reproduce`, `atlas status`, `atlas serve`, `atlas clean`."""

import json
import os
import time
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Column, Table

from flows import plan as planning
from stages.params import Problem, load

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, help=__doc__)
console = Console()
Study = Annotated[Path, typer.Option(help="The folder of params.yaml.")]
Workers = Annotated[int, typer.Option(help="Processes that work side by side.")]
CORES = os.cpu_count() or 1


@app.command()
def reproduce(study: Study = Path(), workers: Workers = CORES) -> None:
    """Bring every result up to date: what `dvc repro` does, in parallel on warm workers."""
    start = time.monotonic()
    with _told():
        load(study)
        if not planning.plan(study).needs:
            console.print("Nothing is stale: every result is up to date.")
            return
        from flows.reproduce import reproduce as flow

        done = flow(str(study), workers)
    _show(study, done, time.monotonic() - start)


@app.command()
def status(study: Study = Path()) -> None:
    """Say which cells are stale and why, how many rows they had, and about how long they took last time."""
    with _told():
        load(study)
        found = planning.plan(study)
    if not found.needs:
        console.print("Nothing is stale: every result is up to date.")
        return
    past = _last(study)
    table = Table(
        Column("cell", no_wrap=True),
        "why",
        "rows last time",
        "seconds last time",
        title=f"{len(found.needs)} stale cells",
    )
    for cell, reasons in found.reasons.items():
        last = past.get(cell, {})
        table.add_row(
            cell,
            "; ".join(reasons[:3]) + (" ..." if len(reasons) > 3 else ""),
            str(last.get("rows_wanted", "")),
            str(last.get("seconds", "")),
        )
    console.print(table)


@app.command()
def serve(
    cron: Annotated[str, typer.Option(help="When to run, as cron says it: '0 3 * * *' is nightly at three.")],
    study: Study = Path(),
    workers: Workers = CORES,
) -> None:
    """Bring every result up to date on a schedule, until stopped."""
    with _told():
        load(study)
        from flows.reproduce import reproduce as flow

        parameters = {"study": str(study.resolve()), "workers": workers}
        flow.serve(name="nightly", cron=cron, parameters=parameters, limit=1)


@app.command()
def clean(study: Study = Path()) -> None:
    """Delete the outputs of entries that params.yaml no longer names."""
    with _told():
        gone = planning.clean(study)
    for one in gone:
        console.print(f"deleted {one.relative_to(study)}")
    console.print(f"{len(gone)} outputs deleted.")


class _told:
    """Tell a Problem in one line and exit with status 1."""

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: type | None, problem: BaseException | None, trace: object) -> None:
        if isinstance(problem, Problem):
            typer.echo(f"error: {problem}", err=True)
            raise typer.Exit(1) from None


def _show(study: Path, done: list[tuple[str, float, float]], total: float) -> None:
    past = _last(study)
    table = Table(
        Column("cell", no_wrap=True),
        "rows",
        "computed",
        "seconds computing",
        "seconds recording",
        title="What was made",
    )
    for cell, filling, recording in done:
        rows = past.get(cell, {})
        table.add_row(
            cell,
            str(rows.get("rows_wanted", "")),
            str(rows.get("rows_computed", "")),
            f"{filling:.1f}",
            f"{recording:.1f}",
        )
    console.print(table)
    console.print(f"{len(done)} cells in {total:.0f} s. The report: {study / 'data' / 'report' / 'index.html'}")


def _last(study: Path) -> dict[str, dict]:
    """Read of the log what each cell's last visit cost: the worker that filled it and the cell itself, together."""
    log = study / ".atlas" / "log.jsonl"
    visits: dict[str, list[dict]] = {}
    for line in map(json.loads, log.read_text().splitlines() if log.is_file() else []):
        before = visits.get(line["cell"], [])
        visits[line["cell"]] = [line] if not before or before[-1]["assembled"] else [*before, line]
    return {
        cell: {
            "rows_wanted": lines[-1]["rows_wanted"],
            "rows_computed": sum(line["rows_computed"] for line in lines),
            "seconds": round(sum(line["seconds"] for line in lines), 1),
        }
        for cell, lines in visits.items()
    }
