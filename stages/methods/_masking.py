"""Ask a classifier about many masked versions of every image."""

from collections.abc import Callable

from torch import Tensor

from stages.arrays import Images, Logits, Targets
from stages.methods._batches import pairs


def answers(
    images: Images,
    targets: Targets,
    masks: int,
    batch: int,
    hide: Callable[[Images, list[int]], Images],
    ask: Callable[[Images, list[int]], Logits],
) -> Tensor:
    """Give the target's output of every image (rows) under every mask (columns).

    Rows of the same pixels, as the tiles of a grid are, are asked about once. No more than one batch of masked
    images exists at a time.

    Args:
        masks: Number of masks.
        batch: Masked images made at a time.
        hide: Applies to each of these copies the mask of that number; it may change them.
        ask: Gives the outputs of every class, given the masked copies and the rows they are of.
    """
    groups = list(_same_pixels(images).values())
    found = images.new_empty(len(images), masks)
    # Masks outside, images inside: neighbors share a mask, which is then made once.
    for batched in pairs(masks, len(groups), batch):
        firsts = [groups[group][0] for _, group in batched]
        outputs = ask(hide(images[firsts], [mask for mask, _ in batched]), firsts)
        places = [(place, mask, row) for place, (mask, group) in enumerate(batched) for row in groups[group]]
        place, mask, row = (list(numbers) for numbers in zip(*places, strict=True))
        found[row, mask] = outputs[place, targets[row]]
    return found


def _same_pixels(images: Images) -> dict[bytes, list[int]]:
    rows: dict[bytes, list[int]] = {}
    for row, image in enumerate(images.cpu()):
        rows.setdefault(image.numpy().tobytes(), []).append(row)
    return rows
