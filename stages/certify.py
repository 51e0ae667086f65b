"""Let noisy copies of images vote on maps: `python -m stages.certify CLASSIFIER FAMILY`.

Reads the classifier, its evaluation images and grids; writes `data/votes/<classifier>/<family>/<method>.zarr` with the
groups `<smoothing>/images` and `<smoothing>/grids` for every entry of the section certify that names the method: how
many of the first n0 copies, and of the other n, had a pixel among the top K% of their maps (`image level y x`), and in
how many of all copies equal scores straddled the edge of the top (`image level`). Metrics draw conclusions from counts.
"""

from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple

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
from atlas.study.params import command, entries, load, path
from atlas.study.schema.settings import Entry
from atlas.study.schema.signatures import signature
from atlas.study.schema.smoothing import Smoothing, read_smoothings

# The dtype of the maps that vote, whatever the dtype of stored maps.
DTYPE = "float32"
# As many rows vote at a time as fill this share of their batches.
FILLED = 0.95


class VotePlan(NamedTuple):
    """The planned votes on one method's maps of one kind of picture under one smoothing."""

    method: Entry
    smoothing: Smoothing
    seen: Inputs
    shared: bytes  # digest of what all these votes share
    table: Table


def main(study: Path, classifier: str, family: str) -> None:
    """Compute the missing votes of a cell, then assemble its output; print the size of an image's votes."""
    visit(study, classifier, family, finish=True)


def compute_to_journal(study: Path, classifier: str, family: str) -> None:
    """Compute the missing votes of a cell into its journal, without assembling the output: for a warm worker."""
    visit(study, classifier, family, finish=False)


def count_missing(study: Path, classifier: str, family: str) -> tuple[int, int]:
    """Return the number of votes of a cell, one row per picture, and of those that are missing."""
    params = load(study)
    with of_cell(study, params, "certify", "votes", classifier, family, wait=False) as rows:
        return rows.count_missing(
            [rows.without_unsupported(work.table, token(work)) for work in plan(study, params, classifier, family)]
        )


def visit(study: Path, classifier: str, family: str, *, finish: bool) -> None:
    """Look up a cell's rows, compute the missing ones, and assemble the output if `finish`.

    If a method fails, the votes on all others stay in the journal; the cell fails at the end, naming the method.
    """
    params = load(study)
    with of_cell(study, params, "certify", "votes", classifier, family) as rows:
        works = plan(study, params, classifier, family)
        missing = {i: rows.missing(work.table) for i, work in enumerate(works) if rows.refusal(token(work)) is None}
        told = "the votes on these methods failed, those on all others are kept"
        passes, failures = {}, Failures(rows.cell, told)
        if any(map(len, missing.values())):
            passes = compute(study, params, classifier, works, missing, rows, failures)
        if finish and not failures:
            groups = {f"{work.method.name}.zarr": {"family": family} for work in works}
            ways = {f"{work.method.name}.zarr/{work.smoothing.name}": work.smoothing.settings for work in works}
            tables = [rows.without_unsupported(work.table, token(work)) for work in works]
            rows.finish(tables, groups | ways)
            tell(tables, path(study, "votes", classifier, family))
        rows.log(passes)
    failures.end()


def plan(study: Path, params: dict, classifier: str, family: str) -> list[VotePlan]:
    """Return the planned votes with their keys: all that a map depends on, the noise, and the form of the top."""
    listed = entries(params, "methods")
    known = read_smoothings(params, {name for one in listed.values() for name in one})
    trained = keys.classifier(study, params, classifier)
    found = row_inputs.gathered(study, classifier, params["seed"])
    works = []
    for smoothing in known.values():
        for group, count in smoothing.pictures.items():
            chosen = [bound for name, bound in listed[family].items() if name in smoothing.methods]
            if not chosen or not count or group not in found:
                continue
            seen = found[group]
            if count > seen.lead[0]:
                where = f"params.yaml: certify.{smoothing.name}.{group} = {count}"
                raise UserError(f"{where}: there are {seen.lead[0]} {group}; expected at most that")
            tiles = int(np.prod(seen.lead[1:], dtype=int))
            if seen.dims[1:] and smoothing.tile is not None and smoothing.tile >= tiles:
                where = f"params.yaml: certify.{smoothing.name}.tile = {smoothing.tile}"
                raise UserError(f"{where}: grids have the tiles 0 to {tiles - 1}")
            works += [_work(study, classifier, params, trained, bound, smoothing, seen, count) for bound in chosen]
    return works


def compute(
    study: Path,
    params: dict,
    classifier: str,
    works: list[VotePlan],
    missing: dict[int, np.ndarray],
    rows: Rows,
    failures: Failures,
) -> dict[str, dict[str, int]]:
    """Compute the missing votes, some rows at a time, methods that share work together; return each method's passes."""
    from atlas.inputs.voting import copies

    engine = params["engine"]
    passes = {work.method.name: dict.fromkeys(("forward", "backward", "head"), 0) for work in works}
    done: set[tuple[int, bytes]] = set()

    def attempt() -> None:
        loaded = load_classifier(study, params, classifier)
        for smoothing, group in dict.fromkeys((work.smoothing.name, work.seen.group) for work in works):
            alike = [i for i in missing if (works[i].smoothing.name, works[i].seen.group) == (smoothing, group)]
            if not alike:
                continue
            seen = works[alike[0]].seen
            size = at_a_time(copies(**works[alike[0]].smoothing.settings), engine["batch"])
            parts = row_inputs.batches({i: missing[i] for i in alike}, size, seen, engine["device"])
            for _, asking in groupby(parts, key=lambda part: id(part[2])):
                together = list(asking)
                positions, given = together[0][1:]
                asked = [i for i, _, _ in together if (i, positions.tobytes()) not in done]
                asked = [i for i in asked if named(works[i]) not in failures]
                asked = [i for i in asked if rows.refusal(token(works[i])) is None]
                if asked:
                    try:
                        vote(
                            [works[i] for i in asked],
                            positions,
                            {**given, "classifier": loaded},
                            passes,
                            rows,
                            failures,
                        )
                    except Fault as fault:
                        for work in [work for work in works if work.method.name == fault.name]:
                            failures.add(named(work), fault, row_inputs.some(seen, positions))
                        raise
                    done.update((i, positions.tobytes()) for i in asked)

    calls.anew(attempt)
    return passes


def vote(
    works: list[VotePlan],
    positions: np.ndarray,
    given: dict[str, Any],
    passes: dict[str, dict[str, int]],
    rows: Rows,
    failures: Failures,
) -> None:
    """Compute the votes on some methods' maps of some rows under one smoothing, and journal them.

    Raises:
        Fault: a method did something forbidden; then no vote is journaled.
    """
    from atlas.inputs.explain import Explainer
    from atlas.inputs.voting import votes

    explain = Explainer([work.method for work in works], given["background"], DTYPE, calls.attributions)
    ways = {work.method.name: explain.by(work.method.name) for work in works}
    asked = (given[name] for name in ("classifier", "images", "targets", "seeds"))
    cast = votes(*asked, ways, passes, **works[0].smoothing.settings)
    for work in works:
        found = cast[work.method.name]
        if isinstance(found, Unsupported):
            rows.refuse(token(work), str(found))
        elif isinstance(found, Exception):
            failures.add(named(work), found, row_inputs.some(work.seen, positions))
        else:
            rows.put(work.table, positions, found)


def named(work: VotePlan) -> str:
    """Return the label of the votes on a method under a smoothing, for messages."""
    return f"{work.method.name} ({work.smoothing.name})"


def token(work: VotePlan) -> bytes:
    """Digest what all votes on a method's maps of one kind of picture share; a method may fail on grids only."""
    return keys.digest(work.shared, work.seen.group)


def at_a_time(copies: int, batch: int) -> int:
    """Return how many rows vote at a time: the fewest whose copies fill their batches."""
    return next(rows for rows in range(1, batch + 1) if rows * copies >= FILLED * batch * -(-rows * copies // batch))


def tell(tables: list[Table], output: Path) -> None:
    """Print the size of votes: the counts of a picture before compression, and the files."""
    shapes = {table.fields["rest"].shape for table in tables}
    packed = sum(file.stat().st_size for file in output.rglob("*") if file.is_file())
    rows = sum(int(table.keys.any(axis=-1).sum()) for table in tables)
    for shape in sorted(shapes):
        spelled = " x ".join(map(str, shape))
        print(f"{output.name}: votes of a picture: 2 x {spelled} = {2 * int(np.prod(shape))} bytes before compression")
    if rows:
        print(f"{output.name}: {rows} rows in {packed} bytes, {packed / rows:.0f} a row with their keys")


def _work(
    study: Path,
    classifier: str,
    params: dict,
    trained: bytes,
    bound: Entry,
    smoothing: Smoothing,
    seen: Inputs,
    count: int,
) -> VotePlan:
    named = signature("methods", bound.family, bound.function).inputs
    absent = row_inputs.lacking(study, classifier, named)
    parts = [("atlas.inputs.voting", "votes"), ("atlas.inputs.explain", "Explainer"), ("stages.certify", "DTYPE")]
    shared = keys.digest(
        keys.entry(bound, params, *parts), smoothing.settings, trained if "classifier" in named else b""
    )
    rows = count * int(np.prod(seen.lead[1:], dtype=int))
    # The noise is drawn from the image's seed, whether or not the method declares it.
    of_rows = row_inputs.digests(seen, [*named, *({"seeds"} - set(named))])[:rows]
    inner = rows // count
    asked = [absent is None and (inner == 1 or smoothing.tile in (None, i % inner)) for i in range(rows)]
    made = b"".join(
        keys.digest(shared, row) if own else bytes(keys.SIZE) for row, own in zip(of_rows, asked, strict=True)
    )
    levels = smoothing.settings["levels"]
    shape = (len(levels), *seen.side)
    attrs = {
        "long_name": "noisy copies in whose map the pixel is at the top",
        "units": "1",
        "reference": "anani2025pixel",
    }
    of = {"first": f"of the first {smoothing.settings['n0']}", "rest": f"of {smoothing.settings['n']} others"}
    fields = {name: Field(("level", "y", "x"), shape, "uint8", {**attrs, "comment": told}) for name, told in of.items()}
    parted = {**attrs, "long_name": "noisy copies in whose map equal scores lay at the edge of the top"}
    fields["tied"] = Field(("level",), shape[:1], "uint16", parted)
    coords = {
        name: (dims, labels[:count] if dims[0] == seen.dims[0] else labels)
        for name, (dims, labels) in seen.coords.items()
    }
    table = Table(
        f"{bound.name}.zarr/{smoothing.name}/{seen.group}",
        seen.dims,
        np.frombuffer(made, "uint8").reshape(count, *seen.lead[1:], keys.SIZE),
        fields,
        {**coords, "level": (("level",), np.array(levels))},
        {} if absent is None else {"unsupported": absent},
    )
    return VotePlan(bound, smoothing, seen, shared, table)


if __name__ == "__main__":
    command(main)
