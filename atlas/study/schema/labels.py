"""Whether an image may have several labels, each by a sigmoid, and what a classifier's entry may ask for then."""

from typing import Any

from atlas.study.errors import UserError

SIGMOIDS = "sigmoids"  # the last of what `output` says of a network
PRESENT = 0.5  # a label of several is predicted where its probability is at least this


def several_labels(output: int | str | list[int | str] | None) -> bool:
    """Return whether a network's `output` makes each of its logits that of a label of its own.

    Raises:
        UserError: something is to follow that.
    """
    steps = output if isinstance(output, list) else [output]
    if SIGMOIDS in steps[:-1]:
        raise UserError(f"params.yaml: network.output = {output!r}: expected {SIGMOIDS!r} last")
    return steps[-1:] == [SIGMOIDS]


def check_labels(spec: dict[str, Any], where: str) -> None:
    """Check that a classifier of several labels is asked for nothing that needs an image to have one class.

    Args:
        spec: Its entry, complete.
        where: The entry's name.

    Raises:
        UserError: it is to be trained here, to have grids, or to have its prediction explained.
    """
    output = spec["network"].get("output")
    if not several_labels(output):
        return
    told = f"its network's output = {output!r} gives several labels an image"
    if spec["train"] is not None:
        raise UserError(f"params.yaml: {where}.train: {told}, which are not trained here; expected weights")
    if spec["grids"] is not None:
        due = "expected null: a tile may show what another one's target is"
        raise UserError(f"params.yaml: {where}.grids: {told}; {due}")
    if spec["images"]["target"] != "label":
        due = "expected 'label': a row is of one label"
        raise UserError(f"params.yaml: {where}.images.target = {spec['images']['target']!r}: {told}; {due}")
