"""Answer which seconds and passes a peer takes; for scripts that are started in the peers' environment.

A script reads FOLDER/given.npz (network, images, targets, settings, more by name) and says which classes the network
predicts. Then it answers each line that names something with one of JSON: whose it is, the seconds and the passes of
all images, or the error with which the peer ended. Before something is measured first it is done for one image.
"""

import json
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import torch
from torch import nn
from torchvision import models


class Normalized(nn.Module):
    """The network with its normalization, and the count of its passes."""

    def __init__(self, network: nn.Module, mean: list[float], std: list[float]):
        super().__init__()
        self.network = network
        self.register_buffer("mean", torch.tensor(mean).view(3, 1, 1))
        self.register_buffer("std", torch.tensor(std).view(3, 1, 1))
        self.forwards = self.backwards = 0

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return logits of images in [0, 1]."""
        self.forwards += len(images)
        logits = self.network((images - self.mean) / self.std)
        if logits.requires_grad:
            logits.register_hook(self._count)
        return logits

    def _count(self, gradient: torch.Tensor) -> None:
        self.backwards += len(gradient)


def answer(folder: Path, peers: Callable[..., Iterator[tuple[str, str, Callable]]]) -> None:
    """Measure what is asked for.

    Args:
        folder: Where `given.npz` is.
        peers: Returns of each peer whose it is, the name of what it does, and what is timed; called with the model, the
            settings, and some images of each array.
    """
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # what peers print is no answer
    given = dict(np.load(folder / "given.npz"))
    told: dict[str, Any] = json.loads(str(given.pop("told")))
    torch.set_num_threads(told["threads"])
    torch.backends.cudnn.allow_tf32 = False
    np.random.seed(0)
    network = getattr(models, told.get("network", "resnet18"))(weights=None, num_classes=len(given["network.fc.bias"]))
    prefix = "network."
    weights = {name.removeprefix(prefix): torch.from_numpy(value) for name, value in given.items() if prefix in name}
    arrays = {name: value for name, value in given.items() if prefix not in name}
    network.load_state_dict(weights)
    model = Normalized(network.requires_grad_(False), told["mean"], told["std"]).to(told["device"]).eval()
    with torch.no_grad():
        predicted = model(torch.from_numpy(arrays["images"]).to(told["device"])).argmax(dim=1).tolist()
    print(json.dumps(predicted), file=answers)
    alone = {name: value[:1] for name, value in arrays.items()}
    first = {name: judge for _, name, judge in peers(model, told, **alone)}
    known = {name: (peer, judge) for peer, name, judge in peers(model, told, **arrays)}
    for line in sys.stdin:
        name = line.strip()
        if name not in known:
            print(json.dumps({"peer": "no peer", "error": "there is none"}), file=answers)
            continue
        peer, judge = known[name]
        try:
            first.pop(name, lambda: None)()
            model.forwards = model.backwards = 0
            seconds = timed(judge)
            found = {"peer": peer, "seconds": seconds, "forward": model.forwards, "backward": model.backwards}
        except Exception as error:  # the error of one peer must not end the others
            found = {"peer": peer, "error": f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"}
        print(json.dumps(found), file=answers)


def timed(function: Callable) -> float:
    """Return the seconds of a call."""
    wait = torch.cuda.synchronize if torch.cuda.is_available() else lambda: None
    wait()
    began = perf_counter()
    function()
    wait()
    return perf_counter() - began
