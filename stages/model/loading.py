"""Build the networks that params.yaml describes, and load trained classifiers."""

import json
from pathlib import Path

from torch import nn

from stages.model.classifier import Classifier
from stages.study.params import find
from stages.study.problem import Problem


def load(folder: Path, name: str, network: dict, engine: dict) -> Classifier:
    """Load a trained classifier from its folder: `weights.safetensors` and `card.json`.

    Raises:
        Problem: the weights are not those of the network that params.yaml describes.
    """
    from safetensors.torch import load_file

    card = json.loads((folder / "card.json").read_text())
    module = build(network, classes=len(card["classes"]))
    try:
        module.load_state_dict(load_file(folder / "weights.safetensors"))
    except RuntimeError as mismatch:
        raise Problem(
            f"{folder}/weights.safetensors: not the weights of classifiers.{name}.network: {mismatch}"
        ) from None
    return Classifier(name, module, mean=card["mean"], std=card["std"], engine=engine)


def build(network: dict, *, classes: int) -> nn.Sequential:
    """Build the network that an entry of params.yaml names, with its settings."""
    settings = {key: value for key, value in network.items() if key not in ("family", "function")}
    function = network.get("function", network["family"])
    return find("networks", network["family"], function)(classes=classes, **settings)
