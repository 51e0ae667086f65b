"""Inputs, classifiers and slow restatements with which every metric is tested."""

import ast
import inspect
from collections import OrderedDict
from pathlib import Path

import numpy as np
import torch
import yaml
from torch import nn

from atlas.inputs.certification import Votes
from atlas.model.classifier import Classifier
from atlas.study import params
from atlas.study.seeds import image_seed

ROOT = Path(__file__).parents[2]
FAMILIES = {
    file.stem: [name for name in ast.literal_eval(assigned.value)]
    for file in sorted((ROOT / "atlas" / "metrics").glob("[a-z]*.py"))
    for assigned in ast.parse(file.read_text()).body
    if isinstance(assigned, ast.Assign) and assigned.targets[0].id == "ATTRS"
}
WHOLE = ("maps", "images", "targets", "seeds")
HEIGHT, WIDTH, BATCH = 18, 12, 8
MEAN, STD = [0.5, 0.4, 0.3], [0.2, 0.25, 0.3]
BLACK = {"mean": [0.0, 0.0, 0.0], "std": [1.0, 1.0, 1.0]}
ENGINE = {"device": "cpu", "precision": "float32", "threads": 1, "batch": BATCH}

FGSM = {"epsilon": 3, "iterations": 1, "step": 3}
PGD = {"epsilon": 2, "iterations": 3, "step": 1}

TEST = {"tau": [0.5, 0.75], "alpha": 0.05, "correction": "bonferroni"}

# For each metric: the settings of the comparison, and the inputs of one image as its slow restatement takes it.
SLOW = {
    "pointing_game": ({"tolerance": 3}, ["maps", "boxes"]),
    "wsl": ({"thresholds": 100, "iou": 0.4}, ["maps", "boxes"]),
    "attribution_localization": ({}, ["maps", "masks"]),
    "relevance_mass": ({"sign": "positive"}, ["maps", "masks"]),
    "relevance_rank": ({}, ["maps", "masks", "seeds"]),
    "top_k_intersection": ({"k": 17}, ["maps", "masks", "seeds"]),
    "log_cosh_dice": ({}, ["maps", "masks"]),
    "mae": ({}, ["maps", "masks"]),
    "sqrt_mae": ({}, ["maps", "masks"]),
    "grid_pointing_game": ({}, ["maps", "tiles"]),
    "deletion": ({"pixels": 31, "baseline": "mean", "relative": True}, ["maps", "images", "seeds", "witness"]),
    "insertion": ({"pixels": 80, "baseline": "blur", "relative": False}, ["maps", "images", "seeds", "witness"]),
    "ins_minus_del": (
        {"pixels": 50, "inserted_into": "mean", "deleted_to": "black", "relative": False},
        ["maps", "images", "seeds", "witness"],
    ),
    "perturbation": ({"pixels": 44, **PGD}, ["maps", "images", "seeds", "witness"]),
    "pixel_flipping": ({"pixels": 31, "baseline": "mean"}, ["maps", "images", "seeds", "witness"]),
    "rcap": ({"lower": 0.3, "interval": 0.15}, ["maps", "images", "witness"]),
    "dauc": ({"levels": 6}, ["maps", "images", "witness"]),
    "iauc": ({"levels": 6}, ["maps", "images", "witness"]),
    "faithfulness_estimate": (
        {"pixels": 31, "baseline": "mean", "output": "probability"},
        ["maps", "images", "seeds", "witness"],
    ),
    "irof": (
        {"superpixels": 9, "compactness": 10.0, "sigma": 1.0, "form": "share"},
        ["maps", "images", "seeds", "witness"],
    ),
    "infidelity": (
        {"patch": 5, "samples": 2, "baseline": "uniform", "output": "logit", "scaled": True},
        ["maps", "images", "seeds", "witness"],
    ),
    "average_drop": ({"fill": "mean"}, ["maps", "images", "witness"]),
    "increase_in_confidence": ({"fill": "black"}, ["maps", "images", "witness"]),
    "road": ({"shares": [0.2, 0.5, 0.9], "noise": 0.01}, ["maps", "images", "seeds", "witness"]),
    "road_morf": ({"shares": [0.3], "noise": 0.05}, ["maps", "images", "seeds", "witness"]),
    "road_lerf": ({"shares": [0.1, 0.8], "noise": 0.0}, ["maps", "images", "seeds", "witness"]),
    "certified_important": (TEST, ["votes"]),
    "certified_unimportant": ({**TEST, "correction": "none"}, ["votes"]),
    "abstained": (TEST, ["votes"]),
    "certified_localization": (TEST, ["votes", "masks"]),
    "certified_deletion": ({**TEST, "baseline": "mean"}, ["votes", "images", "witness"]),
    "certified_consistency": (TEST, ["votes", "maps"]),
    "parted_ties": (TEST, ["votes"]),
    "grid_abstained": (TEST, ["votes", "tiles"]),
    "certified_grid_pointing_game": ({**TEST, "nothing": "undefined"}, ["votes", "tiles"]),
    "certified_nothing": (TEST, ["votes", "tiles"]),
    "grid_parted_ties": (TEST, ["votes", "tiles"]),
    "kept_share": ({}, ["maps", "images", "witness"]),
    "complexity": ({}, ["maps"]),
    "sparseness": ({}, ["maps"]),
    "effective_complexity": ({"epsilon": 0.1}, ["maps"]),
}


def entries():
    """The metrics of the default study, as it sets them."""
    given = yaml.safe_load((ROOT / "params.yaml").read_text())
    listed = params.entries(given, "metrics").values()
    return {
        entry.name: (entry.family, entry.function, entry.settings) for family in listed for entry in family.values()
    }


def network():
    """Return a network whose logits are even on noise, so that a grey level changes some of its predictions."""
    torch.manual_seed(3)
    # The normalization leaves everything as it is: a module with parameters more.
    features = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.BatchNorm2d(8, eps=0.0).eval())
    head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4))
    nn.init.normal_(features[0].weight, std=1.0)
    nn.init.normal_(head[2].weight, std=2.0)
    noise = (torch.rand(64, 3, HEIGHT, WIDTH) - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(STD).view(3, 1, 1)
    head[2].bias.data -= head(features(noise)).mean(dim=0).detach()
    return nn.Sequential(OrderedDict(features=features, head=head))


def make_classifier(made, *, mean=MEAN, std=STD, batch=BATCH):
    return Classifier("tiny", made, mean=mean, std=std, engine={**ENGINE, "batch": batch})


def counted(classifier):
    return classifier.passes["forward"], classifier.passes["backward"]


def linear(weights):
    """Return a classifier whose first probability is sigmoid(Σ w · mean over channels of x)."""
    height, width = weights.shape
    mix, head = nn.Conv2d(3, 1, 1, bias=False), nn.Linear(height * width, 2, bias=False)
    nn.init.constant_(mix.weight, 1 / 3)
    head.weight.data = torch.stack([weights.flatten(), torch.zeros(height * width)])
    made = nn.Sequential(OrderedDict(features=nn.Sequential(mix), head=nn.Sequential(nn.Flatten(), head)))
    return make_classifier(made, **BLACK)


def make_inputs(rows=64):
    """Draw images of random grey levels and maps of all kinds: signed, rectified, coarse, constant, zero, broken."""
    draw, count = torch.Generator().manual_seed(0), 64
    maps = torch.randn(count, HEIGHT, WIDTH, generator=draw)
    maps[1::4] = maps[1::4].relu()
    maps[2::4] = (maps[2::4] * 2).round()
    # Neighbors alike, so that thresholded maps have contours larger than a pixel.
    maps[3::4] = nn.functional.avg_pool2d(maps[3::4], 5, stride=1, padding=2)
    maps[5], maps[6], maps[11, 3, 4] = 0.25, 0.0, torch.nan
    corner = [torch.randint(side, (count, 2), generator=draw) for side in (WIDTH - 4, HEIGHT - 5)]
    corner = torch.stack(corner, dim=-1)
    boxes = torch.cat([corner, corner + torch.tensor([4, 5])], dim=-1)
    boxes[::2, 1] = -1
    boxes[7] = -1
    masks = torch.rand(count, HEIGHT, WIDTH, generator=draw) < 0.3
    masks[4] = False
    tiles = torch.zeros(count, HEIGHT, WIDTH, dtype=torch.bool)
    tiles[::2, : HEIGHT // 2, : WIDTH // 2] = True
    tiles[1::2, HEIGHT // 2 :, WIDTH // 2 :] = True
    classifier, images = make_classifier(network()), torch.randint(256, (count, 3, HEIGHT, WIDTH), generator=draw) / 255
    targets = classifier.logits(images).argmax(dim=1)
    targets[::6] = (targets[::6] + 1) % 4
    classifier.passes.update(forward=0)
    inputs = {
        "maps": maps,
        "images": images,
        "targets": targets,
        "boxes": boxes,
        "masks": masks,
        "tiles": tiles,
        "seeds": [image_seed(0, f"image {row}") for row in range(count)],
        "classifier": classifier,
        "explain": explain,
        "votes": make_votes(count),
    }
    inputs = take(inputs, list(range(rows)))
    return inputs | {"positions": list(range(rows))} | {f"all_{name}": inputs[name] for name in WHOLE}


def make_votes(count):
    """Draw votes of two smoothings: pixels that always win, always lose, and do either; in one row all do either."""
    found = []
    for sigma in (0.1, 0.25):
        draw = np.random.default_rng(round(100 * sigma))
        share = draw.choice([0.0, 0.02, 0.5, 0.98, 1.0], size=(count, 3, HEIGHT, WIDTH))
        share[8] = 0.5
        first, rest = (draw.binomial(number, share).astype(np.uint8) for number in (4, 60))
        tied = draw.integers(65, size=(count, 3)).astype(np.uint16)
        found.append(Votes(first, rest, tied, 4, 60, sigma, [50, 30, 10], "strict"))
    return found


def votes_of(votes, rows):
    """Return some rows' votes."""
    return [one._replace(**{name: getattr(one, name)[rows] for name in ("counts0", "counts", "tied")}) for one in votes]


def explain(classifier, images, targets, seeds, alone=False):
    """A method that metrics may ask: gradients, and a constant map where the image's seed is divisible by 7."""
    gradients = classifier.gradient(images[:], targets, "logit").abs().sum(dim=1)
    return torch.stack([one * 0 + 1 if seed % 7 == 0 else one for one, seed in zip(gradients, seeds, strict=True)])


def call(family, function, settings, inputs):
    found = params.find("metrics", family, function)
    return found(*(inputs[name] for name in inspect.signature(found).parameters if name in inputs), **settings)


def take(inputs, rows):
    """Return some rows' inputs; what is said of all rows stays."""

    def of(name, value):
        if isinstance(value, Classifier) or name == "explain" or name.startswith("all_"):
            return value
        if name == "votes":
            return votes_of(value, rows)
        return [value[row] for row in rows] if isinstance(value, list) else value[rows]

    return {name: of(name, value) for name, value in inputs.items()}


def assert_batch_independent(score, inputs):
    """Ask that rows score the same bits alone, in batches of 7, and in another order."""
    together, count = score(inputs), len(inputs["maps"])
    for rows in (1, 7):
        parts = [score(take(inputs, list(range(at, min(at + rows, count))))) for at in range(0, count, rows)]
        assert same(torch.cat(parts), together), f"in batches of {rows}"
    shuffled = torch.randperm(count, generator=torch.Generator().manual_seed(1)).tolist()
    assert same(score(take(inputs, shuffled)), together[shuffled]), "in another order"


def same(one, other):
    return torch.equal(one.isnan(), other.isnan()) and torch.equal(one.nan_to_num(-7), other.nan_to_num(-7))


class Witness:
    """One image's classifier, without the project's: the bare network in evaluation mode."""

    mean, std = np.float32(MEAN), np.float32(STD)

    def __init__(self, target):
        self.network, self.target = network().eval(), target

    def _logits(self, image):
        mean, std = torch.tensor(MEAN).view(3, 1, 1), torch.tensor(STD).view(3, 1, 1)
        return self.network(((image - mean) / std)[None])

    def probability(self, image):
        return self._logits(torch.from_numpy(image)).softmax(dim=1)[0, self.target].item()

    def logit(self, image):
        return self._logits(torch.from_numpy(image))[0, self.target].item()

    def predicted(self, image):
        return self._logits(torch.from_numpy(image)).argmax().item()

    def loss_gradient(self, image):
        image = torch.from_numpy(image).requires_grad_()
        loss = nn.functional.cross_entropy(self._logits(image), torch.tensor([self.target]))
        return torch.autograd.grad(loss, image)[0].numpy()
