"""A tiny study in a house of its own: a copy of the code, a few methods and metrics, really run by DVC."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import yaml
import zarr

from tests.support.forked import call

ROOT = Path(__file__).parents[2]
WARM_DVC = Path(__file__).with_name("warm.py")
IMAGES, GRIDS = 12, 3


def tiny() -> dict:
    """The default study cut down: one classifier, an epoch of training, few images, methods and metrics, no votes."""
    params = yaml.safe_load((ROOT / "params.yaml").read_text())
    params["datasets"]["shapes"].update(train=64, test=120)
    params["engine"]["batch"] = 8
    params["stores"]["shard_rows"] = 5
    classifier = params["classifiers"]["resnet_vanilla"]
    classifier["network"]["widths"] = [4, 4, 8]
    classifier["train"]["epochs"] = 1
    classifier["images"] = {**classifier["images"], "correct_by": [], "count": IMAGES, "background": 8}
    classifier["grids"] = {**classifier["grids"], "confidence_at_least": 0.0, "count": GRIDS}
    params["classifiers"] = {"resnet_vanilla": classifier}
    chosen = {"gradient": ["gradient", "input_x_gradient"], "noise": ["smoothgrad"], "control": ["uniform", "center"]}
    params["methods"] = {
        family: {name: params["methods"][family][name] for name in names} for family, names in chosen.items()
    }
    params["methods"]["noise"]["smoothgrad"]["samples"] = 2
    metrics = {
        "localization": ["pointing_game", "relevance_rank"],
        "grid": ["grid_pointing_game"],
        "faithfulness": ["deletion"],
    }
    params["metrics"] = {
        family: {name: params["metrics"][family][name] for name in names} for family, names in metrics.items()
    }
    params["metrics"]["faithfulness"]["deletion"] = {"pixels": 2048, "baseline": "black", "relative": False, "count": 8}
    params["certify"] = {}
    params["aggregate"].update(resamples=20, min_count=1)
    return params


def build(house: Path, params: dict) -> Path:
    """Copy the code into a folder, give it a params.yaml, make it a repository of git and DVC."""
    for name in ("atlas", "stages", "flows"):
        shutil.copytree(ROOT / name, house / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("dvc.yaml", ".dvcignore", ".gitignore", "uv.lock"):
        shutil.copy(ROOT / name, house / name)
    shutil.copytree(ROOT / ".dvc", house / ".dvc", ignore=shutil.ignore_patterns("cache", "tmp"))
    write(house, params)
    subprocess.run(["git", "init", "-q", "."], cwd=house, check=True)
    return house


def add_study(house: Path, name: str) -> Path:
    """Return a repository a study beside the root's, with the root's stages, and no settings yet."""
    study = house / "studies" / name
    study.mkdir(parents=True)
    shutil.copy(ROOT / "Makefile", house / "Makefile")
    subprocess.run(["make", "-s", f"studies/{name}/dvc.yaml"], cwd=house, check=True)
    return study


def write(house: Path, params: dict) -> None:
    (house / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False))


def environment(house: Path) -> dict[str, str]:
    """The environment in which `python` is this one and the code is the house's."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return {**os.environ, "PATH": path, "PYTHONPATH": str(house), "DO_NOT_TRACK": "1"}


def classified(house: Path) -> None:
    """Make the tiny study as far as the predictions of a classifier of random weights."""
    import torch
    from safetensors.torch import save_file

    from atlas.networks.residual import small_resnet
    from stages import collect, predict

    house.mkdir()
    write(house, tiny())
    collect.main(house, "shapes")
    classes = zarr.open_group(house / "data/datasets/shapes.zarr", mode="r").attrs["classes"]
    folder = house / "data/classifiers/resnet_vanilla"
    folder.mkdir(parents=True)
    torch.manual_seed(0)
    network = small_resnet(classes=len(classes), widths=[4, 4, 8], blocks=1)
    save_file(network.state_dict(), folder / "weights.safetensors")
    (folder / "card.json").write_text(json.dumps({"classes": classes, "mean": [0.5] * 3, "std": [0.25] * 3}))
    predict.main(house, "resnet_vanilla")


def run(house: Path, *command: str) -> subprocess.CompletedProcess:
    done = call(command, house, environment(house))
    assert done.returncode == 0, done.stdout + done.stderr
    return done


def repro(house: Path, *targets: str, faster: bool = False) -> dict[str, dict]:
    """Do `dvc repro`, on warm processes, and give the log lines of the cells that it visited, by cell.

    Args:
        house: The study.
        targets: What is brought up to date.
        faster: Whether DVC reads and writes its lock as in a run of the flow, and digests each part of the code once.
    """
    log = house / ".atlas" / "log.jsonl"

    def lines() -> list[str]:
        return log.read_text().splitlines() if log.is_file() else []

    before = len(lines())
    run(house, sys.executable, WARM_DVC, *["--faster"] * faster, "repro", "-q", *targets)
    return {line["cell"]: line for line in map(json.loads, lines()[before:])}


def computed(lines: dict[str, dict]) -> dict[str, int]:
    """Rows computed, by `verb:table`: method and kind of picture for maps, metric for scores."""
    found: dict[str, int] = {}
    for cell, line in lines.items():
        for table, rows in line["computed"].items():
            name = f"{cell.partition('@')[0]}:{table.replace('/', ':', 1)}"
            found[name] = found.get(name, 0) + rows
    return found


def files(folder: Path) -> dict[str, bytes]:
    return {str(one.relative_to(folder)): one.read_bytes() for one in sorted(folder.rglob("*")) if one.is_file()}
