"""Make the maps of one method family for one classifier: `python -m stages.attribute CLASSIFIER FAMILY`.

Reads the classifier, its evaluation images and grids; writes `data/maps/<classifier>/<family>.zarr` with the groups
`images` (attribution: method image y x) and `grids` (attribution: method grid tile y x): see `atlas.cache.stacks`.
"""

import sys
from collections import Counter
from collections.abc import Iterator
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from atlas.cache import keys
from atlas.cache.rows import RowStore
from atlas.cache.stacks import Stack, stack
from atlas.cache.tables import Field, Table
from atlas.inputs import calls, row_inputs
from atlas.inputs.cell_runner import Batch, Cell, Part, Stage, Work, run_cell
from atlas.inputs.row_inputs import Inputs
from atlas.study.command import command
from atlas.study.errors import Unsupported, UserError
from atlas.study.params import CHOOSING
from atlas.study.schema.settings import Entry, canonical
from atlas.study.schema.signatures import attributes, signature

if TYPE_CHECKING:
    from torch import Tensor

    from atlas.model.classifier import Classifier


class MapPlan(NamedTuple):
    """The planned maps of one method for one kind of picture, with their keys."""

    method: Entry
    seen: Inputs
    shared: bytes  # digest of what all these maps share
    table: Table


def plan(cell: Cell) -> list[MapPlan]:
    """Return the planned maps with their keys; a key includes the classifier if the method declares it."""
    study, classifier, family = cell
    listed = study.methods[family]
    trained = keys.classifier(study, classifier)
    plans = []
    for seen in row_inputs.gathered(study, classifier).values():
        for bound in listed.values():
            named = signature("methods", bound.family, bound.function).inputs
            shared = keys.digest(
                keys.entry(bound, study, *calls.parts(bound)),
                trained if "classifier" in named else b"",
            )
            absent = row_inputs.missing_input(study, classifier, named)
            if seen.group == "grids" and not bound.options["grids"]:
                absent = f"methods.{bound.family}.{bound.name} says grids: false"
            made = np.zeros((*seen.lead, keys.SIZE), "uint8")
            if absent is None:
                _key(made, bound, seen, shared, named)
            table = Table(
                f"{bound.name}/{seen.group}",
                seen.dims,
                made,
                {"attribution": Field(("y", "x"), seen.side, study.dtype, {"long_name": "attribution"})},
                seen.coords,
                described(bound) | ({} if absent is None else {"unsupported": absent}),
            )
            plans.append(MapPlan(bound, seen, shared, table))
    return plans


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


def batches(work: Work, classifier: "Classifier") -> Iterator[Batch]:
    """Yield the missing maps batch by batch, methods that share work together."""
    from atlas.inputs.explain import attributions_of

    engine = work.cell.study.engine
    asking = [work.plans[i] for i, positions in work.missing.items() if len(positions)]
    alike = Counter((plan.seen.group, attributions_of(plan.method)) for plan in asking)
    attributions: dict[str, Tensor] = {}  # attributions of this batch that several entries reduce differently
    images = None
    for seen in {plan.seen.group: plan.seen for plan in work.plans}.values():
        wanted = {i: positions for i, positions in work.missing.items() if work.plans[i].seen is seen}
        for i, positions, given in row_inputs.batches(wanted, engine["batch"], seen, engine["device"]):
            plan = work.plans[i]
            if given["images"] is not images:
                attributions, images = {}, given["images"]
            part = Part(plan.method.name, (i, positions.tobytes()), plan.shared)
            if work.pending(part):
                several = alike[seen.group, attributions_of(plan.method)] > 1
                asked = plan, positions, {**given, "classifier": classifier}, work.rows, attributions if several else {}
                yield Batch([part], partial(make, *asked), row_inputs.some(seen, positions), plan.method.name)


def make(
    plan: MapPlan, positions: np.ndarray, given: dict[str, Any], rows: RowStore, attributions: dict[str, "Tensor"]
) -> None:
    """Compute one method's maps of a batch and journal them, or journal why it cannot.

    A map with any value that is not finite is undefined: all of it is stored as NaN, under its key.

    Args:
        plan: The plan of the maps.
        positions: The rows to compute.
        given: Their inputs, by name.
        rows: The store with the journal.
        attributions: Attributions of this batch, by `attributions_of`; those computed here are added.

    Raises:
        Fault: the method did something forbidden.
        ValueError: it returned no maps of these images, or maps that cannot be stored.
    """
    from atlas.inputs.explain import attributions_of, mapped
    from atlas.inputs.summing import check_sum

    bound = plan.method
    known = attributions_of(bound)
    try:
        if known not in attributions:
            attributions[known] = calls.attributions(bound, given)
        check_sum(bound, attributions[known], given, calls.attributions)
    except Unsupported as reason:
        rows.refuse(plan.shared, str(reason))
        return
    reduction = {name: bound.options[name] for name in ("channels", "reverse")}
    maps = mapped(attributions[known], given["classifier"].batched, plan.seen.side, given["seeds"], **reduction)
    rows.put(plan.table, positions, {"attribution": storable(plan, positions, maps.cpu().numpy())})


def storable(plan: MapPlan, positions: np.ndarray, maps: np.ndarray) -> np.ndarray:
    """Return maps as they are stored, undefined ones as NaN, with a message about these on stderr.

    Raises:
        ValueError: the dtype of stored maps cannot hold them; the message names the images.
    """
    dtype = plan.table.fields["attribution"].dtype
    undefined = ~np.isfinite(maps).all(axis=(1, 2))
    with np.errstate(over="ignore"):
        stored = maps.astype(dtype)
    stored[undefined] = np.nan
    fits = np.isfinite(stored).all(axis=(1, 2)) & (stored.any(axis=(1, 2)) | ~maps.any(axis=(1, 2)))
    if not (undefined | fits).all():
        shown = row_inputs.some(plan.seen, positions[~undefined & ~fits])
        raise ValueError(f"its maps cannot be stored as {dtype}: too large, or too small, for the images {shown}")
    if undefined.any():
        shown = row_inputs.some(plan.seen, positions[undefined])
        message = "is not finite, and stored as NaN (undefined); so are its scores"
        print(f"method {plan.method.name}: the map of {shown} {message}", file=sys.stderr)
    return stored


def stacks(cell: Cell, plans: list[MapPlan], tables: list[Table]) -> list[Stack]:
    """Stack the maps of all methods, those of images and those of grids."""
    named: dict[str, dict[str, Table]] = {}
    for plan, table in zip(plans, tables, strict=True):
        named.setdefault(plan.seen.group, {})[plan.method.name] = table
    seen = {plan.seen.group: plan.seen for plan in plans}
    return [stack(group, "method", own, seen[group].coords) for group, own in named.items()]


def described(bound: Entry) -> dict[str, str]:
    """Return the attributes that describe a method, beside its maps."""
    known = attributes("methods", bound.family, bound.function)
    shaping = {name: value for name, value in bound.options.items() if name not in CHOOSING}
    return {**known, "family": bound.family, "settings": canonical({**bound.settings, **shaping})}


STAGE = Stage(
    "attribute",
    "maps",
    plan,
    batches,
    lambda cell, plans: {"": {"family": cell.family}},
    without_unsupported=lambda rows, plan: rows.without_unsupported(plan.table, plan.shared),
    stacks=stacks,
    failure_message="these methods failed, the maps of all others are kept",
)
main = partial(run_cell, STAGE)

if __name__ == "__main__":
    command(main, "classifier", "family")
