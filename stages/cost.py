"""Count the passes that maps and scores take: `python -m stages.cost CLASSIFIER`.

Writes `data/cost/<classifier>.zarr`: the passes for a method's map of one image (group `methods`: forward, backward and
head, over `method`), and for a metric's score of one map (group `metrics`: the same and explained, over `metric`). Each
is measured alone: a method on the map of the first evaluation image, a metric on the first row of the first method that
it scores. The passes of maps that a metric requests count as the method's, so that its own do not depend on the method:

    passes of a metric's score of a method's map = passes of the metric + explained · passes of the method
"""

from collections import Counter
from collections.abc import Callable, Collection, Iterator
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from atlas.cache import keys, score_store
from atlas.cache.stacks import keys_of, place
from atlas.cache.stores import read, values
from atlas.cache.tables import Field, Table
from atlas.inputs import calls, row_inputs
from atlas.inputs.cell_runner import Batch, Cell, Part, Stage, Work, run_cell
from atlas.inputs.metric_inputs import MetricInputs, of_whole_set
from atlas.study.command import command
from atlas.study.errors import UserError
from atlas.study.schema.settings import Entry
from atlas.study.schema.signatures import signature

if TYPE_CHECKING:
    from torch import Tensor

    from atlas.model.classifier import Classifier
    from atlas.model.lazy_images import LazyImages

FIELDS = {
    "forward": ("forward passes", "passes"),
    "backward": ("backward passes", "passes"),
    "head": ("forward passes of what follows a layer alone", "passes"),
    "explained": ("maps that the method makes for the metric, those that are voted on among them", "maps"),
}


class MeasuredRow(NamedTuple):
    """The row on which a metric's cost is measured: the method, the row, and the key of its score."""

    method: str
    row: int
    key: bytes


class CostPlan(NamedTuple):
    """The planned costs of methods, or of metrics.

    entries: The methods or metrics, in the order of the table.
    measured_on: The rows on which metrics are measured; metrics that score nothing are left out.
    table: The table of the costs.
    """

    entries: list[Entry]
    measured_on: dict[str, MeasuredRow]
    table: Table


def plan(cell: Cell) -> list[CostPlan]:
    """Return the planned costs with their keys: those of the map, or the score, on which they are measured."""
    study, classifier, _ = cell
    of_methods, of_metrics = {}, {}
    methods, metrics = study.all_methods, study.all_metrics
    for name, bound in methods.items():
        first = keys_of(place(study.path("maps", classifier, bound.family), "images", name, "maps"))[0][0]
        of_methods[name] = keys.digest(keys.code(("stages.cost", "of_map")), first.tobytes()) if first.any() else None
    scored = [score_store.find(study.path("scores", classifier, family)) for family in study.methods]
    measured_on = {name: _measured_on(metric, scored, methods) for name, metric in metrics.items()}
    for name, first in measured_on.items():
        of_metrics[name] = first and keys.digest(keys.code(("stages.cost", "of_score")), first.key)
    known = {name: first for name, first in measured_on.items() if first}
    return [
        CostPlan([*methods.values()], {}, _table("method", of_methods, ["forward", "backward", "head"])),
        CostPlan([*metrics.values()], known, _table("metric", of_metrics, list(FIELDS))),
    ]


def batches(work: Work, classifier: "Classifier") -> Iterator[Batch]:
    """Yield the missing costs of methods and of metrics, one by one.

    Passes are counted in images and not in batches, so a batch is one image: nothing is padded.
    """
    seen = row_inputs.gathered(work.cell.study, work.cell.classifier)
    for i, plan in enumerate(work.plans):
        for position in work.missing[i].tolist():
            entry = plan.entries[position]
            measured_on = plan.measured_on.get(entry.name)
            name = entry.name if measured_on is None else f"{entry.name} ({measured_on.method})"
            if work.pending(part := Part(name, (i, position))):
                measure = cost_of_method if measured_on is None else partial(cost_of_metric, measured_on)
                asked = partial(measure, work.cell, entry, seen, classifier)
                yield Batch([part], partial(count, work, plan.table, position, name, asked))


def count(work: Work, table: Table, position: int, name: str, measure: Callable[[], dict[str, int]]) -> None:
    """Measure a cost and journal it."""
    found = measure()
    work.rows.put(table, np.array([position]), {kind: np.array([number]) for kind, number in found.items()})
    work.passes[name] = found


def cost_of_method(
    cell: Cell, method: Entry, seen: dict[str, row_inputs.Inputs], classifier: "Classifier"
) -> dict[str, int]:
    """Count the passes that a method takes for the map of the first image."""
    given = row_inputs.of_row(seen["images"], 0, cell.study.engine["device"])
    return of_map(method, {**given, "classifier": classifier}, cell.study.dtype, calls.attributions)


def cost_of_metric(
    measured_on: MeasuredRow, cell: Cell, metric: Entry, seen: dict[str, row_inputs.Inputs], classifier: "Classifier"
) -> dict[str, int]:
    """Count the passes that a metric takes for the row that its cost is measured on."""
    from atlas.inputs.voting import samples_per_row

    study, name, _ = cell
    engine = {**study.engine, "batch": STAGE.batch}
    declared = signature("metrics", metric.family, metric.function).inputs
    own = seen["grids" if "tiles" in declared else "images"]
    smoothings = [study.smoothings[one] for one in metric.options["smoothings"]]
    method, row, _ = measured_on
    at, listed, dtype = np.array([row]), {method: study.all_methods[method]}, study.dtype
    inputs = MetricInputs(study, name, listed, own, {(0, method): at}, {0: declared}, engine, dtype, {0: smoothings})
    given = {**row_inputs.of_row(own, row, engine["device"]), "classifier": classifier}
    # Metrics that look at a whole set get the one that ends with this row.
    provided = inputs.provide(0, method, row + 1, at, given)
    return of_score(
        metric, provided, sum(samples_per_row(**smoothing.settings) for smoothing in smoothings), calls.call
    )


def of_map(bound: Entry, given: dict[str, Any], dtype: str, call: Callable[..., "Tensor"]) -> dict[str, int]:
    """Count the passes of a method for maps of some images, computed alone.

    Args:
        bound: The method's entry.
        given: The classifier, images and all other inputs that methods may declare.
        dtype: The dtype of stored maps.
        call: Returns the attributions of a method.
    """
    from atlas.inputs.explain import Explainer

    explain = Counted(Explainer([bound], given["background"], dtype, call).by(bound.name))
    explain(*(given[name] for name in ("classifier", "images", "targets", "seeds")))
    return dict(explain.passes)


def of_score(metric: Entry, provided: dict[str, Any], voted: int, call: Callable[..., "Tensor"]) -> dict[str, int]:
    """Count the passes of a metric without those of the maps that it requests, and count these maps.

    Args:
        metric: The metric's entry.
        provided: The inputs that it declares.
        voted: The number of maps behind its votes.
        call: Calls a metric with inputs.
    """
    explain = Counted(provided.get("explain"))
    before = dict(provided["classifier"].passes)
    call(metric, {**provided, "explain": explain})
    passes = {kind: count - explain.passes[kind] for kind, count in since(provided["classifier"], before).items()}
    return {**passes, "explained": voted + explain.maps}


class Counted:
    """Pass a method through unchanged, and count the maps that it makes and their passes."""

    def __init__(self, explain: Callable[..., "Tensor"] | None):
        self._explain = explain
        self.maps = 0
        self.passes: Counter[str] = Counter()

    def __call__(
        self,
        classifier: "Classifier",
        images: "Tensor | LazyImages",
        targets: "Tensor",
        seeds: list[int],
        alone: bool = False,
    ) -> "Tensor":
        """Make maps."""
        before = dict(classifier.passes)
        assert self._explain is not None  # a metric calls it only if it declares it
        maps = self._explain(classifier, images, targets, seeds, alone=alone)
        self.passes.update(since(classifier, before))
        self.maps += len(images)
        return maps


def since(classifier: "Classifier", before: dict[str, int]) -> dict[str, int]:
    """Return the passes that a classifier has made since an earlier count."""
    return {kind: count - before[kind] for kind, count in classifier.passes.items()}


def _measured_on(metric: Entry, scored: list[score_store.Found], methods: Collection[str]) -> MeasuredRow | None:
    """Find the first defined score of a metric: an undefined one may take fewer passes.

    If none is defined, or if the metric looks at a whole set, which grows from row to row, it is the first score.

    Args:
        metric: The metric.
        scored: The scores of each family.
        methods: The names of the methods of params.yaml.

    Raises:
        UserError: a store lacks the metric, has a method that params.yaml does not name, or cannot be read.
    """
    whole = of_whole_set(signature("metrics", metric.family, metric.function).inputs)
    first = None
    for path, places, absent in scored:
        if metric.name in absent:
            return None
        if metric.name not in places:
            raise UserError(f"{path}: there are no scores of {metric.name}; run stages.score again")
        place = places[metric.name]
        store = read(place.folder, f"the scores of {metric.name}")
        listed = values(store, "method").tolist()
        scores, keyed = values(store, score_store.SCORE, slice(*place.span)), keys_of(place)[0]
        try:
            scores = score_store.shaped(scores, place, listed)
        except ValueError as error:
            raise UserError(f"{path}: no scores of {metric.name} ({error}); run stages.score again") from None
        for at, name in enumerate(place.attrs["methods"]):
            if name not in methods:
                raise UserError(
                    f"{path}: there are scores of {name}, which params.yaml does not name; run stages.score again"
                )
            made = keyed[listed.index(name)][: place.attrs["count"]].reshape(-1, keys.SIZE)
            asked = made.any(axis=1)
            defined = asked & np.isfinite(scores[at]).reshape(len(made), -1).any(axis=1)
            if asked.any():
                first = first or MeasuredRow(name, int(asked.argmax()), made[asked.argmax()].tobytes())
            if whole and first:
                return first
            if defined.any():
                return MeasuredRow(name, int(defined.argmax()), made[defined.argmax()].tobytes())
    return first


def _table(dim: str, known: dict[str, bytes | None], fields: list[str]) -> Table:
    made = b"".join(key or bytes(keys.SIZE) for key in known.values())
    attrs = {"better": "lower", "reference": "by definition"}
    return Table(
        f"{dim}s",
        (dim,),
        np.frombuffer(made, "uint8").reshape(-1, keys.SIZE),
        {
            name: Field((), (), "int64", {"long_name": long_name, "units": units, **attrs})
            for name, (long_name, units) in FIELDS.items()
            if name in fields
        },
        {dim: ((dim,), np.array(list(known), dtype=np.dtypes.StringDType()))},
    )


STAGE = Stage(
    "cost",
    "cost",
    plan,
    batches,
    lambda cell, plans: {"": {}},
    failure_message="these could not be measured, all other costs are kept",
    batch=1,
)
main = partial(run_cell, STAGE)

if __name__ == "__main__":
    command(main, "classifier")
