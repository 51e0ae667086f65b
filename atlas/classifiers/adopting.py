"""Take weights that somebody has trained: from a file, or by the tag under which a library has them.

The file is read and not changed. Its identity must be stated: its digest is checked, and the names and shapes of its
weights must be exactly those of the network.
"""

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from safetensors.torch import save
from torch import nn

from atlas.classifiers.tags import tagged
from atlas.classifiers.weights import digest_of, fill, read, renamed, unwrapped
from atlas.inputs.audit.building import building
from atlas.inputs.splits import Split
from atlas.model.arrays import Logits
from atlas.model.comparing import COMPARED, check_no_sigmoids
from atlas.model.loading import build, watched_logits
from atlas.model.runtime import start
from atlas.study.errors import UserError
from atlas.study.schema.settings import Entry, outside
from atlas.study.schema.types import Positive, Share

if TYPE_CHECKING:
    from atlas.study.study import Study

# Bounds of a plausible mean: of intensities from 0 to 1, and of what some networks use instead.
MEANS = (-1, 2)


class Adopted(NamedTuple):
    """What is known of adopted weights: the normalization, who states it, and the source's own accuracy."""

    preprocess: dict[str, list[float]] | None
    place: Path
    accuracy: float | None


def adopt(study: "Study", classifier: str, images: Split) -> tuple[bytes, dict[str, Any]]:
    """Take the weights that a classifier's entry names; return them as a safetensors file, with the contents of the
    card: among these `unused_preprocess`, if the weights state another normalization than the entry.

    Args:
        study: The study.
        classifier: The classifier's name.
        images: The dataset's held-out split.

    Raises:
        UserError: the weights cannot be found, have another digest, do not fit the network, or the network does not
            have one logit per class of the dataset.
    """
    spec, where = study.classifier(classifier), f"classifiers.{classifier}"
    start(study.engine)
    network = build(spec["network"], classes=len(images.classes), watch=building, root=study.folder).eval()
    owner = f"{where}.network for the {len(images.classes)} classes of the dataset {images.dataset}"
    found = adopted(study.folder, network, study.network(classifier), where, owner, **spec["weights"])
    preprocess = spec["preprocess"] or found.preprocess
    if preprocess is None:
        message = "is missing, and the weights do not say how images are normalized"
        raise UserError(
            f"params.yaml: {where}.preprocess {message}; expected {{mean: [...], std: [...]}}, of each channel"
        )
    says = f"params.yaml: {where}.preprocess" if spec["preprocess"] else f"{found.place}: its own normalization"
    mean, std = normalization(images.shape[0], says, **preprocess)
    few = torch.from_numpy(images.pixels(slice(0, COMPARED))).to(study.engine["device"]).float().div(255)
    about: dict[str, Any] = {"mean": mean, "std": std, "watch": building, "root": study.folder}
    _check_logits(classifier, watched_logits(classifier, network.to(few.device), spec["network"], few, **about), images)
    weights = {name: value.cpu().clone().contiguous() for name, value in network.state_dict().items()}
    source = {**spec["weights"], "accuracy": found.accuracy}
    text = "params.yaml" if spec["preprocess"] else "the weights"
    about = {"source": source, "mean": mean, "std": std, "preprocess": text}
    if found.preprocess is not None and not _alike(found.preprocess, about):
        about["unused_preprocess"] = found.preprocess
    return save(weights), about


def adopted(
    root: Path,
    network: nn.Module,
    bound: Entry,
    where: str,
    owner: str,
    *,
    file: str | None = None,
    tag: str | None = None,
    sha256: str | None = None,
    entry: str | None = None,
    rename: dict[str, str | None] | None = None,
    accuracy: Share | None = None,
) -> Adopted:
    """Find weights, check their digest, and load them into a network.

    Args:
        root: The folder to which `file` is relative.
        network: The network; it is modified in place.
        bound: The network's entry: `tag` names weights in the library of its family.
        where: The classifier's entry.
        owner: What the network is called in messages.
        file: A safetensors file, or a PyTorch checkpoint.
        tag: The library's name of the weights, in place of a file.
        sha256: The file's digest.
        entry: The entry of a checkpoint that holds the weights, if it is not a usual one.
        rename: Prefixes of the weights' names, with their replacements in the network; null leaves out these weights.
        accuracy: The accuracy that the source of the weights states, 0 to 1; null if it is unknown or the library
            states it.
    """
    about = None
    if tag is not None:
        place, about = tagged(bound, tag, f"{where}.weights")
    else:
        assert file is not None  # an entry has a file or a tag
        place = outside(root, file, f"{where}.weights.file")
    _check_digest(place, sha256, f"{where}.weights")
    found = unwrapped(renamed(read(place, entry), rename, place), network, place)
    fill(network, found.weights, place, owner)
    preprocess = {"mean": about.mean, "std": about.std} if about else None
    if found.mean is not None and found.std is not None:
        preprocess = {"mean": found.mean, "std": found.std}
    return Adopted(preprocess, place, accuracy if accuracy is not None or about is None else about.accuracy)


def normalization(
    channels: int, says: str, *, mean: list[float], std: list[Positive]
) -> tuple[list[float], list[float]]:
    """Return the mean and standard deviation for normalizing images, after checking them.

    Args:
        channels: Number of channels of the dataset's images.
        says: Where the numbers come from, for messages: an entry, or a file.
        mean, std: Of each channel, for intensities from 0 to 1.

    Raises:
        UserError: the number of channels differs, a number is not finite, a deviation is not above 0, or the mean
            cannot be one of intensities from 0 to 1.
    """
    if len(mean) != channels or len(std) != channels:
        message = f"mean and std of {len(mean)} and {len(std)} channels, but the images have {channels}"
        raise UserError(f"{says}: {message}")
    if not all(math.isfinite(value) and value > 0 for value in std):
        raise UserError(f"{says}: std = {std}: expected finite numbers above 0")
    if not all(MEANS[0] <= value <= MEANS[1] for value in mean):
        raise UserError(
            f"{says}: mean = {mean}: expected the mean of intensities of 0 to 1; of 0 to 255, divide by 255"
        )
    return mean, std


def _alike(one: dict[str, list[float]], other: dict[str, Any]) -> bool:
    """Return whether two normalizations are the same numbers, of which a file has float32."""
    pairs = [(one[name], other[name]) for name in ("mean", "std")]
    return all(len(a) == len(b) and np.allclose(a, b, rtol=1e-6, atol=0) for a, b in pairs)


def _check_digest(place: Path, given: str | None, where: str) -> None:
    found = digest_of(place)
    if given is None:
        raise UserError(f"params.yaml: {where}.sha256 is missing; that of {place} is: {found}")
    if given != found:
        raise UserError(f"params.yaml: {where}.sha256 = {given}, but that of {place} is {found}: another file")


def _check_logits(classifier: str, given: Logits, images: Split) -> None:
    """Check, on the output for real images, that a network has one logit per class of the dataset."""
    check_no_sigmoids(classifier, given)
    found = given.shape[1]
    if found != len(images.classes):
        message = (
            f"its network gives {found} logits, but the dataset {images.dataset} has {len(images.classes)} classes"
        )
        raise UserError(f"classifier {classifier}: {message}; expected one for each, in the same order")
