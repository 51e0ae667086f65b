"""Train a classifier's network: two trainings on the same kind of machine give the same weights."""

import math
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from safetensors.torch import save
from torch import Tensor, nn

from atlas.classifiers.augmentation import augmented, check_recipe
from atlas.inputs.audit.building import building
from atlas.inputs.splits import Split
from atlas.model.attacks import attack
from atlas.model.comparing import compared
from atlas.model.loading import build, watched_logits
from atlas.model.runtime import start
from atlas.study.errors import UserError
from atlas.study.schema.types import Count, NotNegative, Positive, Share
from atlas.study.seeds import generator

if TYPE_CHECKING:
    from atlas.study.study import Study


def trained(study: "Study", classifier: str, images: Split) -> tuple[bytes, dict[str, Any]]:
    """Train on the dataset's training split; return the weights as a safetensors file, and the contents of the card.

    Images are read a few at a time; as many as fit are kept, since every epoch uses them in another order.

    Raises:
        UserError: there is no training image, the recipe does not suit the images, or the network returns no logits.
    """
    spec, seed = study.classifier(classifier), study.seed
    if not len(images):
        raise UserError(f"dataset {images.dataset}: training needs images of the split train, it has none")
    deterministic(study.engine)
    check_recipe(spec["train"], (len(images), *images.shape), f"classifiers.{classifier}.train")
    mean, std = moments(map(images.pixels, images.blocks()), images.dataset)
    network = begun(study.folder, spec["network"], len(images.classes), seed)
    about: dict[str, Any] = {"mean": mean, "std": std, "engine": study.engine}
    one = torch.from_numpy(images.pixels(slice(0, 1))).float().div(255)
    normalized = {"mean": mean, "std": std}
    watched_logits(classifier, network.eval(), spec["network"], one, **normalized, watch=building, root=study.folder)
    compared(classifier, network, one, **about)  # checks that it returns logits
    labels = torch.from_numpy(images.labels)
    fit(network.to(study.engine["device"]), images.cached(), labels, seed, mean, std, **spec["train"])
    weights = {name: value.cpu().clone().contiguous() for name, value in network.state_dict().items()}
    card = {"recipe": spec["train"], "seed": seed, "mean": mean, "std": std, "trained_on": len(images)}
    return save(weights), card


def deterministic(engine: dict) -> None:
    """Make equal trainings give equal weights."""
    start(engine)
    torch.set_deterministic_debug_mode("error")


def begun(root: Path, network: dict, classes: int, seed: int) -> nn.Module:
    """Build a network with seeded weights."""
    torch.manual_seed(seed)
    return build(network, classes=classes, watch=building, root=root)


def fit(
    network: nn.Module,
    pixels: Callable[[np.ndarray], np.ndarray],
    labels: Tensor,
    seed: int,
    mean: list[float],
    std: list[float],
    *,
    epochs: Count,
    batch: Count,
    learning_rate: Positive,
    weight_decay: NotNegative,
    shift: int,
    mirror: bool,
    exchanged: list[int],
    adversary: dict | None,
    adversarial_start: Share,
) -> None:
    """Train in place by stochastic gradient descent with Nesterov momentum and one cycle of the learning rate.

    Args:
        network: The network to train.
        pixels: Returns training images by position, 8 bits.
        labels: The labels of all training images.
        seed: Seed of shuffling, augmentation and attacks.
        mean, std: Normalization of each channel.
        epochs: Passes over the training split.
        batch: Images per step.
        learning_rate: Largest learning rate.
        weight_decay: Weight decay.
        shift: Largest shift of an image in either direction, in pixels, with reflected borders; 0 for none.
        mirror: Whether a random half of the images is mirrored left and right at each step.
        exchanged: Channels that are randomly permuted, such as red, green and blue if color carries no information; or
            [].
        adversary: Settings of the attack on every image (Madry et al. 2018); null for plain training.
        adversarial_start: Share of the training before the attacks begin.
    """
    normalized = _normalizer(network, mean, std)
    network.to(memory_format=torch.channels_last).train()
    optimizer = torch.optim.SGD(
        network.parameters(), learning_rate, momentum=0.9, weight_decay=weight_decay, nesterov=True
    )
    per_epoch = len(labels) // batch
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, learning_rate, total_steps=epochs * per_epoch, cycle_momentum=False
    )
    draws, device = generator(seed, "train"), next(network.parameters()).device
    for step in range(epochs * per_epoch):
        if step % per_epoch == 0:
            order = torch.randperm(len(labels), generator=draws)
        chosen = order[step % per_epoch * batch :][:batch]
        drawn = torch.from_numpy(pixels(chosen.numpy()))
        images = augmented(drawn, draws, shift=shift, mirror=mirror, exchanged=exchanged).to(device)
        targets = labels[chosen].to(device)
        if adversary and step >= adversarial_start * epochs * per_epoch:
            network.eval()
            images = attack(_loss_gradient(normalized), images, targets, draws, **adversary)
            network.train()
        optimizer.zero_grad()
        nn.functional.cross_entropy(normalized(images), targets).backward()
        optimizer.step()
        schedule.step()
    network.eval()


def moments(parts: Iterable[np.ndarray], dataset: str) -> tuple[list[float], list[float]]:
    """Measure each channel's mean and standard deviation, in [0, 1], exactly: from integer counts of its values.

    Args:
        parts: Pixels of successive images, 8 bits: `image channel y x`.
        dataset: The dataset's name, for messages.

    Raises:
        UserError: a channel is constant, so that its deviation is 0.
    """
    counts: np.ndarray | int = 0
    for part in parts:
        counts = counts + np.stack([np.bincount(plane.ravel(), minlength=256) for plane in part.swapaxes(0, 1)])
    mean, std = [], []
    for channel, each in enumerate(np.asarray(counts).tolist()):
        number, total = sum(each), sum(value * count for value, count in enumerate(each))
        squares = sum(value**2 * count for value, count in enumerate(each))
        if max(each) == number:
            same = f"channel {channel} has the value {each.index(number)} in all pixels of all training images"
            raise UserError(f"dataset {dataset}: {same}; expected channels that vary")
        mean.append(total / (255 * number))
        std.append(math.sqrt((number * squares - total**2) / (255**2 * number * (number - 1))))
    return mean, std


def _loss_gradient(logits: Callable[[Tensor], Tensor]) -> Callable[[Tensor, Tensor], Tensor]:
    def gradient(images: Tensor, targets: Tensor) -> Tensor:
        given = images.detach().requires_grad_()
        loss = nn.functional.cross_entropy(logits(given), targets, reduction="sum")
        return torch.autograd.grad(loss, given)[0]

    return gradient


def _normalizer(network: nn.Module, mean: list[float], std: list[float]) -> Callable[[Tensor], Tensor]:
    device = next(network.parameters()).device
    center, scale = (torch.tensor(values, device=device).view(-1, 1, 1) for values in (mean, std))
    return lambda images: network((images - center) / scale)
