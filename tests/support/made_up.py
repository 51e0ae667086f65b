"""A small study with made-up scores, maps and images, in the formats of the stages before `aggregate`."""

import json
from pathlib import Path

import numpy as np
import yaml

from atlas.cache.stores import array, group_at
from atlas.study import params
from atlas.study.schema import signatures
from tests.support import scores, stored

SIDE = 48
METHODS = {
    "gradient": ["saliency", "input_x_gradient", "integrated_gradients", "smoothgrad", "guided_backprop"],
    "cam": ["cam", "gradcam", "gradcam_pp", "layercam"],
    "perturbation": ["rise", "occlusion"],
    "control": ["uniform", "canny", "center"],
}
SIGNED = {"input_x_gradient", "integrated_gradients", "guided_backprop", "cam", "occlusion"}
# long_name, better, units; then what is judged
METRICS = {
    "localization": {"pointing_game": ("Pointing game", "higher"), "wsl": ("Weakly supervised localization", "higher")},
    "faithfulness": {"deletion": ("Deletion", "lower"), "insertion": ("Insertion", "higher")},
    "grid": {"grid_pointing_game": ("Grid pointing game", "higher")},
    "robustness": {"max_sensitivity": ("Max-Sensitivity", "lower")},
    "complexity": {"sparseness": ("Sparseness", "higher")},
}
CLASSIFIERS = ["vanilla", "robust"]
UNSUPPORTED = {("vanilla", "cam"): "the head is not global average pooling and one linear layer"}
PREFIX = {"max_sensitivity": 10}
EXCLUDED = {"max_sensitivity": ["uniform"]}
STEPS, THRESHOLDS = 12, 20
KINDS = ("forward", "backward", "head")


def house(folder: Path) -> Path:
    """Write modules that declare the made-up functions, as `params` reads them from source."""
    (folder / "datasets").mkdir(parents=True)
    (folder / "datasets" / "shapes.py").write_text("def shapes(*, number: int):\n    pass\n")
    (folder / "networks").mkdir()
    (folder / "networks" / "residual.py").write_text("def residual(*, classes: int):\n    pass\n")
    for kind, listed in (("methods", METHODS), ("metrics", METRICS)):
        (folder / kind).mkdir()
        for family, names in listed.items():
            asked = "images" if kind == "methods" else "maps"
            text = "".join(f"def {name}({asked}):\n    pass\n" for name in names)
            (folder / kind / f"{family}.py").write_text(text)
    modules = [f"stages/{name}.py" for name in ("aggregate", "report", "select", "tile")]
    for name in [
        *modules,
        *(f"atlas/{name}.py" for name in ("classifiers/training", "classifiers/adopting", "model/attacks")),
    ]:
        file = folder.parent / name
        file.parent.mkdir(exist_ok=True)
        file.write_text((signatures.HOUSE.parent / name).read_text())
    return folder


def study(
    folder: Path, *, images: int = 24, grids: int = 6, seed: int = 0, shape: tuple[int, int, int] = (3, SIDE, SIDE)
) -> Path:
    """Write params.yaml and every store that `aggregate` and `report` read."""
    folder.mkdir(exist_ok=True)
    (folder / "params.yaml").write_text(yaml.safe_dump(settings(), sort_keys=False))
    rng = np.random.default_rng(seed)
    for number, classifier in enumerate(CLASSIFIERS):
        _scores(folder, classifier, number, images, grids, rng)
        _similarity(folder, classifier, images, rng)
        costs(folder, classifier, [name for listed in METRICS.values() for name in listed])
        _pictures(folder, classifier, images, shape, rng)
        predictions(folder, classifier, ids(images), np.arange(images) % 8)
    group_at(params.path(folder, "datasets", "shapes"), {"classes": [f"shape_{number}" for number in range(8)]})
    return folder


def settings() -> dict:
    shipped = yaml.safe_load((Path(__file__).parents[2] / "params.yaml").read_text())
    like = shipped["classifiers"]["resnet_vanilla"]
    like = {**like, "images": {**like["images"], "correct_by": []}}
    metrics = {
        family: {
            name: {key: value[name] for key, value in (("count", PREFIX), ("exclude", EXCLUDED)) if name in value}
            for name in names
        }
        for family, names in METRICS.items()
    }
    return {
        "seed": 0,
        "engine": {"device": "cpu", "precision": "float32", "threads": 1, "batch": 32},
        "stores": {"dtype": "float32", "shard_rows": 64},
        "robustness_eval": shipped["robustness_eval"],
        "datasets": {"shapes": {"path": "here", "number": 100}},
        "classifiers": {name: {**like, "dataset": "shapes", "network": {"family": "residual"}} for name in CLASSIFIERS},
        "methods": {family: {name: {"channels": "sum"} for name in names} for family, names in METHODS.items()},
        "certify": {},
        "metrics": metrics,
        "aggregate": {"resamples": 200, "level": 0.95, "weights": "families", "min_count": 1},
        "report": {
            "title": "Made up",
            "question": "Which method is best?",
            "images": 3,
            "pixels": 96,
            "sanity_threshold": 0.9,
        },
    }


def attrs(family: str, name: str) -> dict[str, str]:
    long_name, better = METRICS[family][name]
    found = {"long_name": long_name, "units": "1", "better": better, "reference": f"someone2020{name}"}
    if family == "faithfulness":
        found |= {"units": "probability", "dim": "fraction", "summary": "area"}
    if name == "wsl":
        found |= {"dim": "threshold", "summary": "best_threshold"}
    return {**found, "family": family, "settings": json.dumps({})}


def quality(method: str, classifier: int) -> float:
    """How good a method is at everything, 0 to 1."""
    names = [name for listed in METHODS.values() for name in listed]
    base = {"uniform": 0.02, "canny": 0.12, "center": 0.3}.get(method, 0.45 + 0.04 * names.index(method))
    return min(1.0, base + (0.1 * classifier if method in METHODS["gradient"] else 0))


def _scores(folder: Path, classifier: str, number: int, images: int, grids: int, rng: np.random.Generator) -> None:
    hard = rng.normal(scale=0.15, size=images)
    for methods_family, methods in METHODS.items():
        made = {
            name: _made(classifier, number, family, name, methods, hard, grids, rng)
            for family, listed in METRICS.items()
            for name in listed
        }
        scores.write(params.path(folder, "scores", classifier, methods_family), methods_family, made)


def _made(classifier, number, family, name, methods, hard, grids, rng) -> scores.Made:
    methods = [method for method in methods if method not in EXCLUDED.get(name, [])]
    refused = {method: UNSUPPORTED[classifier, method] for method in methods if (classifier, method) in UNSUPPORTED}
    rows = min(len(hard), PREFIX.get(name, len(hard)))
    good = np.array([quality(method, number) for method in methods])
    shape = (len(methods), grids, 4) if family == "grid" else (len(methods), rows)
    level = good.reshape(-1, *[1] * (len(shape) - 1)) + rng.normal(scale=0.12, size=shape)
    if family != "grid":
        level = level + hard[:rows]
    values, along = _shaped(family, name, level, rng)
    served = np.array([method not in refused for method in methods])
    asked = np.broadcast_to(served.reshape(-1, *[1] * level[0].ndim), shape)
    values[~asked] = np.nan
    if name == "pointing_game":
        values[:, 3] = np.nan  # an image without a box
    of_grids = {"grid": [f"grid_{i}" for i in range(grids)], "tile": np.arange(4)}
    labels = {"method": methods, **(of_grids if family == "grid" else {"image": ids(rows)}), **along}
    return scores.Made(values, asked, labels, attrs(family, name), refused)


def ids(number: int) -> list[str]:
    return [f"test_{i:04d}" for i in range(number)]


def _shaped(family: str, name: str, level: np.ndarray, rng: np.random.Generator):
    share = np.clip(level, 0.02, 1)
    if family == "grid":
        return share, {}
    if name == "wsl":
        at = np.arange(THRESHOLDS) / THRESHOLDS
        hits = rng.random((*share.shape, THRESHOLDS)) < share[..., None] * np.exp(-8 * (at - 0.3) ** 2)
        return hits.astype(float), {"threshold": at}
    if family == "faithfulness":
        x = np.linspace(0, 1, STEPS + 1)
        bend = 0.3 + 4 * share[..., None]
        curve = 0.95 * (1 - x) ** bend if name == "deletion" else 0.95 * (1 - (1 - x) ** bend)
        return np.clip(curve + rng.normal(scale=0.01, size=curve.shape), 0, 1), {"fraction": x}
    if name == "pointing_game":
        return (rng.random(share.shape) < share).astype(float), {}
    return (1 - share if name == "max_sensitivity" else share), {}


def _similarity(folder: Path, classifier: str, images: int, rng: np.random.Generator) -> None:
    names = [name for listed in METHODS.values() for name in listed]
    family = np.array([family for family, listed in METHODS.items() for _ in listed])
    close = np.where(family[:, None] == family, 0.6, 0.1)
    close[family == "control"] = close[:, family == "control"] = 0.02
    values = np.clip(close + rng.normal(scale=0.1, size=(images, *close.shape)), -1, 1)
    values = (values + values.transpose(0, 2, 1)) / 2
    values[:, np.arange(len(names)), np.arange(len(names))] = 1
    values[0, names.index("saliency")] = values[0, :, names.index("saliency")] = np.nan  # a constant map
    group = group_at(params.path(folder, "similarity", classifier), {})
    for name in ("pearson", "spearman"):
        array(group, name, values.astype("float32"), ("image", "method", "other"), {})
    for dim in ("method", "other"):
        array(group, dim, np.array(names), (dim,), {})
    array(group, "image", np.array(ids(images)), ("image",), {})


def cost(method: str) -> tuple[int, int, int]:
    """How many passes, forward, backward and of the head, a map takes."""
    passes = {"uniform": (0, 0, 0), "canny": (0, 0, 0), "center": (0, 0, 0), "cam": (1, 0, 0), "rise": (96, 0, 0)}
    passes |= {"smoothgrad": (16, 16, 0), "integrated_gradients": (50, 50, 0), "occlusion": (2049, 0, 0)}
    return passes.get(method, (1, 1, 0))


def costs(folder: Path, classifier: str, metrics: list[str]) -> None:
    """Write what maps and scores take on a classifier."""
    root = params.path(folder, "cost", classifier)
    group_at(root, {})
    names = [name for listed in METHODS.values() for name in listed]
    numbers = {"deletion": (13, 0, 0, 0), "insertion": (13, 0, 0, 0), "max_sensitivity": (0, 0, 0, 10)}
    for kind, listed, found, kinds in (
        ("method", names, [cost(name) for name in names], KINDS),
        ("metric", metrics, [numbers.get(name, (0,) * 4) for name in metrics], (*KINDS, "explained")),
    ):
        group = group_at(root / f"{kind}s", {})
        served = np.array([(classifier, name) not in UNSUPPORTED for name in listed])
        for name, column in zip(kinds, np.array(found).T, strict=True):
            array(group, name, np.where(served, column, 0).astype("int64"), (kind,), {})
        array(group, "key", np.broadcast_to(served[:, None], (len(listed), 16)).astype("uint8"), (kind, "byte"), {})
        array(group, kind, np.array(listed, dtype=np.dtypes.StringDType()), (kind,), {})


def predictions(folder: Path, classifier: str, images: list[str], labels: np.ndarray) -> None:
    """Write predictions of eight classes: the label is the most probable one, but for the last image."""
    top = (labels[:, None] + np.arange(5)) % 8
    top[-1, :2] = top[-1, 1::-1]
    group = group_at(params.path(folder, "predictions", classifier), {})
    array(group, "image", np.array(images, dtype=np.dtypes.StringDType()), ("image",), {})
    array(group, "label", labels, ("image",), {})
    share = np.tile(np.array([0.6, 0.2, 0.1, 0.05, 0.02], "float32"), (len(labels), 1))
    own = np.where(top == labels[:, None], share, 0).max(axis=1)
    array(group, "probability", own, ("image",), {})
    array(group, "top_probability", share, ("image", "top"), {})
    array(group, "top_class", top, ("image", "top"), {})


def _pictures(
    folder: Path, classifier: str, images: int, shape: tuple[int, int, int], rng: np.random.Generator
) -> None:
    """Write images of one bright disk, maps that find it more or less, and the classifier's card."""
    channels, height, width = shape
    y, x = np.mgrid[:height, :width] / np.array(shape[1:]).reshape(2, 1, 1)
    centers = np.random.default_rng(1).uniform(0.3, 0.7, size=(images, 2, 1, 1))
    disk = ((y - centers[:, 0]) ** 2 + (x - centers[:, 1]) ** 2 < 0.03).astype(float)
    texture = np.random.default_rng(2).uniform(0.2, 0.6, size=(images, *shape))
    pixels = np.clip(texture + 0.4 * disk[:, None] * np.array([1, 0.6, 0.1, 0.8])[:channels, None, None], 0, 1)
    group = group_at(params.path(folder, "images", classifier) / "images", {})
    array(group, "pixels", (255 * pixels).astype("uint8"), ("image", "channel", "y", "x"), {})
    array(group, "image", np.array(ids(images)), ("image",), {})
    for name in ("label", "target"):
        array(group, name, np.arange(images) % 8, ("image",), {})
    grids = group_at(params.path(folder, "grids", classifier) / "grids", {})
    array(grids, "grid", np.array(["grid_0"]), ("grid",), {})
    array(group, "boxes", np.tile([10, 10, 38, 38], (images, 1, 1)), ("image", "box", "side"), {})
    smooth = np.exp(-((y - centers[:, 0]) ** 2 + (x - centers[:, 1]) ** 2) / 0.03)
    for family, methods in METHODS.items():
        made = {}
        for method in methods:
            noise = rng.normal(size=disk.shape)
            known = quality(method, CLASSIFIERS.index(classifier))
            maps = known * smooth * (1 if family == "cam" else 0.7 + 0.5 * noise) + (1 - known) * 0.2 * noise
            maps = maps - 0.1 if method in SIGNED else np.abs(maps)
            reason = UNSUPPORTED.get((classifier, method))
            known_as = {
                "long_name": method.replace("_", " ").title(),
                "units": "1",
                "reference": f"someone2020{method}",
                "family": family,
                "settings": json.dumps({}),
            }
            values = np.full(maps.shape, np.nan) if reason else maps
            made[method] = stored.Made(
                ("image",),
                {"attribution": (("y", "x"), values.astype("float32"))},
                {"image": ids(images)},
                known_as | ({"unsupported": reason} if reason else {}),
            )
        root = params.path(folder, "maps", classifier, family)
        stored.write(root, {"images": ("method", made)}, {"family": family})
    card = params.path(folder, "classifiers", classifier) / "card.json"
    card.parent.mkdir(parents=True)
    plain = classifier == "vanilla"
    measured = {"accuracy": 0.97 if plain else 0.91, "adversarial_accuracy": 0.04 if plain else 0.66}
    recipe = {"epochs": 1, "adversary": None if plain else {"norm": "l2", "epsilon": 1.0}}
    attack = {"evaluated_on": 300, "attacked": 100, "adversary": {"norm": "linf", "epsilon": 0.03}, "recipe": recipe}
    card.write_text(json.dumps({**measured, **attack, "classes": [f"shape_{number}" for number in range(8)]}))
