"""Score the maps of one method family for one classifier: `python -m stages.score CLASSIFIER FAMILY`.

Reads that family's maps, and the evidence that each metric names; writes `data/scores/<classifier>/<family>.zarr` with
a group per metric: score over `method image`, `method image fraction`, `method image threshold` or `method grid tile`.
"""

import math
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from stages.cache import keys
from stages.cache.rows import Rows, of_cell
from stages.cache.tables import Table
from stages.inputs import evidence, judging
from stages.inputs.evidence import Evidence
from stages.inputs.judging import Made
from stages.inputs.lending import Lender, of_whole_set
from stages.study.params import command, entries, find, load, path
from stages.study.problem import Problem
from stages.study.settings import Entry
from stages.study.signatures import signature
from stages.study.smoothing import Smoothing, check_reach, smoothings


class Work(NamedTuple):
    """One metric over all methods of the family."""

    metric: Entry
    asks: list[str]  # the evidence it names
    ways: list[Smoothing]  # whose votes it judges
    seen: Evidence
    methods: list[str]
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
            absent = set(rows.missing(table) // per_method(work)) if table.keys.any() else set()
            table.keys[list(absent)] = 0
            told = {work.methods[m]: reason for m in absent}
            known = {**table.attrs, "unsupported": {**table.attrs["unsupported"], **told}}
            tables.append(table._replace(attrs=known))
        rows.draft(tables, {"": {"family": family}}, output)


def due(study: Path, classifier: str, family: str) -> tuple[int, int]:
    """Count the scores that a cell is to hold, and those that are to be computed."""
    params = load(study)
    with of_cell(study, params, "score", "scores", classifier, family, wait=False) as rows:
        return rows.due([served(rows, work) for work in plan(study, params, classifier, family)])


def visit(study: Path, classifier: str, family: str, *, finish: bool) -> None:
    """Look for a cell's rows, make what is missing, and assemble the output where asked.

    A metric that raises leaves the rows of all others in the journal; the cell fails at the end, naming it.
    """
    params = load(study)
    with of_cell(study, params, "score", "scores", classifier, family) as rows:
        works = plan(study, params, classifier, family)
        missing = {i: rows.missing(served(rows, work)) for i, work in enumerate(works)}
        passes, failed = {}, {}
        if any(map(len, missing.values())):
            passes, failed = compute(study, params, classifier, family, works, missing, rows)
        if finish and not failed:
            rows.finish([served(rows, work) for work in works], {"": {"family": family}})
        rows.log(passes)
    if failed:
        told = "; ".join(f"{name}: {error}" for name, error in failed.items())
        raise Problem(f"{rows.cell}: these metrics failed, the rows of all others are kept: {told}")


def plan(study: Path, params: dict, classifier: str, family: str, unvoted: str | None = None) -> list[Work]:
    """Say which scores there are to be, by key: the digest of the map's bytes, and the evidence the metric names.

    Args:
        study, params, classifier, family: The cell.
        unvoted: Why no method has votes, where they could not be cast.
    """
    trained = keys.classifier(study, params, classifier)
    seen = {
        "images": evidence.images(study, classifier, params["seed"]),
        "grids": evidence.grids(study, classifier, params["seed"]),
    }
    certified = smoothings(params, {name for listed in params["methods"].values() for name in listed})
    works: list[Work] = []

    @cache
    def made(kind: str, method: str, group: str, way: str = "") -> Made:
        if way and unvoted is not None:
            return Made(np.empty(0), np.empty(0), unvoted)
        if way and method not in certified[way].methods:
            return Made(np.empty(0), np.empty(0), f"the smoothing {way} does not certify it")
        place = f"{way}/{group}" if way else group
        pictures = certified[way].pictures[group] if way else seen[group].lead[0]
        return judging.made(path(study, kind, classifier, family, method), place, seen[group], kind, pictures)

    for listed in entries(params, "metrics").values():
        for metric in listed.values():
            asks = signature("metrics", metric.family, metric.function).evidence
            shown = seen["grids" if "tiles" in asks else "images"]
            ways = [certified[name] for name in metric.options["smoothings"]]
            if ways:
                check_reach(metric, ways[0], classifier, math.prod(shown.side))
            parts = [("stages.inputs.lending", "tensor"), ("stages.score", "judged")]
            parts += [("stages.inputs.explain", "Explain")] if "explain" in asks else []
            parts += [("stages.inputs.lending", "counted")] if "votes" in asks else []
            voted = [way.settings for way in ways]
            shared = keys.digest(keys.entry(metric, params, *parts), voted, trained if "classifier" in asks else b"")
            rows = judging.rows(metric, shared, shown, asks, ways)
            found = {}
            for name in judging.methods(metric, ways, list(params["methods"][family])):
                votes = [made("votes", name, shown.group, way.name) for way in ways]
                found[name] = judging.keyed(made("maps", name, shown.group), votes, rows, asks, shown)
            works.append(Work(metric, asks, ways, shown, list(found), judging.table(metric, shown, ways, found)))
    return works


def compute(
    study: Path,
    params: dict,
    classifier: str,
    family: str,
    works: list[Work],
    missing: dict[int, np.ndarray],
    rows: Rows,
) -> tuple[dict[str, dict[str, int]], dict[str, str]]:
    """Compute the missing scores batch by batch; give the passes of each metric, and the metrics that failed."""
    from stages.model.engine import start
    from stages.model.loading import load as load_classifier
    from stages.study.problem import Unsupported

    engine = params["engine"]
    start(engine)
    folder = path(study, "classifiers", classifier)
    loaded = load_classifier(folder, classifier, params["classifiers"][classifier]["network"], engine)
    passes = {work.metric.name: dict.fromkeys(loaded.passes, 0) for work in works}
    failed: dict[str, str] = {}
    methods = entries(params, "methods")[family]
    asks = {i: work.asks for i, work in enumerate(works)}
    ways = {i: work.ways for i, work in enumerate(works)}
    for seen in {work.seen.group: work.seen for work in works}.values():
        wanted = {}
        for method in methods:  # metric by metric of each: what is ranked once serves all
            for i, positions in missing.items():
                if works[i].seen is seen and method in works[i].methods:
                    m, size = works[i].methods.index(method), per_method(works[i])
                    wanted[i, method] = positions[positions // size == m] - m * size
        lender = Lender(study, classifier, methods, seen, wanted, asks, engine, params["stores"]["dtype"], ways)
        whole = frozenset(key for key in wanted if of_whole_set(asks[key[0]]))
        parts = evidence.batches(wanted, engine["batch"], seen, engine["device"], whole)
        for (i, method), positions, given in parts:
            work, size = works[i], per_method(works[i])
            named = f"{work.metric.name} ({method})"
            if named in failed or rows.refusal(token(work, method)) is not None:
                continue
            before = dict(loaded.passes)
            try:
                lent = lender.lend(i, method, size, positions, {**given, "classifier": loaded})
                scores = scored(work.metric, lent)
                if np.isinf(scores).any():
                    raise ValueError("an infinite score; a score is a number, or NaN where it is undefined")
            except Unsupported as reason:
                rows.refuse(token(work, method), str(reason))
            except Exception as error:  # whatever it is, the rows of other metrics must not be lost to it
                told = f"{type(error).__name__}: {error} (images {evidence.some(seen, positions)})"
                failed[named] = told
            else:
                rows.put(work.table, positions + work.methods.index(method) * size, {"score": scores})
            for kind, count in passes[work.metric.name].items():
                passes[work.metric.name][kind] = count + loaded.passes[kind] - before[kind]
    return passes, failed


def scored(metric: Entry, given: dict[str, Any]) -> np.ndarray:
    """Score one method's maps of a batch by one metric."""
    function = find("metrics", metric.family, metric.function)
    named = signature("metrics", metric.family, metric.function).evidence
    return judged(function, [given[name] for name in named], metric.settings)


def served(rows: Rows, work: Work) -> Table:
    """Empty the rows of methods that a metric cannot judge on the classifier, and say why of each."""
    return rows.served_by(work.table, {name: token(work, name) for name in work.methods})


def token(work: Work, method: str) -> bytes:
    """Digest what a metric's scores of a method depend on."""
    return keys.digest(work.table.keys[work.methods.index(method)].tobytes())


def judged(function: Callable, given: list, settings: dict[str, Any]) -> np.ndarray:
    """Call a metric: the verb's part of a score."""
    return function(*given, **settings).cpu().numpy()


def per_method(work: Work) -> int:
    """Say how many scores a method has by this metric."""
    return int(np.prod(work.table.keys.shape[1:-1], dtype=int))


if __name__ == "__main__":
    command(main)
