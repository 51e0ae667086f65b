"""Make the maps of one method family for one classifier: `python -m stages.attribute CLASSIFIER FAMILY`.

Reads the classifier, its evaluation images and grids; writes `data/maps/<classifier>/<family>/<method>.zarr` with the
groups `images` (attribution: image y x) and `grids` (attribution: grid tile y x).
"""

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from stages.cache import keys
from stages.cache.rows import Rows, of_cell
from stages.cache.tables import Field, Table
from stages.inputs import evidence
from stages.inputs.evidence import Evidence
from stages.study.params import command, entries, find, load, path
from stages.study.problem import Problem
from stages.study.settings import Entry, canonical
from stages.study.signatures import attributes, signature

if TYPE_CHECKING:
    from torch import Tensor


class Work(NamedTuple):
    """One method's maps of one kind of picture: what is to be, under which keys."""

    method: Entry
    seen: Evidence
    shared: bytes  # digest of what all its maps share
    table: Table


def main(study: Path, classifier: str, family: str) -> None:
    """Make the missing maps of a cell, then assemble its output."""
    visit(study, classifier, family, finish=True)


def fill(study: Path, classifier: str, family: str) -> None:
    """Make the missing maps of a cell and leave them in its journal: what a warm worker does."""
    visit(study, classifier, family, finish=False)


def due(study: Path, classifier: str, family: str) -> tuple[int, int]:
    """Count the maps that a cell is to hold, and those that are to be made."""
    params = load(study)
    with of_cell(study, params, "attribute", "maps", classifier, family, wait=False) as rows:
        works = plan(study, params, classifier, entries(params, "methods")[family])
        return rows.due([rows.served(work.table, work.shared) for work in works])


def visit(study: Path, classifier: str, family: str, *, finish: bool) -> None:
    """Look for a cell's rows, make what is missing, and assemble the output where asked."""
    params = load(study)
    listed = entries(params, "methods")[family]
    with of_cell(study, params, "attribute", "maps", classifier, family) as rows:
        works = plan(study, params, classifier, listed)
        missing = {i: rows.missing(work.table) for i, work in enumerate(works) if rows.refusal(work.shared) is None}
        passes = {}
        if any(map(len, missing.values())):
            passes = compute(study, params, classifier, works, missing, rows)
        if finish:
            tables = [rows.served(work.table, work.shared) for work in works]
            rows.finish(tables, {f"{name}.zarr": described(bound) for name, bound in listed.items()})
        rows.log(passes)


def plan(study: Path, params: dict, classifier: str, listed: dict[str, Entry]) -> list[Work]:
    """Say which maps there are to be, by key; the classifier is in the key where the method names it."""
    trained = keys.classifier(study, params, classifier)
    works = []
    for seen in (gather(study, classifier, params["seed"]) for gather in (evidence.images, evidence.grids)):
        for bound in listed.values():
            named = signature("methods", bound.family, bound.function).evidence
            shared = keys.digest(
                keys.entry(bound, params, ("stages.inputs.explain", "mapped"), ("stages.inputs.summing", "check_sum")),
                trained if "classifier" in named else b"",
            )
            drawn = ["seeds"] if bound.options["reverse"] and "seeds" not in named else []
            made = b"".join(keys.digest(shared, row) for row in evidence.digests(seen, named + drawn))
            known = attributes("methods", bound.family, bound.function)
            table = Table(
                f"{bound.name}.zarr/{seen.group}",
                seen.dims,
                np.frombuffer(made, "uint8").reshape(*seen.lead, keys.SIZE),
                {"attribution": Field(("y", "x"), seen.side, params["stores"]["dtype"], known)},
                seen.coords,
            )
            works.append(Work(bound, seen, shared, table))
    return works


def compute(
    study: Path, params: dict, classifier: str, works: list[Work], missing: dict[int, np.ndarray], rows: Rows
) -> dict[str, dict[str, int]]:
    """Make the missing maps batch by batch, methods that share work side by side; give the passes of each method."""
    from stages.inputs.explain import attributions_of
    from stages.model.engine import start
    from stages.model.loading import load as load_classifier

    engine = params["engine"]
    start(engine)
    folder = path(study, "classifiers", classifier)
    loaded = load_classifier(folder, classifier, params["classifiers"][classifier]["network"], engine)
    passes = {work.method.name: dict.fromkeys(loaded.passes, 0) for work in works}
    alike = Counter((works[i].seen.group, attributions_of(works[i].method)) for i in missing)
    held: dict[str, Tensor] = {}  # of the batch at hand: attributions that several entries only reduce in other ways
    images = None
    for seen in {work.seen.group: work.seen for work in works}.values():
        wanted = {i: missing[i] for i in missing if works[i].seen is seen}
        for i, positions, given in evidence.batches(wanted, engine["batch"], seen, engine["device"]):
            if given["images"] is not images:
                held, images = {}, given["images"]
            if rows.refusal(works[i].shared) is None:
                before = dict(loaded.passes)
                several = alike[seen.group, attributions_of(works[i].method)] > 1
                make(works[i], positions, {**given, "classifier": loaded}, rows, held if several else {})
                for kind, count in passes[works[i].method.name].items():
                    passes[works[i].method.name][kind] = count + loaded.passes[kind] - before[kind]
    return passes


def make(work: Work, positions: np.ndarray, given: dict[str, Any], rows: Rows, held: dict[str, "Tensor"]) -> None:
    """Make one method's maps of a batch and journal them, or journal why it cannot.

    Args:
        work: Whose maps.
        positions: Which rows.
        given: Their evidence, by name.
        rows: Where they are journaled.
        held: Attributions of this batch, by `attributions_of`; those made here are added.

    Raises:
        Problem: the network or the method gave a value that is not finite; the message names the images.
    """
    from stages.inputs.explain import attributions_of, mapped
    from stages.inputs.summing import check_sum
    from stages.study.problem import Unsupported

    bound = work.method
    function = find("methods", bound.family, bound.function)
    named = signature("methods", bound.family, bound.function).evidence
    known = attributions_of(bound)
    try:
        if known not in held:
            held[known] = function(*(given[name] for name in named), **bound.settings)
        check_sum(bound, held[known], given)
        maps = mapped(held[known], given["classifier"].batched, work.seen.side, given["seeds"], **bound.options)
        maps = maps.cpu().numpy()
    except Unsupported as reason:
        rows.refuse(work.shared, str(reason))
        return
    except Problem as problem:
        shown = evidence.some(work.seen, positions)
        raise Problem(f"{rows.cell}, method {bound.name}, images {shown}: {problem}") from None
    dtype = work.table.fields["attribution"].dtype
    with np.errstate(over="ignore"):
        stored = maps.astype(dtype)
    finite = np.isfinite(maps).all(axis=(1, 2))
    kept = np.isfinite(stored).all(axis=(1, 2)) & (stored.any(axis=(1, 2)) | ~maps.any(axis=(1, 2)))
    for good, told in ((finite, "are not finite"), (kept, f"cannot be stored as {dtype}: too large, or too small")):
        if not good.all():
            shown = evidence.some(work.seen, positions[~good])
            raise Problem(f"{rows.cell}, method {bound.name}: its maps {told}, for the images {shown}")
    rows.put(work.table, positions, {"attribution": stored})


def described(bound: Entry) -> dict[str, str]:
    """Say on the store what the method is."""
    known = attributes("methods", bound.family, bound.function)
    return {**known, "family": bound.family, "settings": canonical({**bound.settings, **bound.options})}


if __name__ == "__main__":
    command(main)
