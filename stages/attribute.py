"""Make the maps of one method family for one classifier: `python -m stages.attribute CLASSIFIER FAMILY`.

Reads the classifier, its evaluation images and grids; writes `data/maps/<classifier>/<family>/<method>.zarr` with the
groups `images` (attribution: image y x) and `grids` (attribution: grid tile y x).
"""

import sys
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from atlas.cache import keys
from atlas.cache.cells import of_cell
from atlas.cache.rows import Rows
from atlas.cache.tables import Field, Table
from atlas.inputs import calls, row_inputs
from atlas.inputs.audit.building import load_classifier
from atlas.inputs.calls import Failures
from atlas.inputs.row_inputs import Inputs
from atlas.study.errors import Fault, Unsupported, UserError
from atlas.study.params import CHOOSING, command, entries, load
from atlas.study.schema.settings import Entry, canonical
from atlas.study.schema.signatures import attributes, signature

if TYPE_CHECKING:
    from torch import Tensor


class MapPlan(NamedTuple):
    """The planned maps of one method for one kind of picture, with their keys."""

    method: Entry
    seen: Inputs
    shared: bytes  # digest of what all these maps share
    table: Table


def main(study: Path, classifier: str, family: str) -> None:
    """Compute the missing maps of a cell, then assemble its output."""
    visit(study, classifier, family, finish=True)


def compute_to_journal(study: Path, classifier: str, family: str) -> None:
    """Compute the missing maps of a cell into its journal, without assembling the output: for a warm worker."""
    visit(study, classifier, family, finish=False)


def count_missing(study: Path, classifier: str, family: str) -> tuple[int, int]:
    """Return the number of maps of a cell, and of those that are missing."""
    params = load(study)
    with of_cell(study, params, "attribute", "maps", classifier, family, wait=False) as rows:
        works = plan(study, params, classifier, entries(params, "methods")[family])
        return rows.count_missing([rows.without_unsupported(work.table, work.shared) for work in works])


def visit(study: Path, classifier: str, family: str, *, finish: bool) -> None:
    """Look up a cell's rows, compute the missing ones, and assemble the output if `finish`.

    If a method fails, the rows of all others stay in the journal; the cell fails at the end, naming the method.
    """
    params = load(study)
    listed = entries(params, "methods")[family]
    with of_cell(study, params, "attribute", "maps", classifier, family) as rows:
        works = plan(study, params, classifier, listed)
        missing = {i: rows.missing(work.table) for i, work in enumerate(works) if rows.refusal(work.shared) is None}
        passes, failures = {}, Failures(rows.cell, "these methods failed, the maps of all others are kept")
        if any(map(len, missing.values())):
            passes = compute(study, params, classifier, works, missing, rows, failures)
        if finish and not failures:
            tables = [rows.without_unsupported(work.table, work.shared) for work in works]
            rows.finish(tables, {f"{name}.zarr": described(bound) for name, bound in listed.items()})
        rows.log(passes)
    failures.end()


def plan(study: Path, params: dict, classifier: str, listed: dict[str, Entry]) -> list[MapPlan]:
    """Return the planned maps with their keys; a key includes the classifier if the method declares it."""
    trained = keys.classifier(study, params, classifier)
    works = []
    for seen in row_inputs.gathered(study, classifier, params["seed"]).values():
        for bound in listed.values():
            named = signature("methods", bound.family, bound.function).inputs
            shared = keys.digest(
                keys.entry(bound, params, *calls.parts(bound)),
                trained if "classifier" in named else b"",
            )
            known = attributes("methods", bound.family, bound.function)
            absent = row_inputs.lacking(study, classifier, named)
            if seen.group == "grids" and not bound.options["grids"]:
                absent = f"methods.{bound.family}.{bound.name} says grids: false"
            made = np.zeros((*seen.lead, keys.SIZE), "uint8")
            if absent is None:
                _key(made, bound, seen, shared, named)
            table = Table(
                f"{bound.name}.zarr/{seen.group}",
                seen.dims,
                made,
                {"attribution": Field(("y", "x"), seen.side, params["stores"]["dtype"], known)},
                seen.coords,
                {} if absent is None else {"unsupported": absent},
            )
            works.append(MapPlan(bound, seen, shared, table))
    return works


def _key(made: np.ndarray, bound: Entry, seen: Inputs, shared: bytes, named: list[str]) -> None:
    """Write the keys of a method's maps: of the first images only, if its entry has a `count`.

    Raises:
        UserError: there are fewer images than `count`.
    """
    count = bound.options["count"] or seen.lead[0]
    if seen.group == "images" and count > seen.lead[0]:
        where = f"params.yaml: methods.{bound.family}.{bound.name}: count = {count}"
        raise UserError(f"{where}: there are {seen.lead[0]} images; expected at most that, or null for all")
    drawn = ["seeds"] if bound.options["reverse"] and "seeds" not in named else []
    rows = made[:count].reshape(-1, keys.SIZE)
    for row, known in zip(rows, row_inputs.digests(seen, named + drawn), strict=False):
        row[:] = np.frombuffer(keys.digest(shared, known), "uint8")


def compute(
    study: Path,
    params: dict,
    classifier: str,
    works: list[MapPlan],
    missing: dict[int, np.ndarray],
    rows: Rows,
    failures: Failures,
) -> dict[str, dict[str, int]]:
    """Compute the missing maps batch by batch, methods that share work together; return the passes of each method."""
    from atlas.inputs.explain import attributions_of

    engine = params["engine"]
    passes: dict[str, Counter[str]] = {work.method.name: Counter() for work in works}
    alike = Counter((works[i].seen.group, attributions_of(works[i].method)) for i in missing)
    done: set[tuple[int, bytes]] = set()

    def attempt() -> None:
        loaded = load_classifier(study, params, classifier)
        held: dict[str, Tensor] = {}  # attributions of this batch that several entries reduce differently
        images = None
        for seen in {work.seen.group: work.seen for work in works}.values():
            wanted = {i: missing[i] for i in missing if works[i].seen is seen}
            for i, positions, given in row_inputs.batches(wanted, engine["batch"], seen, engine["device"]):
                work, part = works[i], (i, positions.tobytes())
                if given["images"] is not images:
                    held, images = {}, given["images"]
                if part in done or work.method.name in failures or rows.refusal(work.shared) is not None:
                    continue
                before = Counter(loaded.passes)
                several = alike[seen.group, attributions_of(work.method)] > 1
                try:
                    make(work, positions, {**given, "classifier": loaded}, rows, held if several else {})
                    done.add(part)
                except Exception as error:  # any error: the maps of other methods must not be lost
                    failures.add(work.method.name, error, row_inputs.some(seen, positions))
                    if isinstance(error, Fault):
                        raise
                finally:
                    passes[work.method.name].update(Counter(loaded.passes) - before)

    calls.anew(attempt)
    return {name: dict.fromkeys(("forward", "backward", "head"), 0) | found for name, found in passes.items()}


def make(work: MapPlan, positions: np.ndarray, given: dict[str, Any], rows: Rows, held: dict[str, "Tensor"]) -> None:
    """Compute one method's maps of a batch and journal them, or journal why it cannot.

    A map with any value that is not finite is undefined: all of it is stored as NaN, under its key.

    Args:
        work: The plan of the maps.
        positions: The rows to compute.
        given: Their inputs, by name.
        rows: The store with the journal.
        held: Attributions of this batch, by `attributions_of`; those computed here are added.

    Raises:
        Fault: the method did something forbidden.
        ValueError: it returned no maps of these images, or maps that cannot be stored.
    """
    from atlas.inputs.explain import attributions_of, mapped
    from atlas.inputs.summing import check_sum

    bound = work.method
    known = attributions_of(bound)
    try:
        if known not in held:
            held[known] = calls.attributions(bound, given)
        check_sum(bound, held[known], given, calls.attributions)
    except Unsupported as reason:
        rows.refuse(work.shared, str(reason))
        return
    reduction = {name: bound.options[name] for name in ("channels", "reverse")}
    maps = mapped(held[known], given["classifier"].batched, work.seen.side, given["seeds"], **reduction)
    rows.put(work.table, positions, {"attribution": storable(work, positions, maps.cpu().numpy())})


def storable(work: MapPlan, positions: np.ndarray, maps: np.ndarray) -> np.ndarray:
    """Return maps as they are stored, undefined ones as NaN, with a message about these on stderr.

    Raises:
        ValueError: the dtype of stored maps cannot hold them; the message names the images.
    """
    dtype = work.table.fields["attribution"].dtype
    undefined = ~np.isfinite(maps).all(axis=(1, 2))
    with np.errstate(over="ignore"):
        stored = maps.astype(dtype)
    stored[undefined] = np.nan
    kept = np.isfinite(stored).all(axis=(1, 2)) & (stored.any(axis=(1, 2)) | ~maps.any(axis=(1, 2)))
    if not (undefined | kept).all():
        shown = row_inputs.some(work.seen, positions[~undefined & ~kept])
        raise ValueError(f"its maps cannot be stored as {dtype}: too large, or too small, for the images {shown}")
    if undefined.any():
        shown = row_inputs.some(work.seen, positions[undefined])
        told = "is not finite, and stored as NaN (undefined); so are its scores"
        print(f"method {work.method.name}: the map of {shown} {told}", file=sys.stderr)
    return stored


def described(bound: Entry) -> dict[str, str]:
    """Return the attributes of a map store that describe the method."""
    known = attributes("methods", bound.family, bound.function)
    shaping = {name: value for name, value in bound.options.items() if name not in CHOOSING}
    return {**known, "family": bound.family, "settings": canonical({**bound.settings, **shaping})}


if __name__ == "__main__":
    command(main)
