"""Evaluate a classifier on many masked versions of every image, once for equal rows."""

from collections.abc import Callable

from torch import Tensor

from atlas.methods.shared.batches import pairs
from atlas.model.arrays import Images, Logits, Targets


def answers(
    images: Images,
    targets: Targets,
    masks: int,
    batch: int,
    hide: Callable[[Images, list[int]], Images],
    ask: Callable[[Images, list[int]], Logits],
    bypass: Tensor | None = None,
) -> Tensor:
    """Return the target's output of every image (rows) under every mask (columns).

    Rows of the same pixels, such as the tiles of a grid, are evaluated once, if their other inputs are equal, too. At
    most one batch of masked images exists at a time.

    Args:
        masks: Number of masks.
        batch: Masked images made at a time.
        hide: Applies the masks of the given numbers to copies of images, which it may modify.
        ask: Returns the outputs of every class, given the masked copies and their rows.
        bypass: Other inputs of `ask`, per row.
    """
    groups = alike(images) if bypass is None else alike(images, bypass)
    found = images.new_empty(len(images), masks)
    # Masks outside, images inside: neighbors share a mask, which is then made once.
    for batched in pairs(masks, len(groups), batch):
        firsts = [groups[group][0] for _, group in batched]
        outputs = ask(hide(images[firsts], [mask for mask, _ in batched]), firsts)
        places = [(place, mask, row) for place, (mask, group) in enumerate(batched) for row in groups[group]]
        place, mask, row = (list(numbers) for numbers in zip(*places, strict=True))
        found[row, mask] = outputs[place, targets[row]].to(found.dtype)
    return found


def alike(*parts: Tensor | list[int]) -> list[list[int]]:
    """Group rows whose parts are all equal: tensors bit for bit, seeds by value."""
    groups: dict[tuple, list[int]] = {}
    keys = [[row.numpy().tobytes() for row in part.cpu()] if isinstance(part, Tensor) else part for part in parts]
    for row, key in enumerate(zip(*keys, strict=True)):
        groups.setdefault(key, []).append(row)
    return list(groups.values())
