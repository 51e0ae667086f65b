"""What methods and metrics may ask for by naming it: one table of who may, what gives it, what puts it into keys."""

from typing import NamedTuple


class Input(NamedTuple):
    """An input of methods and metrics.

    kinds: Whose functions may name it.
    gives: What gives it, as (module, name).
    digests: What puts it into the keys of rows that name it, as (module, name).
    whole: Where it is of all rows that a metric judges, and not of those at hand alone: the input that it has of each.
    brought: Whether the code of what gives it is in the keys of rows that name it, and of no others.
    """

    kinds: tuple[str, ...]
    gives: tuple[str, str]
    digests: tuple[str, str]
    whole: str = ""
    brought: bool = False


BOTH, METHODS, METRICS = ("methods", "metrics"), ("methods",), ("metrics",)
OF_ROWS, ROW = ("atlas.inputs.row_inputs", "tensors"), ("atlas.inputs.row_inputs", "digests")
STORED, SCORE = ("atlas.inputs.metric_inputs", "taken"), ("atlas.inputs.score_plan", "keyed")

INPUTS: dict[str, Input] = {
    "images": Input(BOTH, OF_ROWS, ROW),
    "targets": Input(BOTH, OF_ROWS, ROW),
    "seeds": Input(BOTH, OF_ROWS, ROW),
    "classifier": Input(BOTH, ("atlas.inputs.audit.building", "load_classifier"), ("atlas.cache.keys", "classifier")),
    "background": Input(METHODS, ("atlas.inputs.row_inputs", "intensities"), ROW),
    "masks": Input(METRICS, OF_ROWS, ROW),
    "boxes": Input(METRICS, OF_ROWS, ROW),
    "tiles": Input(METRICS, OF_ROWS, ROW),
    "maps": Input(METRICS, STORED, SCORE),
    "explain": Input(METRICS, ("atlas.inputs.explain", "Explainer"), SCORE, brought=True),
    "votes": Input(METRICS, ("atlas.inputs.metric_inputs", "counted"), SCORE, brought=True),
    "positions": Input(METRICS, ("atlas.inputs.metric_inputs", "MetricInputs"), SCORE),
    "all_maps": Input(METRICS, STORED, SCORE, whole="maps"),
    "all_images": Input(METRICS, OF_ROWS, SCORE, whole="images"),
    "all_targets": Input(METRICS, OF_ROWS, SCORE, whole="targets"),
    "all_seeds": Input(METRICS, OF_ROWS, SCORE, whole="seeds"),
}


def inputs_of(kind: str) -> list[str]:
    """Return what functions of a kind may ask for."""
    return ["path"] if kind == "datasets" else sorted(name for name, one in INPUTS.items() if kind in one.kinds)


def whole(asks: list[str]) -> dict[str, str]:
    """Return which inputs of all rows are asked for, each with the input that it has of each row."""
    return {name: INPUTS[name].whole for name in asks if INPUTS[name].whole}


def brought(asks: list[str]) -> tuple[tuple[str, str], ...]:
    """Return what gives the inputs that are asked for, where its code comes with them."""
    return tuple(one.gives for name, one in INPUTS.items() if one.brought and name in asks)
