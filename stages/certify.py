"""Let noisy samples of images vote on maps: `python -m stages.certify CLASSIFIER FAMILY`.

Reads the classifier, its evaluation images and grids; writes `data/votes/<classifier>/<family>.zarr` with the groups
`images_<levels>` and `grids_<levels>`, by the number of levels. Along their first dimension, `votes`, lie the methods
under each entry of the section certify that names them: how many of the first n0 samples, and of the other n, had a
pixel among the top K% of their maps (`counts`: `image samples level y x`), and in how many of all samples equal scores
straddled the edge of the top (`tied`: `image level`). Metrics draw conclusions from counts.
"""

from collections.abc import Iterator
from functools import partial
from itertools import groupby
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from atlas.cache import keys
from atlas.cache.stacks import Stack, stack
from atlas.cache.tables import Coords, Field, Table
from atlas.inputs import calls, row_inputs
from atlas.inputs.cell_runner import Batch, Cell, Part, Stage, Work, run_cell
from atlas.inputs.row_inputs import Inputs
from atlas.study.command import command
from atlas.study.errors import Fault, Unsupported, UserError
from atlas.study.schema.settings import Entry
from atlas.study.schema.signatures import signature
from atlas.study.schema.smoothing import Smoothing

if TYPE_CHECKING:
    from atlas.model.classifier import Classifier

# Of the maps that are voted on, whatever maps are stored in.
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


def plan(cell: Cell) -> list[VotePlan]:
    """Return the planned votes with their keys: all that a map depends on, the noise, and the form of the top."""
    listed = cell.study.methods
    trained = keys.classifier(cell.study, cell.classifier)
    found = row_inputs.gathered(cell.study, cell.classifier)
    plans = []
    for smoothing in cell.study.smoothings.values():
        for group, count in smoothing.pictures.items():
            chosen = [bound for name, bound in listed[cell.family].items() if name in smoothing.methods]
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
            plans += [_plan(cell, trained, bound, smoothing, seen, count) for bound in chosen]
    return plans


def batches(work: Work, classifier: "Classifier") -> Iterator[Batch]:
    """Yield the missing votes, some rows at a time, methods that share work together."""
    from atlas.inputs.voting import samples_per_row

    engine = work.cell.study.engine
    for plan in work.plans:
        work.passes.setdefault(plan.method.name, dict.fromkeys(classifier.passes, 0))
    for smoothing, group in dict.fromkeys((plan.smoothing.name, plan.seen.group) for plan in work.plans):
        alike = [i for i, one in enumerate(work.plans) if (one.smoothing.name, one.seen.group) == (smoothing, group)]
        seen = work.plans[alike[0]].seen
        size = at_a_time(samples_per_row(**work.plans[alike[0]].smoothing.settings), engine["batch"])
        wanted = row_inputs.batches({i: work.missing[i] for i in alike}, size, seen, engine["device"])
        for _, asking in groupby(wanted, key=lambda one: id(one[2])):
            together = list(asking)
            positions, given = together[0][1:]
            rows = positions.tobytes()
            parts = {i: Part(name(work.plans[i]), (i, rows), token(work.plans[i])) for i, _, _ in together}
            asked = [i for i, part in parts.items() if work.pending(part)]
            if asked:
                voted = [work.plans[i] for i in asked]
                make = partial(vote, voted, positions, {**given, "classifier": classifier}, work)
                failing = partial(at_fault, work.plans, voted)
                yield Batch([parts[i] for i in asked], make, row_inputs.some(seen, positions), failing=failing)


def at_fault(plans: list[VotePlan], voted: list[VotePlan], error: Exception) -> list[str]:
    """Return which votes failed: after a fault in one method, those on it; else all computed together."""
    faulty = [name(plan) for plan in plans if isinstance(error, Fault) and plan.method.name == error.name]
    return faulty or [name(plan) for plan in voted]


def vote(plans: list[VotePlan], positions: np.ndarray, given: dict[str, Any], work: Work) -> None:
    """Compute the votes on some methods' maps of some rows under one smoothing, and journal them.

    Raises:
        Fault: a method did something forbidden; then no vote is journaled.
    """
    from atlas.inputs.explain import Explainer
    from atlas.inputs.voting import votes

    explain = Explainer([plan.method for plan in plans], given["background"], DTYPE, calls.attributions)
    methods = {plan.method.name: explain.by(plan.method.name) for plan in plans}
    classifier, images, targets, seeds = (given[name] for name in ("classifier", "images", "targets", "seeds"))
    settings = plans[0].smoothing.settings
    cast = votes(classifier, images, targets, seeds, methods, work.passes, **settings)
    for plan in plans:
        found = cast[plan.method.name]
        if isinstance(found, Unsupported):
            work.rows.refuse(token(plan), str(found))
        elif isinstance(found, Exception):
            work.failures.add(name(plan), found, row_inputs.some(plan.seen, positions))
        else:
            both = np.stack([found["counts0"], found["counts"]], axis=1)
            work.rows.put(plan.table, positions, {"counts": both, "tied": found["tied"]})


def name(plan: VotePlan) -> str:
    """Return the label of the votes on a method under a smoothing, for messages."""
    return f"{plan.method.name} ({plan.smoothing.name})"


def token(plan: VotePlan) -> bytes:
    """Digest what all votes on a method's maps of one kind of picture share; a method may fail on grids only."""
    return keys.digest(plan.shared, plan.seen.group)


def at_a_time(samples: int, batch: int) -> int:
    """Return how many rows vote at a time: the fewest whose samples fill their batches."""
    return next(rows for rows in range(1, batch + 1) if rows * samples >= FILLED * batch * -(-rows * samples // batch))


def stacks(cell: Cell, plans: list[VotePlan], tables: list[Table]) -> list[Stack]:
    """Stack the votes on all methods under all smoothings with the same number of levels."""
    named: dict[str, dict[str, Table]] = {}
    longest: dict[str, tuple[Inputs, int]] = {}
    for plan, table in zip(plans, tables, strict=True):
        group, name = plan.smoothing.stored_as(plan.method.name, plan.seen.group)
        named.setdefault(group, {})[name] = table
        longest[group] = plan.seen, max(longest.get(group, (plan.seen, 0))[1], len(table.keys))
    return [stack(group, "votes", own, first_of(*longest[group])) for group, own in named.items()]


def first_of(seen: Inputs, number: int) -> Coords:
    """Return the labels of the first pictures."""
    return {
        name: (dims, labels[:number] if dims[0] == seen.dims[0] else labels)
        for name, (dims, labels) in seen.coords.items()
    }


def print_size(cell: Cell, tables: list[Table]) -> None:
    """Print the size of votes: the counts of a picture before compression, and the files."""
    output = cell.study.path("votes", *cell.names)
    shapes = {table.fields["counts"].shape[1:] for table in tables}
    packed = sum(file.stat().st_size for file in output.rglob("*") if file.is_file())
    rows = sum(int(table.keys.any(axis=-1).sum()) for table in tables)
    for shape in sorted(shapes):
        spelled = " x ".join(map(str, shape))
        print(f"{output.name}: votes of a picture: 2 x {spelled} = {2 * int(np.prod(shape))} bytes before compression")
    if rows:
        print(f"{output.name}: {rows} rows in {packed} bytes, {packed / rows:.0f} a row with their keys")


def _plan(cell: Cell, trained: bytes, bound: Entry, smoothing: Smoothing, seen: Inputs, count: int) -> VotePlan:
    named = signature("methods", bound.family, bound.function).inputs
    absent = row_inputs.missing_input(cell.study, cell.classifier, named)
    parts = [("atlas.inputs.voting", "votes"), ("atlas.inputs.explain", "Explainer"), ("stages.certify", "DTYPE")]
    shared = keys.digest(
        keys.entry(bound, cell.study, *parts), smoothing.settings, trained if "classifier" in named else b""
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
    attrs = {"units": "1", "reference": "anani2025pixel"}
    counted = "samples in whose map the pixel is at the top: of the first n0, and of the n others"
    tied = "samples in whose map equal scores lay at the edge of the top"
    fields = {
        "counts": Field(("samples", "level", "y", "x"), (2, *shape), "uint8", {"long_name": counted, **attrs}),
        "tied": Field(("level",), shape[:1], "uint16", {"long_name": tied, **attrs}),
    }
    table = Table(
        f"{bound.name}/{smoothing.name}/{seen.group}",
        seen.dims,
        np.frombuffer(made, "uint8").reshape(count, *seen.lead[1:], keys.SIZE),
        fields,
        first_of(seen, count),
        {**smoothing.settings, **({} if absent is None else {"unsupported": absent})},
    )
    return VotePlan(bound, smoothing, seen, shared, table)


STAGE = Stage(
    "certify",
    "votes",
    plan,
    batches,
    lambda cell, plans: {"": {"family": cell.family}},
    without_unsupported=lambda rows, plan: rows.without_unsupported(plan.table, token(plan)),
    stacks=stacks,
    failure_message="the votes on these methods failed, those on all others are kept",
    assembled=print_size,
)
main = partial(run_cell, STAGE)

if __name__ == "__main__":
    command(main, "classifier", "family")
