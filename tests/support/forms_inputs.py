"""Inputs for `forms`, and whether the process is as it was."""

import os
import random
import sys
import warnings
from collections import OrderedDict
from importlib import import_module

import numpy as np
import torch
from torch import nn

from atlas.inputs.calls import attributions
from atlas.inputs.certification import Votes
from atlas.inputs.explain import Explainer
from atlas.model.classifier import Classifier
from atlas.study.schema.settings import Entry

ENGINE = {"device": "cpu", "precision": "float32", "threads": 1, "batch": 4}


def given() -> dict:
    """Make inputs of six images; the same every time."""
    draw = torch.Generator().manual_seed(0)
    maps, images = torch.randn(6, 16, 12, generator=draw), torch.rand(6, 3, 16, 12, generator=draw)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        features = OrderedDict(conv=nn.Conv2d(3, 4, 3, padding=1), norm=nn.BatchNorm2d(4), act=nn.ReLU())
        features["block"] = nn.Conv2d(4, 4, 3, padding=1)
        head = OrderedDict(pool=nn.AdaptiveAvgPool2d(1), flat=nn.Flatten(), linear=nn.Linear(4, 3))
        parts = OrderedDict(features=nn.Sequential(features), head=nn.Sequential(head))
    votes = [Votes(np.zeros((6, 1, 16, 12), "uint8"), np.zeros((6, 1, 16, 12), "uint8"), np.zeros((6, 1), "uint16"),
                   1, 2, 0.1, [10], "strict")]  # fmt: skip
    options = {"channels": "sum", "reverse": None}
    gradient = Entry(
        "methods", "gradient", "gradient", "gradient", {"sign": "both", "output": "logit", "layer": "input"}, options
    )
    return {
        "maps": maps,
        "images": images,
        "targets": torch.zeros(6, dtype=torch.int64),
        "seeds": list(range(6)),
        "masks": torch.rand(6, 16, 12, generator=draw) < 0.5,
        "votes": votes,
        "classifier": Classifier("x", nn.Sequential(parts), mean=[0.5] * 3, std=[0.2] * 3, engine=ENGINE),
        "explain": Explainer([gradient], images[:0], "float32", attributions).by("gradient"),
    }


def wrote(inputs: dict) -> str:
    """Return what is not as it is to be."""
    fresh, found = given(), []
    for name, value in fresh.items():
        if isinstance(value, torch.Tensor) and not torch.equal(value, inputs[name]):
            found.append(name)
    same = torch.equal(fresh["classifier"].logits(fresh["images"]), inputs["classifier"].logits(fresh["images"]))
    cut = [one.features(fresh["images"], "features.block")[0] for one in (fresh["classifier"], inputs["classifier"])]
    found += [] if same and torch.equal(*cut) else ["classifier"]
    now = process()
    found += [name for name, value in BEFORE.items() if now[name] != value]
    return ", ".join(found)


def process() -> dict:
    """Look at what all code of a process shares."""
    return {
        "dtype": torch.get_default_dtype(),
        "threads": torch.get_num_threads(),
        "gradients": torch.is_grad_enabled(),
        "torch": torch.get_rng_state().tolist(),
        "numpy": str(np.random.get_state()),
        "python": random.getstate(),
        "errors": np.geterr(),
        "environment": dict(os.environ),
        "type": type(os.environ).__name__,
        "cwd": os.getcwd(),
        "path": [*sys.path],
        "modules": [name in sys.modules for name in ("atlas.metrics.recovery", "atlas.metrics.grid")],
        "warn": [*warnings.filters],
        "denormal": sys.float_info.min / 2,
    }


for _name in ("recovery", "grid"):
    import_module(f"atlas.metrics.{_name}")
torch.set_num_threads(1)
BEFORE = process()
