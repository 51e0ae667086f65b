"""Set adopted weights beside the library's own loading, source by source: the largest difference of logits.

    uv pip install timm transformers    # for their networks
    uv run python benchmarks/sources.py

Small networks, random weights and statistics of batches, two images of 64 pixels a side, single precision. The files
are made in a folder that is gone afterwards, where the libraries' caches are meanwhile; nothing is downloaded.
Differences are shares of the largest logit: of the network as it was built, which must be within 1e-5, and of its fast
form, which rounds otherwise.
"""

import os
import sys
from collections.abc import Callable
from importlib.util import find_spec, module_from_spec, spec_from_file_location
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torchvision import models

sys.path.insert(0, str(Path(__file__).parents[1]))

from atlas.classifiers.adopting import adopted
from atlas.classifiers.weights import digest_of
from atlas.inputs.audit.building import building
from atlas.model import runtime
from atlas.model.classifier import Classifier
from atlas.model.loading import build
from atlas.study.params import bound_network
from tests.support.oracles import cases

ENGINE = {"device": "cpu", "precision": "float32", "threads": 1, "batch": 2}
TARGET = 1e-5
OWN = """
from torch import nn


class Net(nn.Sequential):
    def __init__(self, classes):
        body = [nn.Conv2d(3, 8, 3, stride=2), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 16, 3), nn.BatchNorm2d(16)]
        super().__init__(*body, nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, classes))
"""
HUB = """
import torch
from net import Net


def small(classes, weights=None):
    network = Net(classes)
    if weights is not None:
        network.load_state_dict(torch.load(weights, weights_only=True))
    return network
"""


class Source(NamedTuple):
    """A network as its library loads it, and what params.yaml says of it."""

    theirs: nn.Module
    network: dict
    weights: dict
    classes: int = cases.CLASSES
    mean: list[float] = cases.MEAN
    std: list[float] = cases.STD


def main() -> int:
    """Print a table, and tell whether all of it is within the target."""
    runtime.start(ENGINE)
    print("| source | network | beside | as built | fast form |")
    print("| --- | --- | --- | ---: | ---: |")
    missed = 0
    for name, (package, network, beside, make) in SOURCES.items():
        if find_spec(package) is None:
            print(f"| {name} | {network} | {beside} | {package} is not installed | |")
            continue
        with TemporaryDirectory() as folder:
            os.environ |= {"TORCH_HOME": f"{folder}/torch"}
            built, fast = differences(Path(folder), make(Path(folder)))
        missed += built > TARGET
        print(f"| {name} | {network} | {beside} | {built:.0e} | {fast:.0e} |", flush=True)
    return int(missed > 0)


def differences(study: Path, source: Source) -> tuple[float, ...]:
    """Return the largest difference of logits as a share of the largest: as the network was built, and fast."""
    where = "classifiers.own"
    network = build(source.network, classes=source.classes, watch=building, root=study).eval()
    bound = bound_network(source.network, f"{where}.network")
    found = adopted(study, network, bound, where, f"{where}.network", **source.weights)
    preprocess = found.preprocess or {"mean": source.mean, "std": source.std}
    pictures = cases.photographs(2, 64, 64)
    with torch.no_grad():
        expected = source.theirs.eval()(normalized(pictures, source.mean, source.std))
    expected = getattr(expected, "logits", expected)
    found = [
        Classifier("own", network, **preprocess, engine=ENGINE, plain=plain).logits(pictures) for plain in (True, False)
    ]
    return tuple(float((logits - expected).abs().max() / expected.abs().max()) for logits in found)


def normalized(images: Tensor, mean: list[float], std: list[float]) -> Tensor:
    """Return images as a network takes them."""
    return (images - torch.tensor(mean).view(-1, 1, 1)) / torch.tensor(std).view(-1, 1, 1)


def state_of(network: nn.Module) -> dict[str, Tensor]:
    """Return weights as of a trained network."""
    torch.manual_seed(7)
    given = cases.normalized(cases.photographs(8, 64, 64))
    return cases.as_if_trained(network, given).state_dict()


def saved(state: dict, file: Path) -> dict[str, str]:
    """Save a file of weights, and return what params.yaml says of it."""
    from safetensors.torch import save_file

    file.parent.mkdir(parents=True, exist_ok=True)
    (save_file if file.suffix == ".safetensors" else torch.save)(state, file)
    return {"file": file.name, "sha256": digest_of(file)}


def safetensors(folder: Path) -> Source:
    """Return weights in a file of safetensors."""
    from safetensors.torch import load_model

    made = models.mobilenet_v3_small(num_classes=cases.CLASSES)
    weights = saved(state_of(made), folder / "file.safetensors")
    theirs = models.mobilenet_v3_small(num_classes=cases.CLASSES)
    load_model(theirs, folder / "file.safetensors")
    return Source(theirs, {"family": "torchvision", "name": "mobilenet_v3_small"}, weights)


def checkpoint(folder: Path) -> Source:
    """Return weights in a file of PyTorch."""
    weights = saved(state_of(models.shufflenet_v2_x0_5(num_classes=cases.CLASSES)), folder / "file.pth")
    theirs = models.shufflenet_v2_x0_5(num_classes=cases.CLASSES)
    theirs.load_state_dict(torch.load(folder / "file.pth", weights_only=True))
    return Source(theirs, {"family": "torchvision", "name": "shufflenet_v2_x0_5"}, weights)


def training(folder: Path) -> Source:
    """Return weights in a checkpoint of parallel training."""
    state = nn.DataParallel(models.shufflenet_v2_x0_5(num_classes=cases.CLASSES)).state_dict()
    own = state_of(models.shufflenet_v2_x0_5(num_classes=cases.CLASSES))
    state = dict(zip(state, own.values(), strict=True))
    weights = saved({"state_dict": state, "epoch": 90}, folder / "file.ckpt")
    theirs = nn.DataParallel(models.shufflenet_v2_x0_5(num_classes=cases.CLASSES))
    theirs.load_state_dict(torch.load(folder / "file.ckpt", weights_only=True)["state_dict"])
    return Source(theirs.module, {"family": "torchvision", "name": "shufflenet_v2_x0_5"}, weights)


def torchvision_tag(name: str, **settings: bool) -> Callable[[Path], Source]:
    """Return what makes weights that torchvision knows by a tag, which lie in its cache."""

    def make(folder: Path) -> Source:
        known = models.get_model_weights(name)["IMAGENET1K_V1"]
        place = folder / "torch/hub/checkpoints" / known.url.rpartition("/")[2]
        sha256 = saved(state_of(models.get_model(name, weights=None, **settings)), place)["sha256"]
        theirs, about = models.get_model(name, weights=known), known.transforms()
        weights = {"tag": "IMAGENET1K_V1", "sha256": sha256}
        return Source(theirs, {"family": "torchvision", "name": name}, weights, 1000, about.mean, about.std)

    return make


def timm_tag(folder: Path) -> Source:
    """Return weights that timm knows by a tag, which lie where huggingface_hub keeps them."""
    import timm
    from huggingface_hub import constants

    constants.HF_HUB_CACHE, constants.HF_HUB_OFFLINE = str(folder / "hub"), True
    kept = folder / "hub/models--timm--resnet10t.c3_in1k"
    made = timm.create_model("resnet10t")
    sha256 = saved(state_of(made), kept / "snapshots/0/model.safetensors")["sha256"]
    (kept / "refs").mkdir()
    (kept / "refs/main").write_text("0")
    theirs = timm.create_model("resnet10t.c3_in1k", pretrained=True, cache_dir=folder / "hub")
    about, weights = theirs.pretrained_cfg, {"tag": "c3_in1k", "sha256": sha256}
    return Source(theirs, {"family": "timm", "name": "resnet10t"}, weights, 1000, about["mean"], about["std"])


def huggingface(folder: Path) -> Source:
    """Return a folder that a network of transformers was saved to."""
    from transformers import AutoModelForImageClassification, ViTConfig, ViTForImageClassification

    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 3, "num_attention_heads": 4}
    about = ViTConfig(**sizes, image_size=64, patch_size=16, num_labels=cases.CLASSES)
    made = ViTForImageClassification(about)
    nn.init.normal_(made.classifier.weight)
    made.save_pretrained(folder / "vit")
    theirs = AutoModelForImageClassification.from_pretrained(folder / "vit", local_files_only=True)
    weights = {"file": "vit/model.safetensors", "sha256": digest_of(folder / "vit/model.safetensors")}
    return Source(theirs, {"family": "huggingface", "folder": "vit", "output": "logits"}, weights)


def own(folder: Path) -> tuple[Callable[[int], nn.Module], dict[str, str]]:
    """Write a module and its weights; return its class and what params.yaml says of the weights."""
    (folder / "net.py").write_text(OWN)
    spec = spec_from_file_location("own_net", folder / "net.py")
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.Net, saved(state_of(module.Net(cases.CLASSES)), folder / "net.pth")


def torch_hub(folder: Path) -> Source:
    """Return a repository of PyTorch Hub that lies in a folder."""
    (folder / "repository").mkdir()
    _, weights = own(folder / "repository")
    (folder / "repository/hubconf.py").write_text(HUB)
    weights["file"], given = "repository/net.pth", {"classes": cases.CLASSES}
    there = str(folder / "repository")
    theirs = torch.hub.load(there, "small", source="local", weights=f"{there}/net.pth", **given)
    return Source(theirs, {"family": "torch_hub", "folder": "repository", "name": "small", "settings": given}, weights)


def module(folder: Path) -> Source:
    """Return a module of the user's own."""
    network, weights = own(folder)
    theirs = network(cases.CLASSES)
    theirs.load_state_dict(torch.load(folder / "net.pth", weights_only=True))
    return Source(theirs, {"family": "module", "call": "net.py:Net", "settings": {"classes": cases.CLASSES}}, weights)


# By name: the package that it needs, the network, what stands beside it, and what makes both.
SOURCES: dict[str, tuple[str, str, str, Callable[[Path], Source]]] = {
    "file .safetensors": ("safetensors", "mobilenet_v3_small", "safetensors.torch.load_model", safetensors),
    "file .pth": ("torch", "shufflenet_v2_x0_5", "load_state_dict", checkpoint),
    "file .ckpt, parallel": ("torch", "shufflenet_v2_x0_5", "DataParallel.load_state_dict", training),
    "torchvision tag": (
        "torchvision",
        "mobilenet_v3_small",
        "get_model(weights=...)",
        torchvision_tag("mobilenet_v3_small"),
    ),
    "torchvision tag, auxiliary heads": (
        "torchvision",
        "googlenet",
        "get_model(weights=...)",
        torchvision_tag("googlenet", init_weights=False),
    ),
    "timm tag": ("timm", "resnet10t", "create_model(pretrained=True)", timm_tag),
    "huggingface folder": ("transformers", "ViT of 3 blocks", "from_pretrained", huggingface),
    "torch_hub folder": ("torch", "own", "torch.hub.load", torch_hub),
    "module": ("torch", "own", "load_state_dict", module),
}


if __name__ == "__main__":
    sys.exit(main())
