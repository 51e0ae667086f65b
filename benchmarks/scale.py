"""Measure what aggregating and reporting a large study takes, on random scores.

    uv run python benchmarks/scale.py [--classifiers 12] [--methods 40] [--metrics 30] [--images 2000] [--folder F]

It writes stores of scores, maps and similarities as the stages would, then runs `stages.aggregate` and `stages.report`
on them, each a process of its own. Methods are of several families; every fifth metric gives curves, and by every third
some scores are undefined. It prints of each stage its seconds and the most memory that one of its processes held, not
the sum over those that ran at once, and, where there is a Chromium with its driver, the seconds until the page has
loaded and until its last chart has come. Targets: 600 seconds, 8 GiB, and 3 seconds to load; where one is missed, it
exits with status 1.
"""

import json
import os
import resource
import shutil
import subprocess
import sys
from argparse import ArgumentParser, Namespace
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter

import numpy as np
import yaml

sys.path.insert(0, str(Path(__file__).parents[1]))

from atlas.cache.stores import array, group_at
from atlas.study import params
from tests.support import stored
from tests.support.scores import Made
from tests.support.scores import write as write_scores

HERE = Path(__file__).parent.parent
SIDE, SHOWN = 64, 6
FAMILIES = {
    "gradient": {"function": "gradient", "sign": "both", "output": "logit", "layer": "input", "channels": "abs_sum"},
    "relevance": {"function": "lrp", "epsilon": 0.25, "layer": "input", "channels": "sum"},
    "masking": {
        "function": "rise",
        "masks": 8,
        "cells": 6,
        "probability": 0.5,
        "fill": "mean",
        "seed": 0,
        "channels": "sum",
    },
}
STEPS, CURVED, GAPS, UNDEFINED = 8, 5, 3, 0.1  # every so many metrics have curves, or gaps: this share of the scores
ATTRS = {"units": "1", "reference": "by_chance", "settings": "{}"}
CARD = {"accuracy": 0.9, "adversarial_accuracy": 0.1, "evaluated_on": 300, "attacked": 300}
CARD |= {"adversary": {"norm": "linf", "epsilon": 0.03}, "recipe": {"epochs": 1, "adversary": None}}
SECONDS, MEMORY, OPENED = 600, 8, 3


def main() -> None:
    """Print what each step takes."""
    given = arguments()
    with TemporaryDirectory(dir=given.folder) as folder:
        study = Path(folder)
        write(study, given)
        number = given.classifiers * given.methods * given.metrics * given.images
        sizes = f"{given.classifiers} classifiers x {given.methods} methods x {given.metrics} metrics"
        print(f"{sizes} x {given.images} images: {number} scores", flush=True)
        taken = [measured(study, verb) for verb in ("aggregate", "report")]
        total, memory = sum(seconds for seconds, _ in taken), max(memory for _, memory in taken)
        print(f"together: {total:.0f} s ({verdict(total, SECONDS)}), {memory:.1f} GiB ({verdict(memory, MEMORY)})")
        page = study / "data" / "report" / "index.html"
        print(f"the page: {page.stat().st_size / 2**20:.1f} MiB")
        loaded, whole = opened(page) or (0.0, 0.0)  # no browser
        print(f"loaded in {loaded:.1f} s ({verdict(loaded, OPENED)}), with its last chart in {whole:.1f} s")
        if total > SECONDS or memory > MEMORY or loaded > OPENED:
            sys.exit(1)


def arguments() -> Namespace:
    """Read the command line."""
    parser = ArgumentParser(description="Measure aggregation and report at scale.")
    for name, default in (("classifiers", 12), ("methods", 40), ("metrics", 30), ("images", 2000)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--folder", type=Path, help="where to write, and to delete again; the system's own if not said")
    return parser.parse_args()


def write(study: Path, given: Namespace) -> None:
    """Write a study whose scores are random, with methods that really differ."""
    entry = yaml.safe_load((HERE / "params.yaml").read_text())
    like = entry["classifiers"]["resnet_vanilla"]
    like["images"]["correct_by"] = []
    classifiers = [f"classifier_{i:02}" for i in range(given.classifiers)]
    methods = [f"method_{i:02}" for i in range(given.methods)]
    metrics = [f"metric_{i:02}" for i in range(given.metrics)]
    families = {family: methods[at :: len(FAMILIES)] for at, family in enumerate(FAMILIES)}
    judge = {"function": "pointing_game", "tolerance": 4}
    listed = {
        "classifiers": dict.fromkeys(classifiers, like),
        "methods": {family: dict.fromkeys(names, FAMILIES[family]) for family, names in families.items()},
        "certify": {},
        "metrics": {"localization": dict.fromkeys(metrics, judge)},
    }
    (study / "params.yaml").write_text(yaml.safe_dump({**entry, **listed}, sort_keys=False))
    rng = np.random.default_rng(0)
    ids = np.array([f"image_{i:05}" for i in range(given.images)])
    better = rng.normal(size=given.methods)
    group_at(params.path(study, "datasets", "shapes"), {"left_out": [], "known": ["boxes", "mask"]})
    for classifier in classifiers:
        for at, (family, names) in enumerate(families.items()):
            made = {
                metric: scores(metric, place, names, better[at :: len(FAMILIES)], ids, rng)
                for place, metric in enumerate(metrics)
            }
            write_scores(params.path(study, "scores", classifier, family), family, made)
        pictures(study, classifier, families, ids, rng)
        costs(study, classifier, {"method": methods, "metric": metrics}, rng)


def scores(
    metric: str, place: int, methods: list[str], better: np.ndarray, ids: np.ndarray, rng: np.random.Generator
) -> Made:
    """Return the scores of a family's methods by one metric: of every fifth curves, of every third with gaps."""
    known = {**ATTRS, "long_name": metric, "better": "higher", "family": "localization"}
    shape, labels = (len(methods), len(ids)), {"method": methods, "image": ids}
    values = rng.normal(size=shape) + 0.1 * better[:, None]
    if place % GAPS == 1:
        values[rng.random(shape) < UNDEFINED] = np.nan
    if place % CURVED == 1:
        values = values[..., None] + 0.1 * rng.normal(size=(*shape, STEPS))
        known |= {"dim": "fraction", "summary": "area"}
        labels |= {"fraction": np.linspace(0, 1, STEPS)}
    return Made(values, np.ones(shape, bool), labels, known, {})


def pictures(
    study: Path, classifier: str, families: dict[str, list[str]], ids: np.ndarray, rng: np.random.Generator
) -> None:
    """Write what the report reads beside results: some images with their maps, similarities, the classifier's card."""
    group = group_at(params.path(study, "images", classifier) / "images", {})
    pixels = rng.integers(256, size=(SHOWN, 3, SIDE, SIDE), dtype="uint8")
    array(group, "pixels", pixels, ("image", "channel", "y", "x"), {})
    array(group, "image", ids[:SHOWN], ("image",), {})
    array(group, "target", np.arange(SHOWN), ("image",), {})
    predicted = group_at(params.path(study, "predictions", classifier), {})
    for name, value in (("image", ids[:SHOWN]), ("label", np.arange(SHOWN))):
        array(predicted, name, value, ("image",), {})
    array(predicted, "probability", np.full(SHOWN, 0.9, "float32"), ("image",), {})
    array(predicted, "top_probability", np.full((SHOWN, 1), 0.9, "float32"), ("image", "top"), {})
    array(predicted, "top_class", np.arange(SHOWN)[:, None], ("image", "top"), {})
    grids = group_at(params.path(study, "grids", classifier) / "grids", {})
    array(grids, "grid", np.array(["grid_0"]), ("grid",), {})
    methods = [method for names in families.values() for method in names]
    for family, names in families.items():
        made = {}
        for method in names:
            maps = {"attribution": (("y", "x"), rng.random((SHOWN, SIDE, SIDE), "float32"))}
            known = {**ATTRS, "long_name": method, "family": family}
            made[method] = stored.Made(("image",), maps, {"image": ids[:SHOWN]}, known)
        store = params.path(study, "maps", classifier, family)
        stored.write(store, {"images": ("method", made)}, {"family": family})
    group = group_at(params.path(study, "similarity", classifier), {})
    for name in ("pearson", "spearman"):
        values = rng.uniform(-1, 1, size=(SHOWN, len(methods), len(methods)))
        array(group, name, values.astype("float32"), ("image", "method", "other"), {})
    for dim in ("method", "other"):
        array(group, dim, np.array(methods), (dim,), {})
    array(group, "image", ids[:SHOWN], ("image",), {})
    card = params.path(study, "classifiers", classifier) / "card.json"
    card.parent.mkdir(parents=True)
    card.write_text(json.dumps({**CARD, "classes": [f"class_{place}" for place in range(SHOWN)]}))


def costs(study: Path, classifier: str, named: dict[str, list[str]], rng: np.random.Generator) -> None:
    """Write how many passes maps and scores take."""
    for kind, names in named.items():
        group = group_at(params.path(study, "cost", classifier) / f"{kind}s", {})
        for name in ("forward", "backward", "head", *["explained"] * (kind == "metric")):
            array(group, name, rng.integers(1000, size=len(names)), (kind,), {})
        array(group, "key", np.ones((len(names), 16), "uint8"), (kind, "byte"), {})
        array(group, kind, np.array(names, np.dtypes.StringDType()), (kind,), {})


def measured(study: Path, verb: str) -> tuple[float, float]:
    """Run a stage; give its seconds and the most memory that one of its processes held, in GiB."""
    began = perf_counter()
    told = {**os.environ, "PYTHONPATH": str(HERE)}
    subprocess.run([sys.executable, "-m", f"stages.{verb}"], cwd=study, env=told, check=True)
    seconds = perf_counter() - began
    memory = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 2**20  # of all stages so far
    print(f"{verb}: {seconds:.0f} s, at most {memory:.1f} GiB so far", flush=True)
    return seconds, memory


def opened(page: Path) -> tuple[float, float] | None:
    """Open a page in a browser without a screen; give the seconds until it has loaded, and until its charts are there.

    None without a browser.
    """
    browser = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    driver = shutil.which("chromedriver")
    if browser is None or driver is None:
        return None
    from selenium.webdriver import Chrome, ChromeOptions, ChromeService
    from selenium.webdriver.support.wait import WebDriverWait

    options = ChromeOptions()
    options.binary_location = browser
    for flag in ("headless", "no-sandbox", "disable-gpu"):
        options.add_argument(f"--{flag}")
    with Chrome(options=options, service=ChromeService(driver)) as chrome:
        chrome.get("about:blank")
        began = perf_counter()
        chrome.get(page.as_uri())
        loaded = perf_counter() - began
        left = "return document.querySelectorAll('.chart > noscript').length"
        WebDriverWait(chrome, 60).until(lambda chrome: not chrome.execute_script(left))
        return loaded, perf_counter() - began


def verdict(value: float, target: float) -> str:
    """Return whether a target is met."""
    return f"{target:g} {'met' if value <= target else 'missed'}"


if __name__ == "__main__":
    main()
