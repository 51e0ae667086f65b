"""The command line: `atlas reproduce`, `atlas status`, `atlas serve`, `atlas clean`, `atlas show`, `atlas compare`."""

import os
import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Column, Table

from atlas.cache.remote import PULL
from atlas.study.cores import cores
from atlas.study.errors import UserError
from atlas.study.params import load
from flows import plan as planning
from flows.messages import DEBUG, one_line, one_line_errors
from flows.repository import check
from flows.supervise import supervised

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, help=__doc__)
console = Console()
Study = Annotated[Path, typer.Option(help="The folder of params.yaml.")]
Workers = Annotated[
    int, typer.Option(help="Number of parallel processes, at least 1.", callback=lambda count: _enough(count))
]
CORES = cores()
FRESH = "Nothing is stale: every result is up to date."


@app.callback()
def options(
    debug: Annotated[bool, typer.Option("--debug", help="On errors, show Python's traceback, too.")] = False,
) -> None:
    """Set the options that all commands share."""
    if debug:
        os.environ[DEBUG] = "1"  # also read by the stages' processes


@app.command()
def reproduce(
    study: Study = Path(),
    workers: Workers = CORES,
    keep_going: Annotated[bool, typer.Option(help="If cells fail, draft a report from the others.")] = False,
    pull: Annotated[bool, typer.Option("--pull", help="Fetch known rows from the remote.")] = False,
) -> None:
    """Bring every result up to date: what `dvc repro` does, in parallel on warm workers."""
    if pull:
        os.environ[PULL] = "1"
    supervised(partial(_reproduce, study, workers, keep_going))


def _reproduce(study: Path, workers: int, keep_going: bool) -> None:
    start = time.monotonic()
    with one_line_errors(), _prepared(study):
        if not planning.plan(study).needs:
            console.print(FRESH)
            return
        from flows.reproduce import NotMade
        from flows.reproduce import reproduce as flow
        from flows.server import answering

        answering()
        try:
            done = flow(str(study), workers)
        except NotMade as failure:
            if keep_going:
                _draft(study, failure.missing)
            raise
    past = planning.visits(study)
    rows = [
        [
            cell,
            past[cell].wanted if cell in past else "",
            past[cell].computed if cell in past else "",
            filling,
            recording,
        ]
        for cell, filling, recording in done
    ]
    _show("What was made", ["rows", "computed", "seconds computing", "seconds recording"], rows)
    total = time.monotonic() - start
    console.print(f"{len(done)} cells in {total:.0f} s. The report: {study / 'data' / 'report' / 'index.html'}")


@app.command()
def status(study: Study = Path()) -> None:
    """Print which cells are stale and why, how many rows each has to compute, and the expected time.

    If a run is under way, say so: until it ends, DVC holds the study's lock.
    """
    with one_line_errors():
        check(study)
        load(study)
        if process := planning.at_work_now(study):
            typer.echo(f"A run or a pull is under way on {study} (process {process}): ask again when it has ended.")
            return
        found = planning.plan(study)
        if not found.needs:
            console.print(FRESH)
            return
        past = planning.visits(study)
        rows = []
        for cell, reasons in found.reasons.items():
            due = planning.count_missing(study, cell) if not found.needs[cell] else None
            why = reasons[0] + (f" and {len(reasons) - 1} more" if len(reasons) > 1 else "")
            rows.append([cell, why, *planning.expected(due, past.get(cell))])
    _show(f"{len(rows)} stale cells", ["why", "rows to make", "seconds expected"], rows)
    console.print(
        "'?': unknown until its inputs are made. Seconds are estimated from the last run, per row if there are rows."
    )


@app.command()
def serve(
    cron: Annotated[str, typer.Option(help="When to run, in cron format: '0 3 * * *' is every night at three.")],
    study: Study = Path(),
    workers: Workers = CORES,
) -> None:
    """Bring every result up to date on a schedule, until stopped."""
    supervised(partial(_serve, cron, study, workers))


def _serve(cron: str, study: Path, workers: int) -> None:
    with one_line_errors():
        check(study)
        load(study)
        from flows.reproduce import reproduce as flow
        from flows.server import scheduled, scheduling

        scheduled(cron)
        parameters = {"study": str(study.resolve()), "workers": workers}
        with scheduling() as address:
            console.print(f"Runs are scheduled by {address}")
            flow.serve(name="nightly", cron=cron, parameters=parameters, limit=1)


@app.command()
def pull(
    targets: Annotated[list[str] | None, typer.Argument(help="Stages, cells or outputs; by default all.")] = None,
    study: Study = Path(),
) -> None:
    """Fetch outputs from the remote, like `dvc pull`, but never write outside them, whatever the remote says."""
    with one_line_errors(), planning.at_work(study):
        from flows.commands.pull import pull as bring

        done = bring(study, targets or [])
        console.print(", ".join(f"{done[what]} files {what}" for what in ("fetched", "added", "modified", "deleted")))


@app.command()
def clean(study: Study = Path()) -> None:
    """Delete the outputs of entries that params.yaml no longer names."""
    with one_line_errors():
        load(study)
        console.print(f"{_clean(study)} outputs deleted.")


@app.command()
def show(
    image: Annotated[str, typer.Argument(help="The image's name among the evaluation images.")],
    classifier: Annotated[str | None, typer.Option(help="The classifier; by default the first in params.yaml.")] = None,
    methods: Annotated[str, typer.Option(help="Names, separated by commas; by default all.")] = "",
    certified: Annotated[bool, typer.Option("--certified", help="Show the certified pixels below each map.")] = False,
    metric: Annotated[
        str | None, typer.Option(help="With --certified: the metric of votes whose test to use; by default the first.")
    ] = None,
    output: Annotated[Path | None, typer.Option(help="A PNG file; by default IMAGE_CLASSIFIER.png.")] = None,
    study: Study = Path(),
) -> None:
    """Write a picture of an image with its maps and, if asked for, their certified pixels."""
    with one_line_errors():
        from flows.commands.show import show as write

        names = [name.strip() for name in methods.split(",") if name.strip()]
        typer.echo(write(study, image, classifier, names, marked=certified, metric=metric, output=output))


@app.command()
def compare(
    revision: Annotated[str, typer.Argument(help="A Git revision: a commit, a branch, a tag, HEAD~1.")],
    other: Annotated[
        str | None,
        typer.Argument(help="Another revision to compare with; by default the working tree.", show_default=False),
    ] = None,
    csv: Annotated[Path | None, typer.Option(help="Write all rows, changed or not, to this file.")] = None,
    study: Study = Path(),
) -> None:
    """Print what changed in the results since a revision: scores, ranks, counts, significance, settings, entries.

    Two means differ clearly if their intervals do not overlap; there is no correction for the number of means.
    """
    with one_line_errors():
        from flows.commands.compare import compare as print_comparison

        print_comparison(study, revision, other, csv)


def _enough(workers: int) -> int:
    """Reject a number of workers that would wait forever, with a one-line message; typer's `min=1` would draw a box."""
    with one_line_errors():
        if workers < 1:
            raise UserError(f"--workers: {workers}; expected at least 1")
    return workers


@contextmanager
def _prepared(study: Path) -> Iterator[None]:
    """Lock a study, check it, and remove what earlier runs left behind."""
    check(study)
    load(study)
    with planning.at_work(study):
        _clean(study)
        shutil.rmtree(study / ".atlas" / "draft", ignore_errors=True)
        yield


def _draft(study: Path, missing: dict[str, str]) -> None:
    from flows.draft import draft

    try:
        console.print(f"A draft from the existing results: {draft(study, missing)}")
    except Exception as error:  # any error: the failed cells must still be reported
        said = str(error) if isinstance(error, UserError) else one_line(error)
        typer.echo(f"no draft could be made: {said}", err=True)


def _clean(study: Path) -> int:
    gone = planning.clean(study)
    for one in gone:
        console.print(f"no longer named in params.yaml, deleted: {one.relative_to(study)}")
    return len(gone)


def _show(title: str, columns: list[str], rows: Sequence[Sequence[object]]) -> None:
    table = Table(Column("cell", no_wrap=True), *columns, title=title)
    for row in rows:
        table.add_row(*(f"{value:.1f}" if isinstance(value, float) else str(value) for value in row))
    console.print(table)
