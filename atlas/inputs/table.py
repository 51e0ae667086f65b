"""The table of the inputs that methods and metrics may declare: what provides each, and what puts it into keys.

`INPUTS` in `atlas/study/schema/signatures.py` lists which of them methods may declare, and which metrics.
"""

from typing import NamedTuple


class Input(NamedTuple):
    """An input of methods and metrics.

    gives: What provides it, as (module, name).
    digests: What puts it into the keys of rows of functions that declare it, as (module, name).
    whole: If it covers all rows that a metric scores and not only a batch: the input that it collects.
    brought: Whether the code that provides it is in the keys of rows of functions that declare it, and of no others.
    """

    gives: tuple[str, str]
    digests: tuple[str, str]
    whole: str = ""
    brought: bool = False


OF_ROWS, ROW = ("atlas.inputs.row_inputs", "tensors"), ("atlas.inputs.row_inputs", "digests")
STORED, SCORE = ("atlas.inputs.metric_inputs", "taken"), ("atlas.inputs.score_plan", "keyed")

TABLE: dict[str, Input] = {
    "images": Input(OF_ROWS, ROW),
    "targets": Input(OF_ROWS, ROW),
    "seeds": Input(OF_ROWS, ROW),
    "classifier": Input(("atlas.inputs.audit.building", "load_classifier"), ("atlas.cache.keys", "classifier")),
    "background": Input(("atlas.inputs.row_inputs", "intensities"), ROW),
    "masks": Input(OF_ROWS, ROW),
    "boxes": Input(OF_ROWS, ROW),
    "tiles": Input(OF_ROWS, ROW),
    "maps": Input(STORED, SCORE),
    "explain": Input(("atlas.inputs.explain", "Explainer"), SCORE, brought=True),
    "votes": Input(("atlas.inputs.metric_inputs", "counted"), SCORE, brought=True),
    "positions": Input(("atlas.inputs.metric_inputs", "MetricInputs"), SCORE),
    "all_maps": Input(STORED, SCORE, whole="maps"),
    "all_images": Input(OF_ROWS, SCORE, whole="images"),
    "all_targets": Input(OF_ROWS, SCORE, whole="targets"),
    "all_seeds": Input(OF_ROWS, SCORE, whole="seeds"),
}


def whole(declared: list[str]) -> dict[str, str]:
    """Return the declared inputs that cover all rows, each with the input that it collects."""
    return {name: TABLE[name].whole for name in declared if TABLE[name].whole}


def brought(declared: list[str]) -> tuple[tuple[str, str], ...]:
    """Return what provides the declared inputs whose code is in keys."""
    return tuple(one.gives for name, one in TABLE.items() if one.brought and name in declared)
