"""Score the maps of one method family for one classifier: `python -m stages.score CLASSIFIER FAMILY`.

Reads that family's maps, and the evidence that each metric names; writes `data/scores/<classifier>/<family>.zarr` with
a group per metric: score over `method image`, `method image fraction`, `method image threshold` or `method grid tile`.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from stages import evidence, keys
from stages.evidence import Evidence
from stages.lending import WHOLE, Lender, of_whole_set
from stages.params import command, entries, find, load, path
from stages.problem import Problem
from stages.rows import Rows, of_cell
from stages.settings import Entry, canonical
from stages.signatures import attributes, signature
from stages.stores import read
from stages.tables import Field, Table, keys_of


class Work(NamedTuple):
    """One metric over all methods of the family."""

    metric: Entry
    asks: list[str]  # the evidence it names
    seen: Evidence
    methods: list[str]
    shared: bytes  # digest of what all its scores share
    table: Table


class Made(NamedTuple):
    """What is known of one method's maps: their keys and digests, or why there are none."""

    keys: np.ndarray
    digests: np.ndarray
    refused: str | None


def main(study: Path, classifier: str, family: str) -> None:
    """Compute the missing scores of a cell, then assemble its output."""
    visit(study, classifier, family, finish=True)


def fill(study: Path, classifier: str, family: str) -> None:
    """Compute the missing scores of a cell and leave them in its journal: what a warm worker does."""
    visit(study, classifier, family, finish=False)


def draft(study: Path, classifier: str, family: str, output: Path, reason: str) -> None:
    """Write what scores there are of a cell that failed elsewhere; a method that lacks some by a metric has none by it.

    Args:
        study, classifier, family: The cell.
        output: Where to write.
        reason: Why scores are missing, told of every method that lacks some.
    """
    params = load(study)
    with of_cell(study, params, "score", "scores", classifier, family) as rows:
        tables = []
        for work in plan(study, params, classifier, family):
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
        missing = {i: rows.missing(work.table) for i, work in enumerate(works) if rows.refusal(work.shared) is None}
        passes, failed = {}, {}
        if any(map(len, missing.values())):
            passes, failed = compute(study, params, classifier, family, works, missing, rows)
        if finish and not failed:
            rows.finish([served(rows, work) for work in works], {"": {"family": family}})
        rows.log(passes)
    if failed:
        told = "; ".join(f"{name}: {error}" for name, error in failed.items())
        raise Problem(f"{rows.cell}: these metrics failed, the rows of all others are kept: {told}")


def plan(study: Path, params: dict, classifier: str, family: str) -> list[Work]:
    """Say which scores there are to be, by key: the digest of the map's bytes, and the evidence the metric names."""
    trained = keys.classifier(study, params, classifier)
    seen = {
        "images": evidence.images(study, classifier, params["seed"]),
        "grids": evidence.grids(study, classifier, params["seed"]),
    }
    works: list[Work] = []
    made: dict[tuple[str, str], Made] = {}
    for listed in entries(params, "metrics").values():
        for metric in listed.values():
            asks = signature("metrics", metric.family, metric.function).evidence
            shown = seen["grids" if "tiles" in asks else "images"]
            parts = [("stages.lending", "tensor"), ("stages.score", "judged")]
            parts += [("stages.explain", "Explain")] if "explain" in asks else []
            shared = keys.digest(keys.entry(metric, params, *parts), trained if "classifier" in asks else b"")
            methods = [name for name in params["methods"][family] if name not in metric.options["exclude"]]
            rows = [keys.digest(shared, row) for row in evidence.digests(shown, asks)]
            whole = _whole(shown, asks, judging(metric, shown))
            found = {}
            for name in methods:
                if (name, shown.group) not in made:
                    made[name, shown.group] = _made(path(study, "maps", classifier, family, name), shown)
                found[name] = _keys(made[name, shown.group], rows, asks, whole)
            works.append(Work(metric, asks, shown, methods, shared, _table(metric, shown, found)))
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
    from stages.engine import start
    from stages.loading import load as load_classifier
    from stages.problem import Unsupported

    engine = params["engine"]
    start(engine)
    folder = path(study, "classifiers", classifier)
    loaded = load_classifier(folder, classifier, params["classifiers"][classifier]["network"], engine)
    passes = {work.metric.name: dict.fromkeys(loaded.passes, 0) for work in works}
    failed: dict[str, str] = {}
    methods = entries(params, "methods")[family]
    asks = {i: work.asks for i, work in enumerate(works)}
    for seen in {work.seen.group: work.seen for work in works}.values():
        wanted = {}
        for method in methods:  # metric by metric of each: what is ranked once serves all
            for i, positions in missing.items():
                if works[i].seen is seen and method in works[i].methods:
                    m, size = works[i].methods.index(method), per_method(works[i])
                    wanted[i, method] = positions[positions // size == m] - m * size
        lender = Lender(study, classifier, methods, seen, wanted, asks, engine, params["stores"]["dtype"])
        whole = frozenset(key for key in wanted if of_whole_set(asks[key[0]]))
        parts = evidence.batches(wanted, engine["batch"], seen, engine["device"], whole)
        for (i, method), positions, given in parts:
            work, size = works[i], per_method(works[i])
            if work.metric.name in failed or rows.refusal(work.shared) is not None:
                continue
            before = dict(loaded.passes)
            try:
                lent = lender.lend(i, method, size, positions, {**given, "classifier": loaded})
                scores = scored(work.metric, lent)
                if np.isinf(scores).any():
                    raise ValueError("an infinite score; a score is a number, or NaN where it is undefined")
            except Unsupported as reason:
                rows.refuse(work.shared, str(reason))
            except Exception as error:  # whatever it is, the rows of other metrics must not be lost to it
                told = f"{type(error).__name__}: {error} (images {evidence.some(seen, positions)})"
                failed[work.metric.name] = told
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
    """Empty a table whose metric cannot serve the classifier, and say why of each method."""
    table = rows.served(work.table, work.shared)
    if rows.refusal(work.shared) is None:
        return table
    return table._replace(attrs={**table.attrs, "unsupported": dict.fromkeys(work.methods, rows.refusal(work.shared))})


def judged(function: Callable, given: list, settings: dict[str, Any]) -> np.ndarray:
    """Call a metric: the verb's part of a score."""
    return function(*given, **settings).cpu().numpy()


def per_method(work: Work) -> int:
    """Say how many scores a method has by this metric."""
    return int(np.prod(work.table.keys.shape[1:-1], dtype=int))


def _whole(seen: Evidence, asks: list[str], count: int) -> tuple[int, bytes]:
    """Count the rows of the whole set, and digest what a metric names of all of them."""
    rows = count * int(np.prod(seen.lead[1:], dtype=int))
    named = [name.removeprefix("all_") for name in asks if name in WHOLE]
    return rows, keys.digest(*evidence.digests(seen, named)[:rows]) if named else b""


def _made(store: Path, seen: Evidence) -> Made:
    """Read what is known of one method's maps."""
    what = f"the maps of {store.stem}"
    found = keys_of(store, seen.group, what)
    if found[0].shape[:-1] != seen.lead:
        raise Problem(f"{store}/{seen.group}: has {found[0].shape[:-1]} maps, {seen.lead} are due; make it again")
    return Made(*found, read(store / seen.group, what).attrs.get("unsupported"))


def _keys(maps: Made, rows: list[bytes], asks: list[str], whole: tuple[int, bytes]) -> tuple[np.ndarray, str | None]:
    """Key the scores of one method's maps; where there are none, because the method cannot, give its reason.

    The key of a score that makes maps anew has that of the map in it, which says what maps depend on; where the maps
    of a whole set are looked at, or made anew, it has those of all of them.
    """
    if maps.refused is not None:
        return np.zeros_like(maps.keys), maps.refused
    made_by, digests = (found.reshape(-1, keys.SIZE) for found in (maps.keys, maps.digests))
    count, common = whole
    common += digests[:count].tobytes() if "all_maps" in asks else b""
    common += made_by[:count].tobytes() if common and "explain" in asks else b""
    found = []
    for i, (row, own, by) in enumerate(zip(rows, digests, made_by, strict=True)):
        parts: list[object] = [by.tobytes()] if "explain" in asks else []
        parts += [i] if "positions" in asks else []  # two of a set may have the same map
        found.append(keys.digest(row, own.tobytes(), *parts, *([common] if common else [])))
    return np.frombuffer(b"".join(found), "uint8").reshape(maps.keys.shape), None


def _table(metric: Entry, seen: Evidence, found: dict[str, tuple[np.ndarray, str | None]]) -> Table:
    known = dict(attributes("metrics", metric.family, metric.function))
    if known.get("better") not in ("higher", "lower"):
        where = f"stages/metrics/{metric.family}.py: ATTRS['{metric.function}']['better']"
        raise Problem(
            f"{where} must be 'higher' or 'lower', not {known.get('better')!r}: scores are to be ranked by it"
        )
    count = judging(metric, seen)
    made = [table_keys[:count] for table_keys, _ in found.values()]
    stacked = np.stack(made) if made else np.zeros((0, count, *seen.lead[1:], keys.SIZE), "uint8")
    along = _along(metric, known.get("dim"), seen.side)
    coords = {"method": (("method",), np.array(list(found), dtype=np.dtypes.StringDType()))}
    for name, (dims, labels) in seen.coords.items():
        coords[name] = (dims, labels[:count] if dims[0] == seen.dims[0] else labels)
    coords |= {dim: ((dim,), points) for dim, points in along.items()}
    attrs = {**known, "family": metric.family, "settings": canonical(metric.settings)}
    field = Field(tuple(along), tuple(map(len, along.values())), "float32", attrs)
    unsupported = {name: reason for name, (_, reason) in found.items() if reason is not None}
    return Table(metric.name, ("method", *seen.dims), stacked, {"score": field}, coords, {"unsupported": unsupported})


def judging(metric: Entry, seen: Evidence) -> int:
    """Say how many pictures a metric judges.

    Raises:
        Problem: it is to judge more than there are.
    """
    count = metric.options["count"] or seen.lead[0]
    if count > seen.lead[0]:
        where = f"params.yaml: metrics.{metric.family}.{metric.name}: count = {count}"
        raise Problem(f"{where}: there are {seen.lead[0]} {seen.group}; expected at most that, or null for all")
    return count


def _along(metric: Entry, dim: str | None, side: tuple[int, int]) -> dict[str, np.ndarray]:
    """Give the coordinate of what a metric stores beside the image: points of a curve, thresholds."""
    set_to, pixels = metric.settings, side[0] * side[1]
    points = {
        # The share of pixels that are changed at each step, the last one shorter.
        "pixels": lambda: np.minimum(np.arange(0, pixels + set_to["pixels"], set_to["pixels"]), pixels) / pixels,
        "levels": lambda: np.arange(set_to["levels"]) / set_to["levels"],
        "parts": lambda: np.arange(set_to["parts"] + 1) / set_to["parts"],
        "thresholds": lambda: np.arange(set_to["thresholds"]) / set_to["thresholds"],
    }
    return {dim: next(make() for name, make in points.items() if name in set_to)} if dim else {}


if __name__ == "__main__":
    command(main)
