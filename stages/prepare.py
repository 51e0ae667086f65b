"""Prepare a classifier: `python -m stages.prepare CLASSIFIER` writes `data/classifiers/<classifier>/`.

An entry with `train` is trained, one with `weights` takes weights that somebody has trained. The folder holds
`weights.safetensors` and `card.json`: network, normalization, recipe or source of the weights, accuracy on the held-out
split and under an attack; also a normalization that comes with the weights, if the entry states another, which is used.
Weights and accuracies are keyed: known ones are not computed again.
"""

import json
import sys
from pathlib import Path
from typing import Any, NamedTuple

from atlas.cache import keys
from atlas.cache.fingerprint import called
from atlas.cache.locks import drop, temporary_path
from atlas.cache.recorded import recorded
from atlas.cache.stores import replace
from atlas.inputs.splits import Split, split
from atlas.study.command import command
from atlas.study.errors import UserError
from atlas.study.schema.labels import several_labels
from atlas.study.study import Study

# The parts of the card about how the weights were made, and about what was measured of them.
MADE = ("recipe", "source", "seed", "mean", "std", "preprocess", "unused_preprocess", "trained_on")
EVALUATED = ("form", "evaluated_on", "accuracy", "top5", "attacked", "adversarial_accuracy", "adversary")
TRAINING = ("deterministic", "begun", "moments", "fit")
# A source's claimed accuracy is doubted if it is higher by FAR and the measured one would be this improbable under it.
IMPROBABLE, FAR = 0.001, 0.1
# A classifier counts as no better than chance if this many right answers are at least this probable by guessing.
CHANCE = 0.01


class Known(NamedTuple):
    """A card and weights from an earlier run, intact."""

    card: dict[str, Any]
    weights: bytes


def main(home: Path, classifier: str) -> None:
    """Train or take the weights, evaluate them on the held-out split, put the folder in place."""
    study = Study(home)
    study.check_names(classifier=classifier)
    spec = study.classifier(classifier)
    held_out = split(study, spec["dataset"], "test")
    if not len(held_out):
        raise UserError(f"dataset {spec['dataset']}: classifiers are evaluated on the split test, which has no image")
    images = split(study, spec["dataset"], "train")
    folder, cell = study.path("classifiers", classifier), f"prepare@{classifier}"
    known = intact(recorded(study.folder, cell, folder, study.folder / ".atlas" / "cells" / cell / "recorded"))
    key = trained_key(study, classifier, images) if spec["train"] else adopted_key(study, classifier, held_out)
    if known is not None and known.card.get("key") == key:
        weights, made = known.weights, {name: known.card[name] for name in MADE if name in known.card}
    elif spec["train"]:
        from atlas.classifiers.training import trained

        weights, made = trained(study, classifier, images)
    else:
        from atlas.classifiers.adopting import adopt

        weights, made = adopt(study, classifier, held_out)
    about = {name: spec[name] for name in ("dataset", "network")}
    card = {"key": key, "name": classifier, **about, "classes": held_out.classes, "image": list(held_out.shape), **made}
    card["weights"] = keys.digest(weights).hex()
    card["evaluated"] = evaluated_key(study, classifier, card, held_out)
    if known is not None and known.card.get("evaluated") == card["evaluated"]:
        card |= {name: known.card[name] for name in EVALUATED if name in known.card}
    else:
        card |= evaluated(study, classifier, card, weights, held_out)
    if "source" in card and (message := doubt(card, several_labels(spec["network"].get("output")))):
        card["warning"] = message
        print(f"WARNING: classifier {classifier}: {message}", file=sys.stderr)
    if (own := card.get("unused_preprocess")) is not None:
        numbers = ", ".join(
            f"{name} = [{', '.join(f'{value:.4g}' for value in own[name])}]" for name in ("mean", "std")
        )
        message = f"`preprocess` of params.yaml is used, not the normalization that comes with the weights: {numbers}"
        print(f"warning: classifier {classifier}: {message}", file=sys.stderr)
    put(folder, card, weights)


def intact(folder: Path) -> Known | None:
    """Read a recorded card and weights; None if there are none, or if they were changed."""
    try:
        card = json.loads((folder / "card.json").read_text())
        weights = (folder / "weights.safetensors").read_bytes()
    except (OSError, ValueError):
        return None
    return Known(card, weights) if card.get("weights") == keys.digest(weights).hex() else None


def trained_key(study: Study, classifier: str, images: Split) -> str:
    """Digest everything that trained weights depend on. The evaluation attack is not part of the key."""
    spec = study.classifier(classifier)
    built, network_key = _network(study, classifier)
    code = keys.code(*(("atlas.classifiers.training", name) for name in TRAINING), built)
    engine = [study.engine[name] for name in ("device", "threads")]
    about = [network_key, spec["train"], study.seed, engine]
    return keys.digest("train", code, images.digest(), images.classes, *about).hex()


def adopted_key(study: Study, classifier: str, images: Split) -> str:
    """Digest everything that given weights depend on; the digest of their file stands for its content."""
    spec = study.classifier(classifier)
    built, network_key = _network(study, classifier)
    code = keys.code(("atlas.classifiers.adopting", "adopt"), built)
    about = [network_key, spec["weights"], spec["preprocess"], images.classes, list(images.shape)]
    return keys.digest("adopt", code, *about).hex()


def evaluated_key(study: Study, classifier: str, card: dict, images: Split) -> str:
    """Digest everything that a classifier's accuracies and its form (fast or plain) depend on."""
    built, network_key = _network(study, classifier)
    code = keys.code(("stages.prepare", "evaluated"), built)
    about = [card["weights"], card["mean"], card["std"], images.classes, network_key]
    return keys.digest(code, images.digest(), *about, study.engine, study.params["robustness_eval"], study.seed).hex()


def _network(study: Study, classifier: str) -> tuple[tuple[str, str], list[Any]]:
    """Return the root of a network's code, and what else it depends on: its settings, a user's own code."""
    bound = study.network(classifier)
    own = called.content(bound.settings, study.folder)
    return (f"atlas.networks.{bound.family}", bound.function), [bound.settings, own]


def evaluated(study: "Study", classifier: str, card: dict, weights: bytes, images: Split) -> dict[str, Any]:
    """Compare the forms of the network on a few images, and measure its accuracies batch by batch."""
    import torch
    from safetensors.torch import load as read_weights

    from atlas.inputs.audit.building import building
    from atlas.model.attacks import accuracy, attacked
    from atlas.model.classifier import Classifier
    from atlas.model.comparing import COMPARED, compared
    from atlas.model.loading import build
    from atlas.model.runtime import start

    start(study.engine)

    def filled() -> torch.nn.Module:
        module = build(card["network"], classes=len(images.classes), watch=building, root=study.folder)
        module.load_state_dict(read_weights(weights))
        return module.eval()

    module = filled()
    about = {"mean": card["mean"], "std": card["std"], "engine": study.engine}
    few = torch.from_numpy(images.pixels(slice(0, COMPARED))).float().div(255)
    # Built twice: a random number that is drawn when a network is built, and kept outside its parameters and buffers
    # (an attribute, a variable of a closure), shows only in different logits. Every network draws numbers, at least its
    # initial weights, so none can be exempt; the check costs one build and one pass of a few images.
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(torch.initial_seed() + 1)
        other = filled()
    form = compared(classifier, module, few, **about, other=other)
    del other
    loaded = Classifier(classifier, module, **about, plain=form["runs"] == "plain")
    parts = images.blocks(study.engine["batch"])
    pairs = ((torch.from_numpy(images.pixels(part)), torch.from_numpy(images.labels[part])) for part in parts)
    found = {"form": form, **accuracy(loaded, pairs)}
    if study.params["robustness_eval"] is not None:
        first = slice(0, study.params["robustness_eval"]["count"])
        pixels, labels = torch.from_numpy(images.pixels(first)), torch.from_numpy(images.labels[first])
        found |= attacked(loaded, pixels, labels, study.seed, **study.params["robustness_eval"])
    return found


def doubt(card: dict, several: bool = False) -> str | None:
    """Return why the weights may not be what their entry says; None if their accuracy gives no reason for doubt.

    It does if the measured accuracy is far below the source's own, or no better than chance. For `several` labels per
    image there is no such chance level.
    """
    from scipy.stats import binom

    images, found, claimed = card["evaluated_on"], card["accuracy"], card["source"]["accuracy"]
    right, chance = round(found * images), 1 / len(card["classes"])
    measured = f"it gets {right} of {images} held-out images right ({found:.1%})"
    checks = "check its network, preprocess and the order of the dataset's classes"
    if claimed is not None and found < claimed - FAR and binom.cdf(right, images, claimed) < IMPROBABLE:
        return f"{measured}, and the source of its weights says {claimed:.1%}: {checks}"
    if not several and right < images and (guessed := binom.sf(right - 1, images, chance)) > CHANCE:
        return (
            f"{measured}, which guessing among {len(card['classes'])} classes gives too (p = {guessed:.2g}): {checks}"
        )
    return None


def put(folder: Path, card: dict, weights: bytes) -> None:
    """Write a classifier's folder to a temporary place, then rename it into place."""
    partial = temporary_path(folder)
    partial.mkdir(parents=True)
    try:
        (partial / "weights.safetensors").write_bytes(weights)
        (partial / "card.json").write_text(json.dumps(card, indent=2) + "\n")
        replace(partial, folder)
    finally:
        drop(partial)


if __name__ == "__main__":
    command(main, "classifier")
