"""Build the networks that params.yaml describes, and load trained classifiers."""

import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load as read_weights
from torch import nn

from atlas.cache.fingerprint.called import files, placed
from atlas.model.arrays import Images, Logits
from atlas.model.classifier import Classifier
from atlas.model.comparing import COMPARED, compared, logits, taking
from atlas.model.outputs import selected
from atlas.study import cards
from atlas.study.errors import UserError
from atlas.study.params import bound_network, find
from atlas.study.seeds import uniform

# A context that audits finding and calling a family's function, and raises a UserError if that reads what no key holds.
Watch = Callable[[str, str, list[Path]], AbstractContextManager[None]]

SIDE = 64  # side in pixels of noise images, if neither the card nor the network states a size


def load(folder: Path, name: str, network: dict, engine: dict, watch: Watch) -> Classifier:
    """Load a trained classifier from its folder: `weights.safetensors` and `card.json`.

    It runs in the form that the card states: fast, or plain (as built). If the card states none, the two are compared
    on images of noise. A message on stderr says if the plain form runs.

    Args:
        folder: The classifier's folder.
        name: Its name.
        network: The network in its entry of params.yaml.
        engine: Device, precision, threads and batch.
        watch: Audits the building of the network: `atlas.inputs.audit.building`.

    Raises:
        UserError: a file is missing or damaged, or the weights are not those of the network that params.yaml describes.
    """
    card = cards.read(folder)
    mean, std = cards.normalization(folder)
    module = build(network, classes=len(card["classes"]), watch=watch, root=folder.parents[2])
    data = cards.weights(folder)
    try:
        module.load_state_dict(read_weights(data))
    except SafetensorError as error:
        raise UserError(
            f"{folder}/weights.safetensors: cut off or damaged ({error}); run stages.prepare again"
        ) from None
    except RuntimeError as mismatch:
        message = " ".join(str(mismatch).split())
        raise UserError(
            f"{folder}/weights.safetensors: not the weights of classifiers.{name}.network: {message}"
        ) from None
    about: dict[str, Any] = {"mean": mean, "std": std, "engine": engine}
    known = card.get("form") or compared(name, module, _noise(card, network), **about)
    if known["runs"] == "plain":
        what, apart = "logits", known["difference"]
        if apart is not None and apart <= known["tolerance"]:
            what, apart = "gradients", known["gradient_difference"]
        differ = "are not finite" if apart is None else f"differ by {apart:.1g} of the largest"
        if what == "gradients" and apart is None:
            differ = "cannot be compared with its own"
        message = f"the {what} of its fast form {differ} (tolerance {known['tolerance']:g}), so it runs as it was built"
        print(f"warning: classifier {name}: {message}", file=sys.stderr)
    return Classifier(name, module, **about, plain=known["runs"] == "plain")


def build(network: dict, *, classes: int, watch: Watch, root: Path = Path()) -> nn.Module:
    """Build the network that an entry of params.yaml names, with its settings.

    Args:
        network: The network's settings.
        classes: The number of logits.
        watch: Audits the building of the network: `atlas.inputs.audit.building`.
        root: The folder to which its paths are relative.
    """
    bound = bound_network(network, "network")
    settings = placed(bound.settings, root) | {"classes": classes}
    output = settings.pop("output", None)
    with watched(network, watch=watch, root=root):
        found = find("networks", bound.family, bound.function)(**settings)
    return found if output is None else selected(found, output)


def watched(network: dict, *, watch: Watch, root: Path = Path()) -> AbstractContextManager[None]:
    """Return the audit of a network that an entry names: it may read what its classifier's key holds.

    Args:
        network: The network's settings.
        watch: `atlas.inputs.audit.building`.
        root: The folder to which its paths are relative.
    """
    bound = bound_network(network, "network")
    return watch(bound.family, bound.function, files(placed(bound.settings, root)))


def watched_logits(
    name: str,
    module: nn.Module,
    network: dict,
    images: Images,
    *,
    mean: list[float],
    std: list[float],
    watch: Watch,
    root: Path = Path(),
) -> Logits:
    """Return a network's logits of a few images, and check that it reads only what its classifier's key holds.

    Args:
        name: The classifier's name.
        module: The network.
        network: The network's settings.
        images: Images on its device.
        mean, std: Normalization of each channel.
        watch: Audits the run: `atlas.inputs.audit.building`.
        root: The folder to which its paths are relative.

    Raises:
        UserError: it does not take the images, does not return logits, or reads what no key holds.
    """
    center, scale = (torch.tensor(values, device=images.device).view(-1, 1, 1) for values in (mean, std))
    normalized = (images - center) / scale
    with taking(name, tuple(images.shape[1:])), watched(network, watch=watch, root=root):
        return logits(name, module, normalized)


def _noise(card: dict, network: dict) -> Images:
    """Return images of noise of the size that a classifier takes."""
    side = network.get("side") or SIDE
    shape = card.get("image") or (len(card["mean"]), side, side)
    return uniform(list(range(COMPARED)), "compared", 0, tuple(shape))
