"""Train a classifier's network: two trainings give the same weights on one kind of machine."""

import math
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save
from torch import Tensor, nn

from atlas.inputs.audit.building import building
from atlas.inputs.splits import Split
from atlas.model.attacks import attack
from atlas.model.augmentation import augmented, check_recipe
from atlas.model.comparing import compared
from atlas.model.loading import build, watched_logits
from atlas.model.runtime import start
from atlas.study.errors import UserError
from atlas.study.schema.types import Count, NotNegative, Positive, Share
from atlas.study.seeds import generator


def trained(study: Path, params: dict, classifier: str, images: Split) -> tuple[bytes, dict[str, Any]]:
    """Train on the dataset's training split: return the weights as a safetensors file, and what the card says of it.

    Its images are read a few at a time; as many as fit are kept, since every epoch draws them in another order.

    Raises:
        UserError: there is no training image, the recipe does not suit the images, or the network gives no logits.
    """
    spec, seed = params["classifiers"][classifier], params["seed"]
    if not len(images):
        raise UserError(f"dataset {images.dataset}: training needs images of the split train, it has none")
    deterministic(params["engine"])
    check_recipe(spec["train"], (len(images), *images.shape), f"classifiers.{classifier}.train")
    mean, std = moments(map(images.pixels, images.blocks()), images.dataset)
    network = begun(study, spec["network"], len(images.classes), seed)
    about = {"mean": mean, "std": std, "engine": params["engine"]}
    one = torch.from_numpy(images.pixels(slice(0, 1))).float().div(255)
    normalized = {"mean": mean, "std": std}
    watched_logits(classifier, network.eval(), spec["network"], one, **normalized, watch=building, study=study)
    compared(classifier, network, one, **about)  # that it gives logits
    labels = torch.from_numpy(images.labels)
    fit(network.to(params["engine"]["device"]), images.kept(), labels, seed, mean, std, **spec["train"])
    weights = {name: value.cpu().clone().contiguous() for name, value in network.state_dict().items()}
    card = {"recipe": spec["train"], "seed": seed, "mean": mean, "std": std, "trained_on": len(images)}
    return save(weights), card


def deterministic(engine: dict) -> None:
    """Let equal trainings give equal weights."""
    start(engine)
    torch.set_deterministic_debug_mode("error")


def begun(study: Path, network: dict, classes: int, seed: int) -> nn.Module:
    """Build a network with seeded weights."""
    torch.manual_seed(seed)
    return build(network, classes=classes, watch=building, study=study)


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
        network: What is trained.
        pixels: Gives those of training images by their positions, 8 bits.
        labels: Of all of them.
        seed: Of shuffling, augmentation and attacks.
        mean, std: Of each channel.
        epochs: Passes over the training split.
        batch: Images a step.
        learning_rate: Largest learning rate.
        weight_decay: Of the weights.
        shift: Largest shift either way of an image, in pixels, with reflected borders; 0 for none.
        mirror: Whether half of the images, drawn anew at each step, are mirrored left and right.
        exchanged: Channels that change places at random, as red, green and blue may where color tells nothing; or [].
        adversary: Settings of the attack on every image (Madry et al. 2018); null trains plainly.
        adversarial_start: Share of the training that is plain, before the attacks begin.
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
    """Measure each channel's mean and standard deviation, in [0, 1], from counts of its values: in whole numbers.

    Args:
        parts: Pixels of some images after the other, 8 bits: `image channel y x`.
        dataset: Whose images.

    Raises:
        UserError: a channel is the same everywhere: no classifier can divide by its deviation.
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
