"""Train a classifier: `python -m stages.train CLASSIFIER` writes `data/classifiers/<classifier>/`.

The folder holds `weights.safetensors` and `card.json`: network, recipe, normalization, accuracy on the held-out split
and under an attack it was not trained with. Two trainings give the same weights on one kind of machine.
"""

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np
import torch
import zarr
from safetensors.torch import load as load_weights
from safetensors.torch import save_file
from torch import Tensor, nn

from stages.cache import keys
from stages.cache.locks import beside
from stages.cache.recorded import recorded
from stages.cache.stores import read, replace, values
from stages.inputs.building import building
from stages.model.augmentation import augmented, check_recipe
from stages.model.classifier import Classifier
from stages.model.comparing import COMPARED, compared
from stages.model.engine import start
from stages.model.loading import build
from stages.study.params import command, load, path, settings
from stages.study.params import network as params_network
from stages.study.problem import Problem
from stages.study.seeds import generator


def main(study: Path, classifier: str) -> None:
    """Train on the dataset's training split, judge on the held-out split, put the folder in place."""
    params = load(study)
    spec = params["classifiers"][classifier]
    where = f"classifiers.{classifier}.train"
    recipe = settings(where, spec["train"], "train", "fit")
    judge = settings("judge", params["judge"], "train", "judged")
    store = read(path(study, "datasets", spec["dataset"]), f"the dataset {spec['dataset']}")
    deterministic(params["engine"])
    pixels, labels = _split(store, spec["dataset"], "train")
    check_recipe(recipe, tuple(pixels.shape), where)
    mean, std = moments(pixels, spec["dataset"])
    folder = path(study, "classifiers", classifier)
    scratch = study / ".atlas" / "cells" / f"train@{classifier}" / "recorded"
    key = _key(params, classifier, recipe, store.attrs["classes"], pixels, labels)
    weights = trained(recorded(study, f"train@{classifier}", folder, scratch), key)
    network = begun(spec["network"], len(store.attrs["classes"]), params["seed"])
    about = {"mean": mean, "std": std, "engine": params["engine"]}
    compared(classifier, network.eval(), pixels[:1].float().div(255), **about)  # that it gives logits
    if weights is None:
        fit(network.to(params["engine"]["device"]), pixels, labels, params["seed"], mean, std, **recipe)
        weights = {name: value.cpu().clone().contiguous() for name, value in network.state_dict().items()}
    network.load_state_dict(weights)
    card = {
        "key": key,
        "name": classifier,
        "dataset": spec["dataset"],
        "classes": store.attrs["classes"],
        "network": spec["network"],
        "recipe": recipe,
        "seed": params["seed"],
        "image": list(pixels.shape[1:]),
        "mean": mean,
        "std": std,
        "trained_on": len(pixels),
    }
    held_out = _split(store, spec["dataset"], "test")
    card["form"] = compared(classifier, network, held_out[0][:COMPARED].float().div(255), **about)
    loaded = Classifier(classifier, network, **about, plain=card["form"]["runs"] == "plain")
    card |= judged(loaded, *held_out, params["seed"], **judge)
    partial = beside(folder)
    partial.mkdir(parents=True)
    save_file(weights, partial / "weights.safetensors")
    card["weights"] = keys.digest((partial / "weights.safetensors").read_bytes()).hex()
    (partial / "card.json").write_text(json.dumps(card, indent=2) + "\n")
    replace(partial, folder)


def deterministic(engine: dict) -> None:
    """Let equal trainings give equal weights."""
    start(engine)
    torch.set_deterministic_debug_mode("error")


def begun(network: dict, classes: int, seed: int) -> nn.Sequential:
    """Build a network with seeded weights."""
    torch.manual_seed(seed)
    return build(network, classes=classes, watch=building)


def trained(folder: Path, key: str) -> dict[str, Tensor] | None:
    """Take weights that were trained before from all the same; None where there are none, or not as they were."""
    try:
        card = json.loads((folder / "card.json").read_text())
        weights = (folder / "weights.safetensors").read_bytes()
    except (OSError, ValueError):
        return None
    if card.get("key") != key or card.get("weights") != keys.digest(weights).hex():
        return None
    return load_weights(weights)


def fit(
    network: nn.Sequential,
    pixels: Tensor,
    labels: Tensor,
    seed: int,
    mean: list[float],
    std: list[float],
    *,
    epochs: int,
    batch: int,
    rate: float,
    decay: float,
    shift: int,
    mirror: bool,
    exchanged: list[int],
    adversary: dict | None,
    after: float,
) -> None:
    """Train in place by stochastic gradient descent with Nesterov momentum and one cycle of the learning rate.

    Args:
        network: What is trained.
        pixels: Of the training split, 8 bits.
        labels: Theirs.
        seed: Of shuffling, augmentation and attacks.
        mean, std: Of each channel.
        epochs: Passes over the training split.
        batch: Images a step.
        rate: Largest learning rate.
        decay: Of the weights.
        shift: Largest shift either way of an image, in pixels, with reflected borders; 0 for none.
        mirror: Whether half of the images, drawn anew at each step, are mirrored left and right.
        exchanged: Channels that change places at random, as red, green and blue may where color tells nothing; or [].
        adversary: Settings of the attack on every image (Madry et al. 2018); null trains plainly.
        after: Share of the training that is plain, before the attacks begin.
    """
    normalized = _normalizer(network, mean, std)
    network.to(memory_format=torch.channels_last).train()
    optimizer = torch.optim.SGD(network.parameters(), rate, momentum=0.9, weight_decay=decay, nesterov=True)
    per_epoch = len(pixels) // batch
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, rate, total_steps=epochs * per_epoch, cycle_momentum=False
    )
    draws, device = generator(seed, "train"), next(network.parameters()).device
    for step in range(epochs * per_epoch):
        if step % per_epoch == 0:
            order = torch.randperm(len(pixels), generator=draws)
        chosen = order[step % per_epoch * batch :][:batch]
        images = augmented(pixels[chosen], draws, shift=shift, mirror=mirror, exchanged=exchanged).to(device)
        targets = labels[chosen].to(device)
        if adversary and step >= after * epochs * per_epoch:
            network.eval()
            images = attack(_loss_gradient(normalized), images, targets, draws, **adversary)
            network.train()
        optimizer.zero_grad()
        nn.functional.cross_entropy(normalized(images), targets).backward()
        optimizer.step()
        schedule.step()
    network.eval()


def attack(
    gradient: Callable[[Tensor, Tensor], Tensor],
    images: Tensor,
    targets: Tensor,
    draws: torch.Generator,
    *,
    norm: Literal["l2", "linf"],
    epsilon: float,
    steps: int,
    step_size: float,
) -> Tensor:
    """Raise the loss within a ball around each image: projected gradient ascent from a random start.

    Args:
        gradient: Of the loss by images in [0, 1].
        images: In [0, 1].
        targets: Their labels.
        draws: Of the random start.
        norm: Of the ball, over all values of an image.
        epsilon: Its radius, in units of intensity.
        steps: Of gradient ascent.
        step_size: Length of a step, in the norm.

    Returns:
        Images in the ball and in [0, 1].
    """
    noise = torch.randn(images.shape, generator=draws).to(images.device)
    change = noise * (epsilon / _length(noise)) if norm == "l2" else epsilon * noise.clamp(-1, 1)
    for _ in range(steps):
        change = (images + change).clamp(0, 1) - images
        uphill = gradient(images + change, targets)
        if norm == "l2":
            change = change + step_size * uphill / _length(uphill)
            change = change * (epsilon / _length(change)).clamp(max=1)
        else:
            change = (change + step_size * uphill.sign()).clamp(-epsilon, epsilon)
    return (images + change).clamp(0, 1)


def judged(
    classifier: Classifier,
    pixels: Tensor,
    labels: Tensor,
    seed: int,
    *,
    count: int,
    norm: Literal["l2", "linf"],
    epsilon: float,
    steps: int,
    step_size: float,
) -> dict:
    """Give the share of images that a classifier gets right, as they are and under an attack.

    Args:
        classifier: What is judged.
        pixels: Of the held-out split.
        labels: Theirs.
        seed: Of the attack's random start.
        count: How many of the images are attacked.
        norm: Of the attack's ball.
        epsilon: Its radius.
        steps: Of gradient ascent.
        step_size: Length of a step.
    """
    images = pixels.float().div(255).to(classifier.device)
    targets = labels.to(classifier.device)
    right = classifier.logits(images).argmax(1) == targets
    settings = {"norm": norm, "epsilon": epsilon, "steps": steps, "step_size": step_size}
    draws = generator(seed, "judge")
    attacked = attack(partial(classifier.gradient, output="loss"), images[:count], targets[:count], draws, **settings)
    held = classifier.logits(attacked).argmax(1) == targets[:count]
    return {
        "judged_on": len(right),
        "accuracy": float(right.double().mean()),
        "attacked": len(held),
        "adversarial_accuracy": float(held.double().mean()),
        "adversary": settings,
    }


def moments(pixels: Tensor, dataset: str) -> tuple[list[float], list[float]]:
    """Measure each channel's mean and standard deviation, in [0, 1].

    Raises:
        Problem: a channel is the same everywhere: no classifier can divide by its deviation.
    """
    values = pixels.transpose(0, 1).flatten(1).double().div(255)
    for channel, plane in enumerate(values):
        if plane.min() == plane.max():
            same = f"channel {channel} has the value {255 * plane[0]:.0f} in all pixels of all training images"
            raise Problem(f"dataset {dataset}: {same}; expected channels that vary")
    return values.mean(1).tolist(), values.std(1).tolist()


def _split(store: zarr.Group, dataset: str, split: str) -> tuple[Tensor, Tensor]:
    rows = np.flatnonzero(values(store, "split") == split)
    if not len(rows):
        raise Problem(f"dataset {dataset}: training needs images of the splits train and test, it has none of {split}")
    return torch.from_numpy(values(store, "pixels", rows)), torch.from_numpy(values(store, "label")[rows])


def _key(params: dict, classifier: str, recipe: dict, classes: list[str], pixels: Tensor, labels: Tensor) -> str:
    """Digest all that trained weights depend on; what they are judged by is nothing to them."""
    network = params_network(params, classifier)
    built = (f"stages.networks.{network.family}", network.function)
    code = keys.code(*(("stages.train", name) for name in ("deterministic", "begun", "moments", "fit")), built)
    data = [pixels.numpy().tobytes(), labels.numpy().tobytes(), classes]
    engine = [params["engine"][name] for name in ("device", "threads")]
    return keys.digest(code, *data, network.settings, recipe, params["seed"], engine).hex()


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


def _length(images: Tensor) -> Tensor:
    return images.flatten(1).norm(dim=1).clamp(min=1e-12).view(-1, 1, 1, 1)


if __name__ == "__main__":
    command(main)
