"""Ask a classifier about many masked versions of every image, once for rows that are alike."""

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
    beside: Tensor | None = None,
) -> Tensor:
    """Return the target's output of every image (rows) under every mask (columns).

    Rows of the same pixels, as the tiles of a grid are, are asked about once, where what lies beside them is the same
    too. No more than one batch of masked images exists at a time.

    Args:
        masks: Number of masks.
        batch: Masked images made at a time.
        hide: Applies to each of these copies the mask of that number; it may change them.
        ask: Gives the outputs of every class, given the masked copies and the rows they are of.
        beside: What else of every row `ask` looks at.
    """
    groups = alike(images) if beside is None else alike(images, beside)
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
    """Group the rows whose parts are all the same: those of tensors bit for bit, seeds by value."""
    groups: dict[tuple, list[int]] = {}
    parts = [[row.numpy().tobytes() for row in part.cpu()] if isinstance(part, Tensor) else part for part in parts]
    for row, key in enumerate(zip(*parts, strict=True)):
        groups.setdefault(key, []).append(row)
    return list(groups.values())
