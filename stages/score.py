"""Score the maps of one method family for one classifier: `python -m stages.score CLASSIFIER FAMILY`.

Reads that family's maps, and the evidence that each metric names; writes `data/scores/<classifier>/<family>.zarr` with
a group per metric: score over `method image`, `method image fraction`, `method image threshold` or `method grid tile`.
Where there is none of the evidence that a metric names its group is empty, and the attribute `absent` says why.
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
from atlas.inputs import calls, evidence, judging
from atlas.inputs.audit.building import load_classifier
from atlas.inputs.lending import Lender, of_whole_set
from atlas.study.params import command, entries, load, path
from atlas.study.problem import Fault, Unsupported
from atlas.study.schema.settings import Entry
from atlas.study.schema.signatures import signature
from atlas.study.schema.smoothing import Smoothing, check_reach, smoothings

if TYPE_CHECKING:
    from torch import Tensor

    from atlas.model.classifier import Classifier


class Work(NamedTuple):
    """One metric over all methods of the family."""

    metric: Entry
    asks: list[str]  # the evidence it names
    ways: list[Smoothing]  # whose votes it judges
    seen: evidence.Evidence
    methods: list[str]
    undefined: dict[str, np.ndarray]  # by method: rows whose map, or whose votes, are
    table: Table


def main(study: Path, classifier: str, family: str) -> None:
    """Compute the missing scores of a cell, then assemble its output."""
    visit(study, classifier, family, finish=True)


def fill(study: Path, classifier: str, family: str) -> None:
    """Compute the missing scores of a cell and leave them in its journal: what a warm worker does."""
    visit(study, classifier, family, finish=False)


def draft(study: Path, classifier: str, family: str, output: Path, reason: str, unvoted: str | None) -> None:
    """Write what scores there are of a cell that failed elsewhere; a method that lacks some by a metric has none by it.

    Args:
        study, classifier, family: The cell.
        output: Where to write.
        reason: Why scores are missing, told of every method that lacks some.
        unvoted: Why there are no votes, if so.
    """
    params = load(study)
    with of_cell(study, params, "score", "scores", classifier, family) as rows:
        tables = []
        for work in plan(study, params, classifier, family, unvoted):
            table = served(rows, work)
            gone = set(rows.missing(table) // per_method(work)) if table.keys.any() else set()
            table.keys[list(gone)] = 0
            told = {work.methods[m]: reason for m in gone}
            known = {**table.attrs, "unsupported": {**table.attrs["unsupported"], **told}}
            tables.append(table._replace(attrs=known))
        rows.draft(tables, {"": {"family": family}} | judging.absent(study, params, classifier), output)


def due(study: Path, classifier: str, family: str) -> tuple[int, int]:
    """Count the scores that a cell is to hold, and those that are to be computed."""
    params = load(study)
    with of_cell(study, params, "score", "scores", classifier, family, wait=False) as rows:
        return rows.due([served(rows, work) for work in plan(study, params, classifier, family)])


def visit(study: Path, classifier: str, family: str, *, finish: bool) -> None:
    """Look for a cell's rows, make what is missing, and assemble the output where asked.

    A metric that fails leaves the rows of all others in the journal; the cell fails at the end, naming it.
    """
    params = load(study)
    with of_cell(study, params, "score", "scores", classifier, family) as rows:
        works = plan(study, params, classifier, family)
        missing = {i: rows.missing(served(rows, work)) for i, work in enumerate(works)}
        passes, failures = {}, calls.Failures(rows.cell, "these metrics failed, the rows of all others are kept")
        if any(map(len, missing.values())):
            passes = compute(study, params, classifier, family, works, missing, rows, failures)
        if finish and not failures:
            groups = {"": {"family": family}} | judging.absent(study, params, classifier)
            rows.finish([served(rows, work) for work in works], groups)
        rows.log(passes)
    failures.end()


def plan(study: Path, params: dict, classifier: str, family: str, unvoted: str | None = None) -> list[Work]:
    """Say which scores there are to be, by key: the digest of the map's bytes, and the evidence the metric names.

    Args:
        study, params, classifier, family: The cell.
        unvoted: Why no method has votes, where they could not be cast.
    """
    trained = keys.classifier(study, params, classifier)
    seen = evidence.gathered(study, classifier, params["seed"])
    certified = smoothings(params, {name for listed in params["methods"].values() for name in listed})
    works: list[Work] = []
    left_out = judging.absent(study, params, classifier)

    @cache
    def made(kind: str, method: str, group: str, way: str = "") -> judging.Made:
        if way and unvoted is not None:
            return judging.Made(np.empty(0), np.empty(0), unvoted, np.empty(0))
        if way and method not in certified[way].methods:
            return judging.Made(np.empty(0), np.empty(0), f"the smoothing {way} does not certify it", np.empty(0))
        place = f"{way}/{group}" if way else group
        pictures = certified[way].pictures[group] if way else seen[group].lead[0]
        return judging.made(path(study, kind, classifier, family, method), place, seen[group], kind, pictures)

    for listed in entries(params, "metrics").values():
        for metric in [one for one in listed.values() if one.name not in left_out]:
            asks = signature("metrics", metric.family, metric.function).evidence
            shown = seen["grids" if "tiles" in asks else "images"]
            ways = [certified[name] for name in metric.options["smoothings"]]
            if ways:
                check_reach(metric, ways[0], classifier, math.prod(shown.side))
            voted = [way.settings for way in ways]
            shared = keys.digest(
                keys.entry(metric, params, *calls.parts(metric)), voted, trained if "classifier" in asks else b""
            )
            rows = judging.rows(metric, shared, shown, asks, ways)
            found, undefined = {}, {}
            for name in judging.methods(metric, ways, list(params["methods"][family])):
                votes = [made("votes", name, shown.group, way.name) for way in ways]
                maps = made("maps", name, shown.group)
                found[name] = judging.keyed(maps, votes, rows, asks, shown)
                undefined[name] = judging.undefined(maps, votes, asks, len(rows))
            table = judging.table(metric, shown, ways, found)
            works.append(Work(metric, asks, ways, shown, list(found), undefined, table))
    return works


def compute(
    study: Path,
    params: dict,
    classifier: str,
    family: str,
    works: list[Work],
    missing: dict[int, np.ndarray],
    rows: Rows,
    failures: calls.Failures,
) -> dict[str, dict[str, int]]:
    """Compute the missing scores batch by batch; give the passes of each metric."""
    engine = params["engine"]
    passes: dict[str, Counter[str]] = {work.metric.name: Counter() for work in works}
    asks = {i: work.asks for i, work in enumerate(works)}
    ways = {i: work.ways for i, work in enumerate(works)}
    listed = entries(params, "methods")[family]
    wanted = defined(works, missing, list(listed), rows)
    done: set[tuple[int, str, bytes]] = set()

    def attempt() -> None:
        loaded = load_classifier(study, params, classifier)
        for seen in {work.seen.group: work.seen for work in works}.values():
            own = {key: positions for key, positions in wanted.items() if works[key[0]].seen is seen}
            lender = Lender(study, classifier, listed, seen, own, asks, engine, params["stores"]["dtype"], ways)
            whole = frozenset(key for key in own if of_whole_set(asks[key[0]]))
            batches = evidence.batches(own, engine["batch"], seen, engine["device"], whole)
            for (i, method), positions, given in batches:
                work, part = works[i], (i, method, positions.tobytes())
                if part in done or named(work, method) in failures or rows.refusal(token(work, method)) is not None:
                    continue
                before = Counter(loaded.passes)
                try:
                    score(work, i, method, positions, {**given, "classifier": loaded}, lender, rows)
                    done.add(part)
                except Exception as error:  # whatever it is, the rows of other metrics must not be lost to it
                    failures.add(named(work, method), error, evidence.some(seen, positions))
                    if isinstance(error, Fault):
                        fail(works, error, failures)
                        raise
                finally:
                    passes[work.metric.name].update(Counter(loaded.passes) - before)

    calls.anew(attempt)
    return {name: dict.fromkeys(("forward", "backward", "head"), 0) | found for name, found in passes.items()}


def defined(
    works: list[Work], missing: dict[int, np.ndarray], methods: list[str], rows: Rows
) -> dict[tuple[int, str], np.ndarray]:
    """Say which rows of each method a metric is to be called for; those of undefined maps and votes are journaled."""
    wanted = {}
    for method in methods:  # metric by metric of each: what is ranked once serves all
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
    work: Work, metric: int, method: str, positions: np.ndarray, given: dict[str, Any], lender: Lender, rows: Rows
) -> None:
    """Score one method's maps of a batch by one metric and journal the scores, or journal why it cannot.

    Args:
        work, metric: The metric, and its number.
        method, positions: Whose maps, and which of them.
        given: Their evidence, by name.
        lender: Adds what the metric names of the method.
        rows: Where scores are journaled.
    """
    shape, size = work.table.fields["score"].shape, per_method(work)
    try:
        try:
            lent = lender.lend(metric, method, size, positions, given)
            scores = judged(calls.scores(work.metric, lent, (len(positions), *shape)))
        except (Fault, Unsupported):
            raise
        except Exception:
            if not lender.gave_undefined(method):
                raise
        if lender.gave_undefined(method):
            parts = [one_by_one(work, metric, method, row, given["classifier"], lender) for row in positions.tolist()]
            scores = np.concatenate(parts)
    except Unsupported as reason:
        rows.refuse(token(work, method), str(reason))
    else:
        rows.put(work.table, positions + work.methods.index(method) * size, {"score": scores})


def one_by_one(work: Work, metric: int, method: str, row: int, classifier: "Classifier", lender: Lender) -> np.ndarray:
    """Score one row by itself; it has no score if the method, asked by the metric, gives a map that is not finite."""
    shape = work.table.fields["score"].shape
    given = {**evidence.of_row(work.seen, row, str(classifier.device)), "classifier": classifier}
    lent, explain = lender.alone(metric, method, per_method(work), row, given)
    found = np.full((1, *shape), np.nan, "float32")
    try:
        scores = judged(calls.scores(work.metric, lent, (1, *shape)))
    except (Fault, Unsupported):
        raise
    except Exception:
        if not explain.undefined:
            raise
        return found
    return found if explain.undefined else scores


def named(work: Work, method: str) -> str:
    """Name a metric's scores of a method."""
    return f"{work.metric.name} ({method})"


def fail(works: list[Work], fault: Fault, failures: calls.Failures) -> None:
    """Call no metric any more that would call the method whose call was at fault."""
    for work in works:
        if fault.kind == "methods" and "explain" in work.asks and fault.name in work.methods:
            failures.add(named(work, fault.name), fault)


def served(rows: Rows, work: Work) -> Table:
    """Empty the rows of methods that a metric cannot judge on the classifier, and say why of each."""
    return rows.served_by(work.table, {name: token(work, name) for name in work.methods})


def token(work: Work, method: str) -> bytes:
    """Digest what a metric's scores of a method depend on."""
    return keys.digest(work.table.keys[work.methods.index(method)].tobytes())


def judged(scores: "Tensor") -> np.ndarray:
    """Take what a metric gave: the verb's part of a score."""
    return scores.cpu().numpy()


def per_method(work: Work) -> int:
    """Say how many scores a method has by this metric."""
    return int(np.prod(work.table.keys.shape[1:-1], dtype=int))


if __name__ == "__main__":
    command(main)
