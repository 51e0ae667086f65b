"""Score the maps of one method family for one classifier: `python -m stages.score CLASSIFIER FAMILY`.

Reads that family's maps, and the inputs that each metric declares; writes `data/scores/<classifier>/<family>.zarr` with
for each metric score over `method image` or `method grid tile`, and for a curve over its axis: see
`atlas.cache.score_store`. If a declared input does not exist for the classifier, the attribute `absent` says why.
"""

import math
from collections.abc import Iterator
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from atlas.cache import keys, score_store
from atlas.cache.cells import of_cell
from atlas.cache.rows import RowStore
from atlas.cache.stacks import Stack, place
from atlas.cache.tables import Table
from atlas.inputs import calls, row_inputs, score_plan
from atlas.inputs.cell_runner import Batch, Cell, Part, Stage, Work, run_cell
from atlas.inputs.metric_inputs import MetricInputs, of_whole_set
from atlas.study.command import command
from atlas.study.errors import Fault, Unsupported
from atlas.study.schema.settings import Entry
from atlas.study.schema.signatures import signature
from atlas.study.schema.smoothing import Smoothing, check_reach
from atlas.study.study import Study

if TYPE_CHECKING:
    from torch import Tensor

    from atlas.model.classifier import Classifier


class ScorePlan(NamedTuple):
    """The planned scores of one metric for all methods of the family."""

    metric: Entry
    declared: list[str]  # the inputs that it declares
    smoothings: list[Smoothing]  # those whose votes it scores
    seen: row_inputs.Inputs
    methods: list[str]
    undefined: dict[str, np.ndarray]  # by method: rows with an undefined map or votes
    table: Table


def draft(folder: Path, classifier: str, family: str, output: Path, reason: str, unvoted: str | None) -> None:
    """Write the existing scores of a cell that failed elsewhere; a method that lacks some by a metric gets none by it.

    Args:
        folder, classifier, family: The cell.
        output: Where to write.
        reason: Why scores are missing, recorded for every method that lacks some.
        unvoted: Why there are no votes; None if there are.
    """
    cell = Cell(Study(folder), classifier, family)
    with of_cell(cell.study, STAGE.verb, STAGE.output, classifier, family) as rows:
        tables = []
        plans = plan(cell, unvoted)
        for one in plans:
            table = without_unsupported(rows, one)
            gone = set(rows.missing(table) // per_method(one)) if table.keys.any() else set()
            table.keys[list(gone)] = 0
            message = {one.methods[m]: reason for m in gone}
            known = {**table.attrs, "unsupported": {**table.attrs["unsupported"], **message}}
            tables.append(table._replace(attrs=known))
        rows.draft(stacks(cell, plans, tables), groups(cell, plans), output)


def plan(cell: Cell, unvoted: str | None = None) -> list[ScorePlan]:
    """Return the planned scores with their keys: the digest of the map's bytes, and the metric's declared inputs.

    Args:
        cell: The cell.
        unvoted: Why no method has votes, if they could not be computed.
    """
    study, classifier, family = cell
    trained = keys.classifier(study, classifier)
    seen = row_inputs.gathered(study, classifier)
    certified = study.smoothings
    plans: list[ScorePlan] = []
    left_out = score_plan.absent(study, classifier)

    @cache
    def maps_of(method: str, group: str) -> score_plan.StoredRows:
        where = place(study.path("maps", classifier, family), group, method, "maps")
        return score_plan.stored_rows(where, seen[group], "maps", seen[group].lead[0])

    @cache
    def votes_on(method: str, group: str, name: str) -> score_plan.StoredRows:
        smoothing = certified[name]
        absent = None if method in smoothing.methods else f"the smoothing {name} does not certify it"
        if (reason := absent if unvoted is None else unvoted) is not None:
            return score_plan.StoredRows(np.empty(0), np.empty(0), reason, np.empty(0))
        where = place(study.path("votes", classifier, family), *smoothing.stored_as(method, group), "votes")
        return score_plan.stored_rows(where, seen[group], "votes", smoothing.pictures[group])

    for listed in study.metrics.values():
        for metric in [one for one in listed.values() if one.name not in left_out]:
            declared = signature("metrics", metric.family, metric.function).inputs
            shown = seen["grids" if "tiles" in declared else "images"]
            smoothings = [certified[name] for name in metric.options["smoothings"]]
            if smoothings:
                check_reach(metric, smoothings[0], classifier, math.prod(shown.side))
            voted = [smoothing.settings for smoothing in smoothings]
            shared = keys.digest(
                keys.entry(metric, study, *calls.parts(metric)), voted, trained if "classifier" in declared else b""
            )
            rows = score_plan.rows(metric, shared, shown, declared, smoothings)
            found, undefined = {}, {}
            for name in score_plan.methods(metric, smoothings, list(study.methods[family])):
                votes = [votes_on(name, shown.group, smoothing.name) for smoothing in smoothings]
                maps = maps_of(name, shown.group)
                found[name] = score_plan.keyed(maps, votes, rows, declared, shown)
                undefined[name] = score_plan.undefined(maps, votes, declared, len(rows))
            table = score_plan.table(metric, shown, smoothings, found)
            plans.append(ScorePlan(metric, declared, smoothings, shown, list(found), undefined, table))
    return plans


def batches(work: Work, classifier: "Classifier") -> Iterator[Batch]:
    """Yield the missing scores batch by batch."""
    study, _, family = work.cell
    engine, listed = study.engine, study.methods[family]
    declared = {i: plan.declared for i, plan in enumerate(work.plans)}
    smoothings = {i: plan.smoothings for i, plan in enumerate(work.plans)}
    wanted = defined(work, list(listed))
    for seen in {plan.seen.group: plan.seen for plan in work.plans}.values():
        own = {key: positions for key, positions in wanted.items() if work.plans[key[0]].seen is seen}
        inputs = MetricInputs(study, work.cell.classifier, listed, seen, own, declared, engine, study.dtype, smoothings)
        whole = {key: declared[key[0]] for key in own if of_whole_set(declared[key[0]])}
        for (i, method), positions, given in row_inputs.batches(own, engine["batch"], seen, engine["device"], whole):
            plan = work.plans[i]
            part = Part(name(plan, method), (i, method, positions.tobytes()), token(plan, method))
            if work.pending(part):
                make = partial(
                    score, plan, i, method, positions, {**given, "classifier": classifier}, inputs, work.rows
                )
                failing = partial(at_fault, work.plans, part.name)
                yield Batch([part], make, row_inputs.some(seen, positions), plan.metric.name, failing)


def defined(work: Work, methods: list[str]) -> dict[tuple[int, str], np.ndarray]:
    """Return the rows of each method for which to call a metric; for undefined maps or votes, NaN is journaled."""
    wanted = {}
    for method in methods:  # method by method, so that metrics share cached work such as ranking
        for i, positions in work.missing.items():
            plan = work.plans[i]
            if method in plan.methods:
                first = plan.methods.index(method) * (size := per_method(plan))
                own = positions[positions // size * size == first] - first
                without = own[plan.undefined[method][own]]
                wanted[i, method] = np.setdiff1d(own, without)
                if len(without) and (i, method) not in work.done:
                    scores = np.full((len(without), *plan.table.fields["score"].shape), np.nan)
                    work.rows.put(plan.table, without + first, {"score": scores})
                    work.done.add((i, method))
    return wanted


def score(
    plan: ScorePlan,
    metric: int,
    method: str,
    positions: np.ndarray,
    given: dict[str, Any],
    inputs: MetricInputs,
    rows: RowStore,
) -> None:
    """Score one method's maps of a batch by one metric and journal the scores, or journal why it cannot.

    Args:
        plan, metric: The metric's plan, and its index.
        method, positions: The method, and the rows of its maps.
        given: Their inputs, by name.
        inputs: Adds the inputs that the metric declares of the method.
        rows: The store with the journal.
    """
    shape, size = plan.table.fields["score"].shape, per_method(plan)
    try:
        try:
            provided = inputs.provide(metric, method, size, positions, given)
            scores = to_stored(calls.scores(plan.metric, provided, (len(positions), *shape)))
        except (Fault, Unsupported):
            raise
        except Exception:
            if not inputs.gave_undefined(method):
                raise
        if inputs.gave_undefined(method):
            parts = [one_by_one(plan, metric, method, row, given["classifier"], inputs) for row in positions.tolist()]
            scores = np.concatenate(parts)
    except Unsupported as reason:
        rows.refuse(token(plan, method), str(reason))
    else:
        rows.put(plan.table, positions + plan.methods.index(method) * size, {"score": scores})


def one_by_one(
    plan: ScorePlan, metric: int, method: str, row: int, classifier: "Classifier", inputs: MetricInputs
) -> np.ndarray:
    """Score one row by itself; undefined if the method, asked by the metric, makes a map that is not finite."""
    shape = plan.table.fields["score"].shape
    given = {**row_inputs.of_row(plan.seen, row, str(classifier.device)), "classifier": classifier}
    provided, explain = inputs.alone(metric, method, per_method(plan), row, given)
    found = np.full((1, *shape), np.nan, "float32")
    try:
        scores = to_stored(calls.scores(plan.metric, provided, (1, *shape)))
    except (Fault, Unsupported):
        raise
    except Exception:
        if not explain.undefined:
            raise
        return found
    return found if explain.undefined else scores


def name(plan: ScorePlan, method: str) -> str:
    """Return the label of a metric's scores of a method, for messages."""
    return f"{plan.metric.name} ({method})"


def at_fault(plans: list[ScorePlan], part: str, error: Exception) -> list[str]:
    """Return which scores failed: after a fault in a method, those of all metrics that would call the same method."""
    if not isinstance(error, Fault) or error.kind != "methods":
        return [part]
    return [
        part,
        *(name(plan, error.name) for plan in plans if "explain" in plan.declared and error.name in plan.methods),
    ]


def without_unsupported(rows: RowStore, plan: ScorePlan) -> Table:
    """Empty the rows of methods that a metric cannot score on the classifier, and record the reasons."""
    return rows.without_unsupported_by(plan.table, {method: token(plan, method) for method in plan.methods})


def token(plan: ScorePlan, method: str) -> bytes:
    """Digest everything that a metric's scores of a method depend on."""
    return keys.digest(plan.table.keys[plan.methods.index(method)].tobytes())


def to_stored(scores: "Tensor") -> np.ndarray:
    """Convert a metric's return value to stored scores: the stage's own part of a score."""
    return scores.cpu().numpy()


def per_method(plan: ScorePlan) -> int:
    """Return the number of scores per method."""
    return int(np.prod(plan.table.keys.shape[1:-1], dtype=int))


def stacks(cell: Cell, plans: list[ScorePlan], tables: list[Table]) -> list[Stack]:
    """Stack the scores of all metrics of images, and those of all metrics of grids."""
    seen = {plan.seen.group: plan.seen for plan in plans}
    named: dict[str, list[Table]] = {group: [] for group in seen}
    for plan, table in zip(plans, tables, strict=True):
        named[plan.seen.group].append(table)
    methods = list(cell.study.methods[cell.family])
    return [score_store.stacked(group, own, methods, seen[group].coords) for group, own in named.items()]


def groups(cell: Cell, plans: list[ScorePlan]) -> dict[str, dict]:
    """Return the attributes of the cell's store."""
    return {"": {"family": cell.family, "absent": score_plan.absent(cell.study, cell.classifier)}}


STAGE = Stage(
    "score",
    "scores",
    plan,
    batches,
    groups,
    without_unsupported=without_unsupported,
    stacks=stacks,
    failure_message="these metrics failed, the rows of all others are kept",
)
main = partial(run_cell, STAGE)

if __name__ == "__main__":
    command(main, "classifier", "family")
