"""Run a cell: plan its rows, look up the known ones, compute the missing ones, assemble the output, log the passes.

A stage defines what is its own in a `Stage`: which rows its cells have, and how a batch of them is computed. The runner
is in this package and not in `atlas.cache`: it loads the classifier, and after a fault provides all inputs anew.
"""

from collections.abc import Callable, Hashable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from atlas.cache.cells import of_cell
from atlas.cache.rows import RowStore
from atlas.cache.stacks import Stack, alone
from atlas.cache.tables import Table
from atlas.inputs import calls
from atlas.inputs.audit.building import load_classifier
from atlas.study.errors import Edited, Fault
from atlas.study.study import Study

if TYPE_CHECKING:
    from atlas.model.classifier import Classifier


class Cell(NamedTuple):
    """A stage's work on one classifier, and on one family of methods if the stage has a cell for each."""

    study: Study
    classifier: str
    family: str = ""

    @property
    def names(self) -> list[str]:
        """Return the names that identify the cell, as on the command line."""
        return [self.classifier, self.family] if self.family else [self.classifier]


class Part(NamedTuple):
    """The rows of one function in a batch.

    name: The function's name in messages about failures.
    rows: Identifies the rows; no two parts of a cell have the same.
    token: Digest of what all rows of the function share: the journal records under it that a classifier is unsupported.
    """

    name: str
    rows: Hashable
    token: bytes = b""


class Batch(NamedTuple):
    """Rows that one call computes.

    parts: The parts that it consists of.
    make: Computes and journals them.
    images: A few of the images, for messages.
    passes: The name under which its passes are counted; empty if `make` counts them itself.
    failing: Returns the names of what failed, from the exception; None for all parts.
    """

    parts: list[Part]
    make: Callable[[], None]
    images: str = ""
    passes: str = ""
    failing: Callable[[Exception], list[str]] | None = None


class Work(NamedTuple):
    """The progress of a cell.

    cell: The cell.
    plans: The stage's plans.
    missing: Positions of the missing rows, by index of their plan.
    rows: The store with the journal.
    failures: What has failed so far.
    passes: The passes counted so far, by name.
    done: `Part.rows` of the computed parts.
    """

    cell: Cell
    plans: list[Any]
    missing: dict[int, np.ndarray]
    rows: RowStore
    failures: calls.Failures
    passes: dict[str, dict[str, int]]
    done: set[Hashable]

    def pending(self, part: Part) -> bool:
        """Return whether a part is still to be computed: neither done, nor failed, nor recorded as unsupported."""
        if part.rows in self.done or part.name in self.failures:
            return False
        return not part.token or self.rows.refusal(part.token) is None


class Stage(NamedTuple):
    """A stage that computes with a classifier.

    verb: Its name.
    output: The kind of its output.
    plan: Returns the plans of a cell, each with its `table`, and whatever `batches` needs to compute its rows.
    batches: Yields batches of the missing rows that are pending; each is computed before the next is requested.
    groups: Returns the attributes of the output's groups that contain groups.
    without_unsupported: Returns the table of a plan without rows recorded as unsupported.
    failure_message: The message when some functions fail and the rows of all others are kept. If empty, the first
        failure ends the cell with its own exception.
    assembled: Called with the tables when the output is in place.
    batch: The images per batch, if not the study's.
    stacks: Returns how the tables lie in the output.
    """

    verb: str
    output: str
    plan: Callable[[Cell], list[Any]]
    batches: Callable[[Work, "Classifier"], Iterator[Batch]]
    groups: Callable[[Cell, list[Any]], dict[str, dict]] = lambda cell, plans: {}
    without_unsupported: Callable[[RowStore, Any], Table] = lambda rows, plan: plan.table
    failure_message: str = ""
    assembled: Callable[[Cell, list[Table]], None] = lambda cell, tables: None
    batch: int | None = None
    stacks: Callable[[Cell, list[Any], list[Table]], list[Stack]] = lambda cell, plans, tables: [*map(alone, tables)]


def run_cell(stage: Stage, folder: Path, *names: str) -> None:
    """Compute the missing rows of a cell, then assemble its output.

    If a function fails, the rows of all others stay in the journal; the cell fails at the end, naming the function.

    Args:
        stage: The cell's stage.
        folder: The folder of params.yaml.
        names: The cell's classifier, and family of methods.

    Raises:
        UserError: a function failed, or an input of the rows is absent or was edited meanwhile.
    """
    cell = Cell(Study(folder), *names)
    cell.study.check_names(**dict(zip(("classifier", "family"), names, strict=False)))
    with of_cell(cell.study, stage.verb, stage.output, *names) as rows:
        plans = stage.plan(cell)
        missing = {number: rows.missing(stage.without_unsupported(rows, plan)) for number, plan in enumerate(plans)}
        work = Work(cell, plans, missing, rows, calls.Failures(rows.cell, stage.failure_message), {}, set())
        if any(map(len, missing.values())):
            while not compute(stage, work):
                calls.forget()
        if not work.failures:
            tables = [stage.without_unsupported(rows, plan) for plan in plans]
            rows.finish(stage.stacks(cell, plans, tables), stage.groups(cell, plans))
            stage.assembled(cell, tables)
        rows.log(work.passes)
    work.failures.end()


def count_missing(stage: Stage, folder: Path, *names: str) -> tuple[int, int]:
    """Return the number of rows of a cell, and of those that are missing.

    Raises:
        BlockingIOError: another process is computing the cell.
    """
    cell = Cell(Study(folder), *names)
    with of_cell(cell.study, stage.verb, stage.output, *names, wait=False) as rows:
        return rows.count_missing([stage.without_unsupported(rows, plan) for plan in stage.plan(cell)])


def compute(stage: Stage, work: Work) -> bool:
    """Compute the missing rows batch by batch; return False at the first fault, which may have spoiled caches.

    The caller then clears all caches and calls again: the pending rows are computed with the classifier loaded, and all
    inputs provided, anew.
    """
    study = work.cell.study
    engine = study.engine if stage.batch is None else {**study.engine, "batch": stage.batch}
    classifier = load_classifier(study, work.cell.classifier, engine)
    for batch in stage.batches(work, classifier):
        before = dict(classifier.passes)
        try:
            batch.make()
            work.done.update(part.rows for part in batch.parts)
        except Edited:
            raise
        except Exception as error:  # any other error: the rows of other functions must not be lost
            if not stage.failure_message:
                raise
            for name in batch.failing(error) if batch.failing else [part.name for part in batch.parts]:
                work.failures.add(name, error, batch.images)
            if isinstance(error, Fault):
                return False
        finally:
            if batch.passes:
                count = work.passes.setdefault(batch.passes, dict.fromkeys(before, 0))
                for kind, number in classifier.passes.items():
                    count[kind] += number - before[kind]
    return True
