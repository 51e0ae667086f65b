"""Classifiers for which an image may have several labels, each with a sigmoid: what their entries may contain."""

from typing import Any

from atlas.study.errors import UserError

SIGMOIDS = "sigmoids"  # the last item of a network's `output`
PRESENT = 0.5  # one of several labels is predicted if its probability is at least this


def several_labels(output: int | str | list[int | str] | None) -> bool:
    """Return whether a network's `output` makes each of its logits that of a separate label.

    Raises:
        UserError: another item follows `sigmoids`.
    """
    steps = output if isinstance(output, list) else [output]
    if SIGMOIDS in steps[:-1]:
        raise UserError(f"params.yaml: network.output = {output!r}: expected {SIGMOIDS!r} last")
    return steps[-1:] == [SIGMOIDS]


def check_labels(spec: dict[str, Any], where: str) -> None:
    """Check that a classifier of several labels has no setting that needs images of a single class.

    Args:
        spec: The entry, complete.
        where: The entry's name.

    Raises:
        UserError: it is to be trained here, to have grids, or to have its prediction explained.
    """
    output = spec["network"].get("output")
    if not several_labels(output):
        return
    message = f"its network's output = {output!r} gives several labels per image"
    if spec["train"] is not None:
        raise UserError(f"params.yaml: {where}.train: {message}, which are not trained here; expected weights")
    if spec["grids"] is not None:
        expected = "expected null: a tile may also show another tile's target"
        raise UserError(f"params.yaml: {where}.grids: {message}; {expected}")
    if spec["images"]["target"] != "label":
        expected = "expected 'label': a row is of one label"
        raise UserError(f"params.yaml: {where}.images.target = {spec['images']['target']!r}: {message}; {expected}")
