"""Find a library's weights by tag, where that library's own loading stores them; nothing is ever downloaded."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from atlas.study.errors import UserError
from atlas.study.schema.settings import Entry

# torchvision networks whose first step, `transform_input`, converts ImageNet's normalization to mean and std of 0.5.
HALVES = ("googlenet", "inception_v3")


class Tagged(NamedTuple):
    """Weights that a library knows: the places where the file may be, its address, and facts about it."""

    places: list[Path]  # the first is where to put it
    address: str
    mean: list[float]
    std: list[float]
    accuracy: float | None


def tagged(network: Entry, tag: str, where: str) -> tuple[Path, Tagged]:
    """Find the file of a tag.

    Args:
        network: A network of the family torchvision or timm.
        tag: IMAGENET1K_V1, for example.
        where: The entry of params.yaml.

    Raises:
        UserError: the family has no tags, the library does not know this one, or its file is not here.
    """
    if network.family not in LIBRARIES:
        known = " and ".join(LIBRARIES)
        raise UserError(
            f"params.yaml: {where}.tag = {tag!r}: {known} know tags, {network.family} does not; expected file"
        )
    found = LIBRARIES[network.family](network.settings, tag, f"params.yaml: {where}.tag = {tag!r}")
    for place in found.places:
        if place.is_file():
            return place, found
    message = f"its file is not here, and nothing is downloaded: put {found.address} at {found.places[0]}"
    raise UserError(f"params.yaml: {where}.tag = {tag!r}: {message}")


def _torchvision(network: dict[str, Any], tag: str, message: str) -> Tagged:
    from torch import hub
    from torchvision import models

    name = network["name"]
    known = models.get_model_weights(name)
    if tag not in known.__members__:
        raise UserError(
            f"{message}: torchvision knows no such weights of {name}; it knows: {', '.join(known.__members__)}"
        )
    weights = known[tag]
    transforms = weights.transforms()
    halves = name in HALVES and not network["settings"].get("transform_input")
    mean, std = ([0.5] * 3, [0.5] * 3) if halves else (list(transforms.mean), list(transforms.std))
    accuracy = weights.meta["_metrics"].get("ImageNet-1K", {}).get("acc@1")
    place = Path(hub.get_dir(), "checkpoints", weights.url.rpartition("/")[2])
    return Tagged([place], weights.url, mean, std, None if accuracy is None else accuracy / 100)


def _timm(network: dict[str, Any], tag: str, message: str) -> Tagged:
    from huggingface_hub import try_to_load_from_cache
    from timm import list_pretrained
    from timm.models import get_pretrained_cfg
    from torch import hub

    architecture = network["name"]
    known = [one.partition(".")[2] for one in list_pretrained(f"{architecture}.*")]
    about = get_pretrained_cfg(f"{architecture}.{tag}") if tag in known else None
    if about is None:
        listed = ", ".join(known) or "none"
        raise UserError(f"{message}: timm knows no such weights of {architecture}; it knows: {listed}")
    checkpoints = Path(hub.get_dir(), "checkpoints")
    places = [checkpoints / f"{architecture}.{tag}.safetensors"]
    address = (about.url[0] if isinstance(about.url, tuple) else about.url) or ""
    if address:
        places.append(checkpoints / address.rpartition("/")[2])
    if about.hf_hub_id:
        files = [about.hf_hub_filename] if about.hf_hub_filename else ["model.safetensors", "pytorch_model.bin"]
        cached = [try_to_load_from_cache(about.hf_hub_id, file) for file in files]
        places += [Path(found) for found in cached if isinstance(found, str)]
        address = f"https://huggingface.co/{about.hf_hub_id}/resolve/main/{files[0]}"
    return Tagged(places, address, list(about.mean), list(about.std), None)


# timm's records of tags have no accuracy.
LIBRARIES: dict[str, Callable[[dict[str, Any], str, str], Tagged]] = {"torchvision": _torchvision, "timm": _timm}
