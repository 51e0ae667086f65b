"""The table of the inputs that methods and metrics may declare: what provides each.

`INPUTS` in `atlas/study/schema/signatures.py` lists which of them methods may declare, and which metrics.
"""

from typing import NamedTuple


class Input(NamedTuple):
    """An input of methods and metrics.

    provider: What provides it, as (module, name).
    whole: If it covers all rows that a metric scores and not only a batch: the input that it collects.
    code_in_key: Whether the provider's code is in the keys of rows of functions that declare it, and of no others.
    """

    provider: tuple[str, str]
    whole: str = ""
    code_in_key: bool = False


OF_ROWS, STORED = ("atlas.inputs.row_inputs", "tensors"), ("atlas.inputs.metric_inputs", "taken")

TABLE: dict[str, Input] = {
    "images": Input(OF_ROWS),
    "targets": Input(OF_ROWS),
    "seeds": Input(OF_ROWS),
    "classifier": Input(("atlas.inputs.audit.building", "load_classifier")),
    "background": Input(("atlas.inputs.row_inputs", "intensities")),
    "masks": Input(OF_ROWS),
    "boxes": Input(OF_ROWS),
    "tiles": Input(OF_ROWS),
    "maps": Input(STORED),
    "explain": Input(("atlas.inputs.explain", "Explainer"), code_in_key=True),
    "votes": Input(("atlas.inputs.metric_inputs", "counted"), code_in_key=True),
    "positions": Input(("atlas.inputs.metric_inputs", "MetricInputs")),
    "all_maps": Input(STORED, whole="maps"),
    "all_images": Input(OF_ROWS, whole="images"),
    "all_targets": Input(OF_ROWS, whole="targets"),
    "all_seeds": Input(OF_ROWS, whole="seeds"),
}


def whole(declared: list[str]) -> dict[str, str]:
    """Return the declared inputs that cover all rows, each with the input that it collects."""
    return {name: TABLE[name].whole for name in declared if TABLE[name].whole}


def providers_in_key(declared: list[str]) -> tuple[tuple[str, str], ...]:
    """Return what provides the declared inputs whose code is in keys."""
    return tuple(one.provider for name, one in TABLE.items() if one.code_in_key and name in declared)
