"""Measure metrics beside other systems, and beside the bare network whose passes they are made of.

    uv sync --project benchmarks/peers    # once: the other systems, in an environment of their own
    uv run python benchmarks/metrics.py [--device cuda] [--precision bfloat16] [--images 4] [--side 224] [--quick]
        [--metrics road ...] [--sizes 16 32]

One ResNet-18 of torchvision with random weights, the same images, maps and threads on both sides. It prints

1. images a second of the bare network: by batch size, and with channels last (the engine places them so) or not;
2. of each metric: seconds an image, ours and the peer's, and their ratio; passes an image, ours and the peer's (to,
   and to and back as `10+10`); of the bare network's speed at its best, how much our passes reach. Beside ratio and
   share stand their targets, met or missed: 5 times Quantus; where a peer makes as many passes as ours, 1.7 times in
   float32 and 5 times in bfloat16; 0.8 of the bare network. Peers run in float32.

Each metric first judges one image unmeasured. Then the bare network, the metric and its peer take turns. Ratio and
share are of neighbors in time, and of all turns the median counts: the machine's own speed comes and goes.
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
from torch import Tensor, nn

from atlas.inputs.calls import attributions
from atlas.inputs.explain import Explainer
from atlas.model.classifier import Classifier
from atlas.model.runtime import start
from atlas.study import params
from atlas.study.errors import UserError
from atlas.study.schema.settings import check
from atlas.study.schema.signatures import signature
from atlas.study.seeds import image_seed

COLUMNS = ["metric", "precision", "peer", "s ours", "s peer", "ratio", "passes ours", "passes peer"]
COLUMNS += ["of the bare network"]
FAMILIES = {
    "pixel_flipping": "faithfulness",
    "faithfulness_estimate": "faithfulness_regions",
    "infidelity": "faithfulness_regions",
    "max_sensitivity": "stability",
    "deletion": "faithfulness",
    "insertion": "faithfulness",
    "road": "imputation",
}
QUANTUS, BARE = 5.0, 0.8
AS_MANY_PASSES = {"float32": 1.7, "bfloat16": 5.0}


def main() -> None:
    """Print both tables."""
    given = arguments()
    torch.set_num_threads(given.threads)
    torch.backends.cudnn.allow_tf32 = False
    networks = bare_and_chained()
    images = natural(given.images, given.side)
    place = torch.cuda.get_device_name() if given.device == "cuda" else f"CPU, {given.threads} threads"
    print(f"{place}; torch {torch.__version__}; {given.images} images of {given.side} x {given.side}\n")
    rows = []
    for precision in given.precision:
        size, bare = fastest(networks[0], images, precision, given)
        engine = {"device": given.device, "precision": precision, "threads": given.threads, "batch": size}
        start(engine)
        classifier = Classifier("resnet18", networks[1], mean=MEAN, std=STD, engine=engine)
        inputs = judged(classifier, images)
        arrays = {key: inputs[key].cpu().numpy() for key in ("maps", "images", "targets")}
        with theirs("metrics.py", networks[0], arrays, given.settings, given) as ask:
            for name in given.metrics:
                judge = ours(name, FAMILIES[name], classifier, inputs, given)
                if judge:
                    back = classifier.passes["backward"] > 0
                    turns = [(bare(back=back), judge(), bare(back=back), ask(name)) for _ in range(given.turns)]
                    rows.append(row(name, precision, turns, given.images))
    print_table(rows, COLUMNS)


def arguments() -> Namespace:
    """Read the command line."""
    parser = ArgumentParser(description="Measure metrics beside other systems and beside the bare network.")
    parser.add_argument("--metrics", nargs="+", choices=list(FAMILIES), default=list(FAMILIES))
    given = parsed(parser)
    # Steps of a curve: as many as the image is wide.
    pixels = given.side * 8 if given.quick else given.side
    given.settings = {
        "pixels": pixels,
        "relative": False,
        "baseline": "black",
        "patch": given.side // 4,
        "scaled": False,
        "samples": 2 if given.quick else 10,
        "noise": "uniform",
        "scale": 0.2,
        "shares": [0.3, 0.7],
    }
    given.own = {
        "insertion": {"baseline": "blur"},
        "faithfulness_estimate": {"output": "probability"},
        "infidelity": {"baseline": "uniform", "output": "logit"},
        "road": {"noise": 0.01},
    }
    return given


def judged(classifier: Classifier, images: Tensor) -> dict[str, Any]:
    """Return what metrics ask for: maps are gradients, every second one blurred, for maps are fine or coarse."""
    entry = {"sign": "both", "output": "logit", "layer": "input", "channels": "abs_sum"}
    method = params.entry("methods", "gradient", "gradient", entry, "the benchmark")
    explain = Explainer([method], images[:0], "float32", attributions).by("gradient")
    targets, seeds = classifier.logits(images).argmax(dim=1), [image_seed(0, str(row)) for row in range(len(images))]
    maps = explain(classifier, images, targets, seeds)
    coarse = nn.functional.avg_pool2d(maps, 15, stride=1, padding=7)
    maps[1::2] = coarse[1::2]
    return {"maps": maps, "images": images, "targets": targets, "seeds": seeds, "explain": explain}


def ours(name: str, family: str, classifier: Classifier, inputs: dict, given: Namespace) -> Callable | None:
    """Return what times a metric, if there is one; the passes of one image are then counted."""
    try:
        taken = signature("metrics", family, name)
    except UserError:
        print(f"{name}: atlas/metrics/{family}.py has none")
        return None
    metric = params.find("metrics", family, name)
    known = {**given.settings, **given.own.get(name, {})}
    settings = check({key: known[key] for key in taken.types}, taken.types, name, "the metric")

    def judge(rows: int) -> Tensor:
        # Fresh tensors: nothing that another metric has done is taken over.
        part = {key: value if key == "explain" else value[:rows] for key, value in inputs.items()}
        part = {key: value.clone() if isinstance(value, Tensor) else value for key, value in part.items()}
        return metric(*({**part, "classifier": classifier}[key] for key in taken.inputs), **settings)

    def measured() -> dict:
        classifier.passes.update(forward=0, backward=0)
        seconds = timed(lambda: judge(given.images))
        return {"seconds": seconds, **classifier.passes}

    classifier.passes.update(forward=0, backward=0)
    judge(1)
    return measured


def row(name: str, precision: str, turns: list[tuple], images: int) -> dict[str, str]:
    """Spell a row of the table: medians over the turns, each (bare network, ours, bare network again, peer)."""
    _, found, _, peer = turns[0]
    reached = median(share(*turn[:3]) for turn in turns)
    cells = {
        "metric": name,
        "precision": precision,
        "s ours": f"{median(ours['seconds'] for _, ours, _, _ in turns) / images:.3f}",
        "passes ours": passes(found, images),
        "of the bare network": f"{reached:.2f} ({verdict(reached, BARE)})",
    }
    if all(theirs for *_, theirs in turns):
        ratio = median(theirs["seconds"] / ours["seconds"] for _, ours, _, theirs in turns)
        cells |= {"peer": peer["peer"], "s peer": f"{median(one['seconds'] for *_, one in turns) / images:.3f}"}
        cells |= {"passes peer": passes(peer, images), "ratio": f"{ratio:.1f}"}
        alike = abs(peer["forward"] / found["forward"] - 1) < 0.02
        target = AS_MANY_PASSES[precision] if alike else QUANTUS if peer["peer"].startswith("Quantus") else None
        if target:
            cells["ratio"] += f" ({verdict(ratio, target)})"
    return cells


if __name__ == "__main__":
    main()
