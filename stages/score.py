"""Score the maps of one method family for one classifier: `python -m stages.score CLASSIFIER FAMILY`.

Reads that family's maps, and the inputs that each metric declares; writes `data/scores/<classifier>/<family>.zarr` with
a group per metric: score over `method image`, `method image fraction`, `method image threshold` or `method grid tile`.
If a declared input does not exist for the classifier, the group is empty, and its attribute `absent` says why.
"""

import math
from collections import Counter
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from atlas.cache import keys
from atlas.cache.cells import of_cell
from atlas.cache.rows import Rows
from atlas.cache.tables import Table
from atlas.inputs import calls, row_inputs, score_plan
from atlas.inputs.audit.building import load_classifier
from atlas.inputs.metric_inputs import MetricInputs, of_whole_set
from atlas.study.errors import Fault, Unsupported
from atlas.study.params import command, entries, load, path
from atlas.study.schema.settings import Entry
from atlas.study.schema.signatures import signature
from atlas.study.schema.smoothing import Smoothing, check_reach, read_smoothings

if TYPE_CHECKING:
    from torch import Tensor

    from atlas.model.classifier import Classifier


class ScorePlan(NamedTuple):
    """The planned scores of one metric for all methods of the family."""

    metric: Entry
    asks: list[str]  # the inputs that it declares
    smoothings: list[Smoothing]  # those whose votes it scores
    seen: row_inputs.Inputs
    methods: list[str]
    undefined: dict[str, np.ndarray]  # by method: rows with an undefined map or votes
    table: Table


def main(study: Path, classifier: str, family: str) -> None:
    """Compute the missing scores of a cell, then assemble its output."""
    visit(study, classifier, family, finish=True)


def compute_to_journal(study: Path, classifier: str, family: str) -> None:
    """Compute the missing scores of a cell into its journal, without assembling the output: for a warm worker."""
    visit(study, classifier, family, finish=False)


def draft(study: Path, classifier: str, family: str, output: Path, reason: str, unvoted: str | None) -> None:
    """Write the existing scores of a cell that failed elsewhere; a method that lacks some by a metric gets none by it.

    Args:
        study, classifier, family: The cell.
        output: Where to write.
        reason: Why scores are missing, recorded for every method that lacks some.
        unvoted: Why there are no votes; None if there are.
    """
    params = load(study)
    with of_cell(study, params, "score", "scores", classifier, family) as rows:
        tables = []
        for work in plan(study, params, classifier, family, unvoted):
            table = without_unsupported(rows, work)
            gone = set(rows.missing(table) // per_method(work)) if table.keys.any() else set()
            table.keys[list(gone)] = 0
            told = {work.methods[m]: reason for m in gone}
            known = {**table.attrs, "unsupported": {**table.attrs["unsupported"], **told}}
            tables.append(table._replace(attrs=known))
        rows.draft(tables, {"": {"family": family}} | score_plan.absent(study, params, classifier), output)


def count_missing(study: Path, classifier: str, family: str) -> tuple[int, int]:
    """Return the number of scores of a cell, and of those that are missing."""
    params = load(study)
    with of_cell(study, params, "score", "scores", classifier, family, wait=False) as rows:
        return rows.count_missing([without_unsupported(rows, work) for work in plan(study, params, classifier, family)])


def visit(study: Path, classifier: str, family: str, *, finish: bool) -> None:
    """Look up a cell's rows, compute the missing ones, and assemble the output if `finish`.

    If a metric fails, the rows of all others stay in the journal; the cell fails at the end, naming the metric.
    """
    params = load(study)
    with of_cell(study, params, "score", "scores", classifier, family) as rows:
        works = plan(study, params, classifier, family)
        missing = {i: rows.missing(without_unsupported(rows, work)) for i, work in enumerate(works)}
        passes, failures = {}, calls.Failures(rows.cell, "these metrics failed, the rows of all others are kept")
        if any(map(len, missing.values())):
            passes = compute(study, params, classifier, family, works, missing, rows, failures)
        if finish and not failures:
            groups = {"": {"family": family}} | score_plan.absent(study, params, classifier)
            rows.finish([without_unsupported(rows, work) for work in works], groups)
        rows.log(passes)
    failures.end()


def plan(study: Path, params: dict, classifier: str, family: str, unvoted: str | None = None) -> list[ScorePlan]:
    """Return the planned scores with their keys: the digest of the map's bytes, and the metric's declared inputs.

    Args:
        study, params, classifier, family: The cell.
        unvoted: Why no method has votes, if they could not be computed.
    """
    trained = keys.classifier(study, params, classifier)
    seen = row_inputs.gathered(study, classifier, params["seed"])
    certified = read_smoothings(params, {name for listed in params["methods"].values() for name in listed})
    works: list[ScorePlan] = []
    left_out = score_plan.absent(study, params, classifier)

    @cache
    def made(kind: str, method: str, group: str, smoothing: str = "") -> score_plan.Made:
        if smoothing and unvoted is not None:
            return score_plan.Made(np.empty(0), np.empty(0), unvoted, np.empty(0))
        if smoothing and method not in certified[smoothing].methods:
            return score_plan.Made(
                np.empty(0), np.empty(0), f"the smoothing {smoothing} does not certify it", np.empty(0)
            )
        place = f"{smoothing}/{group}" if smoothing else group
        pictures = certified[smoothing].pictures[group] if smoothing else seen[group].lead[0]
        return score_plan.made(path(study, kind, classifier, family, method), place, seen[group], kind, pictures)

    for listed in entries(params, "metrics").values():
        for metric in [one for one in listed.values() if one.name not in left_out]:
            asks = signature("metrics", metric.family, metric.function).inputs
            shown = seen["grids" if "tiles" in asks else "images"]
            smoothings = [certified[name] for name in metric.options["smoothings"]]
            if smoothings:
                check_reach(metric, smoothings[0], classifier, math.prod(shown.side))
            voted = [smoothing.settings for smoothing in smoothings]
            shared = keys.digest(
                keys.entry(metric, params, *calls.parts(metric)), voted, trained if "classifier" in asks else b""
            )
            rows = score_plan.rows(metric, shared, shown, asks, smoothings)
            found, undefined = {}, {}
            for name in score_plan.methods(metric, smoothings, list(params["methods"][family])):
                votes = [made("votes", name, shown.group, smoothing.name) for smoothing in smoothings]
                maps = made("maps", name, shown.group)
                found[name] = score_plan.keyed(maps, votes, rows, asks, shown)
                undefined[name] = score_plan.undefined(maps, votes, asks, len(rows))
            table = score_plan.table(metric, shown, smoothings, found)
            works.append(ScorePlan(metric, asks, smoothings, shown, list(found), undefined, table))
    return works


def compute(
    study: Path,
    params: dict,
    classifier: str,
    family: str,
    works: list[ScorePlan],
    missing: dict[int, np.ndarray],
    rows: Rows,
    failures: calls.Failures,
) -> dict[str, dict[str, int]]:
    """Compute the missing scores batch by batch; return the passes of each metric."""
    engine = params["engine"]
    passes: dict[str, Counter[str]] = {work.metric.name: Counter() for work in works}
    asks = {i: work.asks for i, work in enumerate(works)}
    smoothings = {i: work.smoothings for i, work in enumerate(works)}
    listed = entries(params, "methods")[family]
    wanted = defined(works, missing, list(listed), rows)
    done: set[tuple[int, str, bytes]] = set()

    def attempt() -> None:
        loaded = load_classifier(study, params, classifier)
        for seen in {work.seen.group: work.seen for work in works}.values():
            own = {key: positions for key, positions in wanted.items() if works[key[0]].seen is seen}
            inputs = MetricInputs(
                study, classifier, listed, seen, own, asks, engine, params["stores"]["dtype"], smoothings
            )
            whole = frozenset(key for key in own if of_whole_set(asks[key[0]]))
            batches = row_inputs.batches(own, engine["batch"], seen, engine["device"], whole)
            for (i, method), positions, given in batches:
                work, part = works[i], (i, method, positions.tobytes())
                if part in done or named(work, method) in failures or rows.refusal(token(work, method)) is not None:
                    continue
                before = Counter(loaded.passes)
                try:
                    score(work, i, method, positions, {**given, "classifier": loaded}, inputs, rows)
                    done.add(part)
                except Exception as error:  # any error: the rows of other metrics must not be lost
                    failures.add(named(work, method), error, row_inputs.some(seen, positions))
                    if isinstance(error, Fault):
                        fail(works, error, failures)
                        raise
                finally:
                    passes[work.metric.name].update(Counter(loaded.passes) - before)

    calls.anew(attempt)
    return {name: dict.fromkeys(("forward", "backward", "head"), 0) | found for name, found in passes.items()}


def defined(
    works: list[ScorePlan], missing: dict[int, np.ndarray], methods: list[str], rows: Rows
) -> dict[tuple[int, str], np.ndarray]:
    """Return the rows of each method for which to call a metric; for undefined maps or votes, NaN is journaled."""
    wanted = {}
    for method in methods:  # method by method, so that metrics share cached work such as ranking
        for i, positions in missing.items():
            if method in works[i].methods:
                first = works[i].methods.index(method) * (size := per_method(works[i]))
                own = positions[positions // size * size == first] - first
                without = own[works[i].undefined[method][own]]
                wanted[i, method] = np.setdiff1d(own, without)
                if len(without):
                    scores = np.full((len(without), *works[i].table.fields["score"].shape), np.nan)
                    rows.put(works[i].table, without + first, {"score": scores})
    return wanted


def score(
    work: ScorePlan,
    metric: int,
    method: str,
    positions: np.ndarray,
    given: dict[str, Any],
    inputs: MetricInputs,
    rows: Rows,
) -> None:
    """Score one method's maps of a batch by one metric and journal the scores, or journal why it cannot.

    Args:
        work, metric: The metric's plan, and its index.
        method, positions: The method, and the rows of its maps.
        given: Their inputs, by name.
        inputs: Adds the inputs that the metric declares of the method.
        rows: The store with the journal.
    """
    shape, size = work.table.fields["score"].shape, per_method(work)
    try:
        try:
            provided = inputs.provide(metric, method, size, positions, given)
            scores = judged(calls.scores(work.metric, provided, (len(positions), *shape)))
        except (Fault, Unsupported):
            raise
        except Exception:
            if not inputs.gave_undefined(method):
                raise
        if inputs.gave_undefined(method):
            parts = [one_by_one(work, metric, method, row, given["classifier"], inputs) for row in positions.tolist()]
            scores = np.concatenate(parts)
    except Unsupported as reason:
        rows.refuse(token(work, method), str(reason))
    else:
        rows.put(work.table, positions + work.methods.index(method) * size, {"score": scores})


def one_by_one(
    work: ScorePlan, metric: int, method: str, row: int, classifier: "Classifier", inputs: MetricInputs
) -> np.ndarray:
    """Score one row by itself; undefined if the method, asked by the metric, makes a map that is not finite."""
    shape = work.table.fields["score"].shape
    given = {**row_inputs.of_row(work.seen, row, str(classifier.device)), "classifier": classifier}
    provided, explain = inputs.alone(metric, method, per_method(work), row, given)
    found = np.full((1, *shape), np.nan, "float32")
    try:
        scores = judged(calls.scores(work.metric, provided, (1, *shape)))
    except (Fault, Unsupported):
        raise
    except Exception:
        if not explain.undefined:
            raise
        return found
    return found if explain.undefined else scores


def named(work: ScorePlan, method: str) -> str:
    """Return the label of a metric's scores of a method, for messages."""
    return f"{work.metric.name} ({method})"


def fail(works: list[ScorePlan], fault: Fault, failures: calls.Failures) -> None:
    """After a fault in a method, fail the metrics that would call the same method."""
    for work in works:
        if fault.kind == "methods" and "explain" in work.asks and fault.name in work.methods:
            failures.add(named(work, fault.name), fault)


def without_unsupported(rows: Rows, work: ScorePlan) -> Table:
    """Empty the rows of methods that a metric cannot score on the classifier, and record the reasons."""
    return rows.without_unsupported_by(work.table, {name: token(work, name) for name in work.methods})


def token(work: ScorePlan, method: str) -> bytes:
    """Digest everything that a metric's scores of a method depend on."""
    return keys.digest(work.table.keys[work.methods.index(method)].tobytes())


def judged(scores: "Tensor") -> np.ndarray:
    """Convert a metric's return value to stored scores: the stage's own part of a score."""
    return scores.cpu().numpy()


def per_method(work: ScorePlan) -> int:
    """Return the number of scores per method."""
    return int(np.prod(work.table.keys.shape[1:-1], dtype=int))


if __name__ == "__main__":
    command(main)
