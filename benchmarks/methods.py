"""Measure methods beside other systems and beside the bare network whose passes they are made of.

    uv sync --project benchmarks/peers    # once: the other systems, in an environment of their own
    uv run python benchmarks/methods.py [--network resnet50] [--device cuda] [--precision bfloat16] [--images 4]
        [--side 224] [--quick] [--methods gradient rise ...] [--sizes 8 16 32]

A ResNet of torchvision with random weights, the same images, settings and threads on both sides. It prints

1. images a second of the bare network: by batch size, and with channels last (the engine places them so) or not;
2. of each method: seconds an image, ours and the peer's, and their ratio, which is to be at least 1; passes an image
   of both (to, and to and back as `16+16`); of the bare network's speed at its best, how much our passes reach: 0.95.

Each side first makes the map of one image unmeasured. Then the bare network, our method and its peer take turns. Ratio
and share are of neighbors in time, and of all turns the median counts: the machine's own speed comes and goes.
"""

from argparse import ArgumentParser, Namespace
from collections.abc import Callable
from statistics import median
from typing import Any

import torch
from beside import (
    MEAN,
    STD,
    bare_and_chained,
    fastest,
    natural,
    parsed,
    passes,
    print_table,
    share,
    theirs,
    timed,
    verdict,
)
from torch import Tensor

from atlas.inputs.calls import attributions
from atlas.inputs.explain import Explainer
from atlas.model.classifier import Classifier
from atlas.model.runtime import start
from atlas.study import params
from atlas.study.seeds import image_seed

PEER, BARE = 1.0, 0.95
COLUMNS = ["method", "precision", "peer", "s ours", "s peer", "ratio", "passes ours", "passes peer"]
COLUMNS += ["of the bare network"]
LOGIT = {"output": "logit"}
FINAL = {"layer": "final", "channels": "sum"}
# Entries as in params.yaml, by the name under which the peer is asked; a number stands for a setting of the benchmark.
METHODS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "gradient": ("gradient", "gradient", {**LOGIT, "sign": "both", "layer": "input", "channels": "abs_sum"}),
    "input_x_gradient": (
        "gradient", "input_x_gradient", {**LOGIT, "baseline": "black", "layer": "input", "channels": "sum"},
    ),
    "guided_backprop": ("gradient", "guided_backprop", {"sign": "positive", "layer": "input", "channels": "abs_sum"}),
    "smoothgrad": (
        "noise", "smoothgrad", {**LOGIT, "samples": None, "spread": 0.15, "extent": "image", "sign": "both",
                                "channels": "abs_sum"},
    ),
    "integrated_gradients": (
        "path", "integrated_gradients", {**LOGIT, "steps": None, "baseline": "black", "rule": "gauss_legendre",
                                         "sign": "both", "layer": "input", "channels": "sum"},
    ),
    "guided_ig": (
        "path_variants", "guided_ig", {**LOGIT, "steps": None, "baseline": "black", "fraction": 0.25,
                                       "max_distance": 0.02, "sign": "both", "percentile": 0, "floor": "raw",
                                       "channels": "sum"},
    ),
    "blur_ig": (
        "path_variants", "blur_ig", {**LOGIT, "steps": None, "max_sigma": 50.0, "sign": "both", "percentile": 0,
                                     "floor": "raw", "channels": "sum"},
    ),
    "gradcam": ("cam", "gradcam", FINAL),
    "gradcam beside TorchCAM": ("cam", "gradcam", FINAL),
    "gradcam_pp": ("cam", "gradcam_pp", {**FINAL, "form": "torchcam"}),
    "hirescam": ("cam", "hirescam", FINAL),
    "xgradcam": ("cam", "xgradcam", FINAL),
    "layercam": ("cam", "layercam", FINAL),
    "eigencam": ("cam", "eigencam", FINAL),
    "scorecam": ("feature", "scorecam", {**FINAL, "order": "normalize_first", "fill": "black"}),
    "ablation_cam": ("feature", "ablation_cam", {**FINAL, "divisor": "logit"}),
    "occlusion": ("masking", "occlusion", {"window": None, "stride": None, "fill": "mean", "channels": "sum"}),
    "rise": (
        "masking", "rise", {"masks": None, "cells": 7, "probability": 0.5, "fill": "black", "seed": 0,
                            "channels": "sum"},
    ),
    "lrp": ("relevance", "lrp", {"epsilon": None, "layer": "input", "channels": "sum"}),
    "deep_lift": ("relevance", "deep_lift", {"baseline": "black", "channels": "sum"}),
}  # fmt: skip


def main() -> None:
    """Print both tables."""
    given = arguments()
    torch.set_num_threads(given.threads)
    torch.backends.cudnn.allow_tf32 = False
    networks = bare_and_chained(given.network)
    images = natural(given.images, given.side)
    place = torch.cuda.get_device_name() if given.device == "cuda" else f"CPU, {given.threads} threads"
    sizes = f"{given.images} images of {given.side} x {given.side}"
    print(f"{given.network} on {place}; torch {torch.__version__}; {sizes}\n")
    rows = []
    for precision in given.precision:
        size, bare = fastest(networks[0], images, precision, given)
        engine = {"device": given.device, "precision": precision, "threads": given.threads, "batch": size}
        start(engine)
        classifier = Classifier(given.network, networks[1], mean=MEAN, std=STD, engine=engine)
        targets = classifier.logits(images).argmax(dim=1)
        arrays = {"images": images.numpy(), "targets": targets.cpu().numpy()}
        told = {**given.settings, "network": given.network, "batch": size, "noise": 0.15}
        with theirs("methods.py", networks[0], arrays, told, given) as ask:
            for name in given.methods:
                make = ours(name, classifier, images, targets, given)
                back = classifier.passes["backward"] > 0
                turns = [(bare(back=back), make(), bare(back=back), ask(name)) for _ in range(given.turns)]
                rows.append(row(name, precision, turns, given.images))
                print_table(rows[-1:], COLUMNS)
    print_table(rows, COLUMNS)


def arguments() -> Namespace:
    """Read the command line."""
    parser = ArgumentParser(description="Measure methods beside other systems and beside the bare network.")
    parser.add_argument("--network", choices=["resnet18", "resnet50"], default="resnet18")
    parser.add_argument("--methods", nargs="+", choices=list(METHODS), default=list(METHODS))
    given = parsed(parser)
    few = 4 if given.quick else 1
    given.settings = {
        "samples": 16 // few,
        "steps": 32 // few,
        "window": given.side // 4,
        "stride": given.side // 8,
        "masks": 96 // few,
        "cells": 7,
        "epsilon": 0.25,
    }
    return given


def ours(
    name: str, classifier: Classifier, images: Tensor, targets: Tensor, given: Namespace
) -> Callable[[], dict[str, float]]:
    """Return what times a method; the passes of one image are counted before."""
    family, function, known = METHODS[name]
    settings = {key: given.settings[key] if value is None else value for key, value in known.items()}
    method = params.entry("methods", family, function, settings, "the benchmark")
    seeds = [image_seed(0, str(row)) for row in range(len(images))]

    def make(rows: int) -> Tensor:
        # Fresh tensors: nothing that another method has done is taken over.
        explain = Explainer([method], images[:0], "float32", attributions).by(function)
        return explain(classifier, images[:rows].clone(), targets[:rows].clone(), seeds[:rows])

    def measured() -> dict[str, float]:
        classifier.passes.update(dict.fromkeys(classifier.passes, 0))
        seconds = timed(lambda: make(given.images))
        return {"seconds": seconds, **classifier.passes}

    classifier.passes.update(dict.fromkeys(classifier.passes, 0))
    make(1)
    return measured


def row(name: str, precision: str, turns: list[tuple], images: int) -> dict[str, str]:
    """Spell a row of the table: medians over the turns, each (bare network, ours, bare network again, peer)."""
    _, found, _, peer = turns[0]
    cells = {
        "method": name,
        "precision": precision,
        "s ours": f"{median(ours['seconds'] for _, ours, _, _ in turns) / images:.4f}",
        "passes ours": passes(found, images),
    }
    if found["forward"]:
        reached = median(share(*turn[:3]) for turn in turns)
        cells["of the bare network"] = f"{reached:.2f} ({verdict(reached, BARE)})"
    if all(theirs for *_, theirs in turns):
        ratio = median(theirs["seconds"] / ours["seconds"] for _, ours, _, theirs in turns)
        cells |= {"peer": peer["peer"], "s peer": f"{median(one['seconds'] for *_, one in turns) / images:.4f}"}
        cells |= {"passes peer": passes(peer, images), "ratio": f"{ratio:.2f} ({verdict(ratio, PEER)})"}
    return cells


if __name__ == "__main__":
    main()
