"""Augment training images in ways that do not change their labels."""

import torch
from torch import Tensor

from atlas.study.errors import UserError


def augmented(pixels: Tensor, draws: torch.Generator, *, shift: int, mirror: bool, exchanged: list[int]) -> Tensor:
    """Shift with reflected borders, mirror left and right, and permute channels, each image separately.

    Returns:
        Intensities in [0, 1]; with shift 0, no mirroring and no channels, the images unchanged.
    """
    count, channels, height, width = pixels.shape

    def line(length: int) -> Tensor:
        at = (torch.arange(length) + torch.randint(-shift, shift + 1, (count, 1), generator=draws)).abs()
        return (length - 1) - ((length - 1) - at).abs()

    rows, columns = line(height), line(width)
    if mirror:
        columns = torch.where(torch.rand(count, 1, generator=draws) < 0.5, width - 1 - columns, columns)
    planes = torch.arange(channels).repeat(count, 1)
    if exchanged:
        places = torch.tensor(exchanged)
        planes[:, places] = places[torch.rand(count, len(exchanged), generator=draws).argsort(1)]
    each = torch.arange(count)[:, None, None, None]
    images = pixels[each, planes[:, :, None, None], rows[:, None, :, None], columns[:, None, None, :]]
    return images.float().div(255).contiguous(memory_format=torch.channels_last)


def check_recipe(recipe: dict, images: tuple[int, ...], where: str) -> None:
    """Check the settings of a recipe that depend on the training images.

    Args:
        recipe: Settings of `fit`.
        images: Shape of the training images, `image channel y x`.
        where: The entry of params.yaml.

    Raises:
        UserError: the batch is larger than the training set, the shift larger than the image, or a channel does not
            exist.
    """
    count, channels, *sides = images
    batch, shift, exchanged = recipe["batch"], recipe["shift"], recipe["exchanged"]
    if batch > count:
        raise UserError(
            f"params.yaml: {where}: batch = {batch}, but there are {count} training images; expected at most that"
        )
    if shift >= min(sides):
        raise UserError(
            f"params.yaml: {where}: shift = {shift}; expected less than {min(sides)}, the images' lesser side"
        )
    if len(set(exchanged)) < len(exchanged) or not all(0 <= channel < channels for channel in exchanged):
        expected = f"different channels of the images, 0 to {channels - 1}"
        raise UserError(f"params.yaml: {where}: exchanged = {exchanged}; expected {expected}, or [] for none")
