"""Evaluate classifiers: the share of images that they classify correctly, on clean images and under an attack."""

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from atlas.model.classifier import Classifier
from atlas.study.schema.types import Count, Norm, Positive
from atlas.study.seeds import generator

TOP = 5


def attack(
    gradient: Callable[[Tensor, Tensor], Tensor],
    images: Tensor,
    targets: Tensor,
    draws: torch.Generator,
    *,
    norm: Norm,
    epsilon: Positive,
    steps: Count,
    step_size: Positive,
) -> Tensor:
    """Raise the loss within a ball around each image: projected gradient ascent from a random start.

    Args:
        gradient: Returns the gradient of the loss by images in [0, 1].
        images: In [0, 1].
        targets: Their labels.
        draws: Random generator for the start.
        epsilon: Radius of the ball, in units of intensity.
        steps: Steps of gradient ascent.
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


def accuracy(classifier: Classifier, parts: Iterable[tuple[Tensor, Tensor]]) -> dict[str, Any]:
    """Measure the share of images whose label is predicted, and the share whose label is among the five largest logits.

    If an image may have several labels, each row has one that is present; the share is then that of labels found, and
    there is no five-largest share.

    Args:
        classifier: The classifier to evaluate.
        parts: 8-bit pixels and labels, some images at a time.
    """
    images = correct = among = 0
    for pixels, labels in parts:
        logits = classifier.logits(pixels.to(classifier.device).float().div(255))
        targets = labels.to(logits.device)
        images += len(labels)
        correct += int(classifier.task.right(logits, targets).sum())
        largest = logits.topk(min(TOP, logits.shape[1]), dim=1).indices
        among += int((largest == targets[:, None]).any(1).sum())
    found = {"evaluated_on": images, "accuracy": correct / images}
    return found if classifier.task.several else {**found, "top5": among / images}


def attacked(
    classifier: Classifier,
    pixels: Tensor,
    labels: Tensor,
    seed: int,
    *,
    count: Count,
    norm: Norm,
    epsilon: Positive,
    steps: Count,
    step_size: Positive,
) -> dict[str, Any]:
    """Measure the share of images that a classifier classifies correctly under an attack.

    Args:
        classifier: The classifier to evaluate.
        pixels: Images of the held-out split, 8 bits.
        labels: Their labels.
        seed: Seed of the attack's random start.
        count: How many of the images are attacked.
        epsilon: Radius of the attack.
        steps: Steps of gradient ascent.
        step_size: Length of a step.
    """
    images = pixels[:count].to(classifier.device).float().div(255)
    targets = labels[:count].to(classifier.device)
    settings: dict[str, Any] = {"norm": norm, "epsilon": epsilon, "steps": steps, "step_size": step_size}
    draws = generator(seed, "judge")  # the name of the stream of random numbers: with another one they are others
    found = attack(partial(classifier.gradient, output="loss"), images, targets, draws, **settings)
    right = classifier.task.right(classifier.logits(found), targets)
    return {
        "attacked": len(right),
        "adversarial_accuracy": float(right.double().mean()),
        "adversary": settings,
    }


def _length(images: Tensor) -> Tensor:
    return images.flatten(1).norm(dim=1).clamp(min=1e-12).view(-1, 1, 1, 1)
