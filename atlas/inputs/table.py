"""One table of what methods and metrics may ask for by naming it: what gives it, and what puts it into keys.

Who may ask for what is a matter of params.yaml (`INPUTS` in `atlas/study/schema/signatures.py`).
"""

from typing import NamedTuple


class Input(NamedTuple):
    """An input of methods and metrics.

    gives: What gives it, as (module, name).
    digests: What puts it into the keys of rows that name it, as (module, name).
    whole: Where it is of all rows that a metric judges, and not of those at hand alone: the input that it has of each.
    brought: Whether the code of what gives it is in the keys of rows that name it, and of no others.
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


def whole(asks: list[str]) -> dict[str, str]:
    """Return which inputs of all rows are asked for, each with the input that it has of each row."""
    return {name: TABLE[name].whole for name in asks if TABLE[name].whole}


def brought(asks: list[str]) -> tuple[tuple[str, str], ...]:
    """Return what gives the inputs that are asked for, where its code comes with them."""
    return tuple(one.gives for name, one in TABLE.items() if one.brought and name in asks)
