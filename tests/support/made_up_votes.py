"""Votes on some maps of the made-up study, and metrics that judge them, in the formats of the stages."""

import json
from pathlib import Path

import numpy as np
import yaml

from atlas.inputs.certification import IMPORTANT, Votes, labels
from atlas.study import params
from atlas.study.schema import signatures
from atlas.study.schema.smoothing import radius
from atlas.study.schema.smoothing import stored as as_stored
from tests.support import made_up, scores, stored
from tests.support.made_up import CLASSIFIERS, METHODS, SIDE, UNSUPPORTED

LEVELS, N0, N, IMAGES, GRIDS = [50, 30, 10], 10, 60, 5, 5
VOTED = ["saliency", "input_x_gradient", "cam", "gradcam", "rise", "uniform"]
TIED = ["gradcam", "uniform"]  # on grids, in most copies
SWEPT = ["saliency", "gradcam"]
ALONE = "center"  # certified under the second smoothing alone
VOTES = f"images_{len(LEVELS)}"  # the group of a store
WAYS = {"noise_15": (0.15, VOTED), "noise_25": (0.25, [*SWEPT, ALONE])}
TEST = {"level": 30, "tau": [0.75], "alpha": 0.05, "correction": "bonferroni"}
ONE = {"smoothings": ["noise_15"], **TEST}
SWEEP = {**TEST, "smoothings": list(WAYS), "tau": [0.75, 0.6], "correction": "holm"}
METRICS = {
    "certified": {
        "certified_important": ONE,
        "certified_unimportant": ONE,
        "abstained": ONE,
        "certified_localization": ONE,
        "certified_deletion": {**ONE, "baseline": "mean"},
        "sweep": {"function": "certified_important", **SWEEP},
    },
    "certified_grid": {
        "grid_abstained": ONE,
        "certified_grid_pointing_game": {**ONE, "nothing": "zero"},
        "grid_parted_ties": ONE,
    },
}


def house(folder: Path) -> Path:
    """Write the modules of the made-up study, and those that votes and networks of the paper need."""
    made_up.house(folder)
    (folder / "inputs").mkdir()
    for name in ("inputs/voting.py", "metrics/certified.py", "metrics/certified_grid.py"):
        (folder / name).write_text((signatures.HOUSE / name).read_text())
    cam = folder / "methods" / "cam.py"
    cam.write_text(cam.read_text().replace("def gradcam(images)", "def gradcam(images, *, layer: str)"))
    (folder / "datasets" / "imagenet.py").write_text("def paper(*, number: int):\n    pass\n")
    (folder / "networks" / "torchvision.py").write_text("def torchvision(*, classes: int, name: str):\n    pass\n")
    return folder


def study(folder: Path) -> Path:
    """Write the made-up study, votes on its first images, and the scores of metrics that judge them."""
    made_up.study(folder)
    given = yaml.safe_load((folder / "params.yaml").read_text())
    settings = {"form": "strict", "levels": LEVELS, "n0": N0, "n": N, "images": IMAGES}
    given["certify"] = {
        name: {
            **settings,
            "sigma": sigma,
            "tile": None,
            "grids": GRIDS if name == "noise_15" else 0,
            "methods": methods,
        }
        for name, (sigma, methods) in WAYS.items()
    }
    given["metrics"] |= METRICS
    given["methods"]["cam"]["gradcam"]["layer"] = "final"
    (folder / "params.yaml").write_text(yaml.safe_dump(given, sort_keys=False))
    rng = np.random.default_rng(5)
    for classifier in CLASSIFIERS:
        cast = {way: {name: _cast(rng, classifier, name, way) for name in WAYS[way][1]} for way in WAYS}
        _votes(folder, classifier, cast)
        made_up.costs(folder, classifier, [name for listed in given["metrics"].values() for name in listed])
        _scores(folder, classifier, cast, rng)
    return folder


def _cast(rng: np.random.Generator, classifier: str, method: str, way: str) -> Votes:
    """Take the top of noisy samples of one map an image; the better the method, the less the samples differ."""
    y, x = np.mgrid[:SIDE, :SIDE] / SIDE
    clean = np.exp(-((y - 0.5) ** 2 + (x - 0.4) ** 2) / 0.05).ravel()
    spread = WAYS[way][0] * (1.1 - made_up.quality(method, CLASSIFIERS.index(classifier)))
    counts = np.zeros((2, IMAGES, len(LEVELS), SIDE * SIDE), np.uint8)
    for image in range(IMAGES):
        for draw in range(N0 + N):
            order = np.argsort(-(clean + spread * rng.normal(size=clean.shape)))
            for place, level in enumerate(LEVELS):
                counts[int(draw >= N0), image, place, order[: level * len(clean) // 100]] += 1
    counts0, counts = counts.reshape(2, IMAGES, len(LEVELS), SIDE, SIDE)
    tied = np.zeros((IMAGES, len(LEVELS)), np.uint16)
    return Votes(counts0, counts, tied, N0, N, WAYS[way][0], LEVELS, "strict")


def _votes(folder: Path, classifier: str, cast: dict[str, dict[str, Votes]]) -> None:
    for family, methods in METHODS.items():
        made = {}
        for method in [name for name in methods if name in (*VOTED, ALONE)]:
            reason = UNSUPPORTED.get((classifier, method))
            for way in [way for way in WAYS if method in cast[way]]:
                votes = cast[way][method]
                fields = {
                    "counts": (("samples", "level", "y", "x"), np.stack([votes.counts0, votes.counts], axis=1)),
                    "tied": (("level",), votes.tied),
                }
                if reason:
                    fields = {name: (dims, np.zeros_like(values)) for name, (dims, values) in fields.items()}
                known = {"unsupported": reason} if reason else {}
                made[f"{method}/{way}"] = stored.Made(("image",), fields, {"image": made_up.ids(IMAGES)}, known)
        store = params.path(folder, "votes", classifier, family)
        stored.write(store, {VOTES: ("votes", made)} if made else {}, {"family": family})


def _scores(folder: Path, classifier: str, cast: dict[str, dict[str, Votes]], rng: np.random.Generator) -> None:
    for family, methods in METHODS.items():
        made = {}
        for of, listed in METRICS.items():
            for name, entry in listed.items():
                ways = entry["smoothings"]
                judged = [one for one in methods if all(one in WAYS[way][1] for way in ways)]
                refused = {one: UNSUPPORTED[classifier, one] for one in judged if (classifier, one) in UNSUPPORTED}
                levels = [0, 10, 30, 50] if name == "certified_deletion" else LEVELS
                lead = (len(judged), GRIDS, 4) if of == "certified_grid" else (len(judged), IMAGES)
                tests = [(way, tau) for way in ways for tau in entry["tau"]]
                values = np.full((*lead, len(tests), len(levels)), np.nan)
                for at, method in enumerate(judged):
                    if method not in refused:
                        function = entry.get("function", name)
                        found = [_score(function, {**entry, "tau": tau}, cast[way][method], rng) for way, tau in tests]
                        if function == "grid_parted_ties":
                            found = [np.full((GRIDS, 4, len(LEVELS)), 0.9 if method in TIED else 0.1)] * len(tests)
                        values[at] = np.stack(found, axis=-2)
                attrs = {
                    "long_name": f"Made-up {name}",
                    "units": "1",
                    "better": "higher",
                    "reference": "anani2025pixel",
                }
                attrs |= {"dim": "level", "summary": "level", "level": 30, "family": of, "settings": json.dumps({})}
                asked = np.ones(lead, bool)
                asked[[place for place, one in enumerate(judged) if one in refused]] = False
                of_grids = {"grid": [f"grid_{i}" for i in range(GRIDS)], "tile": np.arange(4)}
                rows = of_grids if of == "certified_grid" else {"image": made_up.ids(IMAGES)}
                radii = [as_stored(radius(WAYS[way][0], tau)) for way, tau in tests]
                labelled = {"method": judged, **rows, "radius": radii, "level": levels}
                made[name] = scores.Made(values, asked, labelled, {**attrs, "role": "apart"}, refused)
        scores.write(params.path(folder, "scores", classifier, family), family, made)


def _score(function: str, entry: dict, votes: Votes, rng: np.random.Generator) -> np.ndarray:
    marks = labels(votes, tau=entry["tau"], alpha=entry["alpha"], correction=entry["correction"])
    label = {"certified_important": IMPORTANT, "certified_unimportant": 0, "abstained": -1}.get(function)
    if label is not None:
        return 100 * (marks == label).mean(axis=(-2, -1))
    if function == "certified_localization":
        return (marks[..., 10:38, 10:38] == IMPORTANT).sum(axis=(-2, -1)) / (marks == IMPORTANT).sum(axis=(-2, -1))
    if function == "certified_deletion":
        return rng.uniform(size=(IMAGES, 4))
    return rng.uniform(size=(GRIDS, 4, len(LEVELS))) * (100 if function == "grid_abstained" else 1)
