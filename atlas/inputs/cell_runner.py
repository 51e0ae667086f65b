"""Run a cell: plan its rows, look for those that are known, make the others, assemble the output, log what it took.

A stage says what is its own, in a `Stage`: which rows there are to be, and how a batch of them is made. The runner
stands with the inputs and not with the cache: it loads the classifier and, where a call was at fault, has all inputs
made anew.
"""

from collections.abc import Callable, Hashable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from atlas.cache.cells import of_cell
from atlas.cache.rows import Rows
from atlas.cache.tables import Table
from atlas.inputs import calls
from atlas.inputs.audit.building import load_classifier
from atlas.study.errors import Fault
from atlas.study.params import load

if TYPE_CHECKING:
    from atlas.model.classifier import Classifier


class Cell(NamedTuple):
    """A stage's work on one classifier, and on one family of methods where the stage has a cell for each."""

    study: Path
    params: dict
    classifier: str
    family: str = ""

    @property
    def names(self) -> list[str]:
        """Return what the cell is called by."""
        return [self.classifier, self.family] if self.family else [self.classifier]


class Part(NamedTuple):
    """Missing rows of one function that a batch makes.

    name: Of the function, as failures tell it.
    rows: Which rows; no two parts of a cell have the same.
    token: What all its rows share: where it cannot serve the classifier that is journaled under it.
    """

    name: str
    rows: Hashable
    token: bytes = b""


class Batch(NamedTuple):
    """Rows that are made by one call.

    parts: Whose.
    make: Makes and journals them.
    images: A few of them, for a message.
    passes: Under which name the passes it takes are counted; not at all where it counts them itself.
    failing: Names who failed, by what was raised; all parts where it is not given.
    """

    parts: list[Part]
    make: Callable[[], None]
    images: str = ""
    passes: str = ""
    failing: Callable[[Exception], list[str]] | None = None


class Work(NamedTuple):
    """What there is to be made of a cell, and what is made of it.

    plans: What the stage has planned.
    missing: Positions of the missing rows, by the number of their plan.
    rows: Where they are journaled.
    failures: Who failed until now.
    passes: What was counted until now, by name.
    done: The rows of the parts that are made.
    """

    cell: Cell
    plans: list[Any]
    missing: dict[int, np.ndarray]
    rows: Rows
    failures: calls.Failures
    passes: dict[str, dict[str, int]]
    done: set[Hashable]

    def pending(self, part: Part) -> bool:
        """Return whether a part is still to be made: neither made, nor failed, nor known to be impossible."""
        if part.rows in self.done or part.name in self.failures:
            return False
        return not part.token or self.rows.refusal(part.token) is None


class Stage(NamedTuple):
    """What a stage that computes with a classifier says of its cells.

    verb: Its name.
    output: The kind of its output.
    plan: Returns which rows there are to be: plans, each with its `table`, and what the stage needs to make its rows.
    batches: Yields batches of the missing rows, of parts that are pending; each is made before the next is asked for.
    groups: Returns the attributes of the output's groups that hold groups.
    served: Returns the table of a plan without the rows that are known to be impossible.
    kept: Is said of those who fail, and of all others, whose rows are kept. Where it is empty the first failure ends
        the cell, as it is.
    assembled: Is called with the tables when the output is in place.
    batch: Images of a batch, in place of the study's.
    """

    verb: str
    output: str
    plan: Callable[[Cell], list[Any]]
    batches: Callable[[Work, "Classifier"], Iterator[Batch]]
    groups: Callable[[Cell, list[Any]], dict[str, dict]] = lambda cell, plans: {}
    served: Callable[[Rows, Any], Table] = lambda rows, plan: plan.table
    kept: str = ""
    assembled: Callable[[Cell, list[Table]], None] = lambda cell, tables: None
    batch: int | None = None


def run_cell(stage: Stage, study: Path, *names: str, finish: bool = True) -> None:
    """Make the missing rows of a cell, then assemble its output.

    A function that fails leaves the rows of all others in the journal; the cell fails at the end, naming it.

    Args:
        stage: Whose cell.
        study: The folder of params.yaml.
        names: The cell's classifier, and family of methods.
        finish: Whether to assemble the output; else rows are left in the journal, as by a warm worker.

    Raises:
        UserError: a function failed, or something that the rows depend on is not there or was edited meanwhile.
    """
    cell = Cell(study, load(study), *names)
    with of_cell(study, cell.params, stage.verb, stage.output, *names) as rows:
        plans = stage.plan(cell)
        missing = {number: rows.missing(stage.served(rows, plan)) for number, plan in enumerate(plans)}
        work = Work(cell, plans, missing, rows, calls.Failures(rows.cell, stage.kept), {}, set())
        if any(map(len, missing.values())):
            while not compute(stage, work):
                calls.forget()
        if finish and not work.failures:
            tables = [stage.served(rows, plan) for plan in plans]
            rows.finish(tables, stage.groups(cell, plans))
            stage.assembled(cell, tables)
        rows.log(work.passes)
    work.failures.end()


def count_missing(stage: Stage, study: Path, *names: str) -> tuple[int, int]:
    """Count the rows that a cell is to hold, and those that are to be made.

    Raises:
        BlockingIOError: another process has the cell.
    """
    cell = Cell(study, load(study), *names)
    with of_cell(study, cell.params, stage.verb, stage.output, *names, wait=False) as rows:
        return rows.count_missing([stage.served(rows, plan) for plan in stage.plan(cell)])


def compute(stage: Stage, work: Work) -> bool:
    """Make the missing rows batch by batch; return False as soon as a call was at fault, which may have spoiled others.

    Then what is remembered is to be forgotten, and this is to be called again: it makes what is pending still, with the
    classifier loaded and all inputs made anew.
    """
    params = work.cell.params
    engine = params["engine"] if stage.batch is None else {**params["engine"], "batch": stage.batch}
    classifier = load_classifier(work.cell.study, {**params, "engine": engine}, work.cell.classifier)
    for batch in stage.batches(work, classifier):
        before = dict(classifier.passes)
        try:
            batch.make()
            work.done.update(part.rows for part in batch.parts)
        except Exception as error:  # whatever it is, the rows of other functions must not be lost to it
            if not stage.kept:
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
