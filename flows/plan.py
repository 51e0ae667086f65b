"""Ask DVC what is stale and why, and in which order it must be made; prune what params.yaml no longer names."""

import shutil
from graphlib import TopologicalSorter
from pathlib import Path
from typing import NamedTuple

from stages.params import entries, load, path

# Verbs whose rows a warm worker can make before DVC visits the cell.
WARM = ("attribute", "score")


class Plan(NamedTuple):
    """Stale cells in an order that respects their inputs, each with the stale cells it needs and why it is stale."""

    needs: dict[str, list[str]]
    reasons: dict[str, list[str]]


def plan(study: Path) -> Plan:
    """List the cells that DVC would run: those with a change of their own, and all that depend on them."""
    from dvc.repo import Repo

    with Repo(str(study)) as repo:
        # Seen from another folder, DVC puts the path of dvc.yaml before a cell's name.
        changed = {name.rpartition(":")[2]: told for name, told in repo.status().items()}
        graph = repo.index.graph
        inputs = {stage.name: [needed.name for needed in graph.successors(stage)] for stage in graph.nodes}
    order = list(TopologicalSorter(inputs).static_order())
    reasons: dict[str, list[str]] = {}
    for name in order:
        after = [needed for needed in inputs[name] if needed in reasons]
        own = _told(changed.get(name, []))
        if own or after:
            reasons[name] = own or [f"after {after[0]}" + (f" and {len(after) - 1} more" if len(after) > 1 else "")]
    return Plan({name: [needed for needed in inputs[name] if needed in reasons] for name in reasons}, reasons)


def verb(cell: str) -> tuple[str, list[str]]:
    """Take a cell's name apart: `attribute@resnet_vanilla-cam` is attribute of resnet_vanilla and cam."""
    name, _, rest = cell.partition("@")
    return name, rest.split("-") if rest else []


def clean(study: Path) -> list[Path]:
    """Delete outputs and scratch of entries that params.yaml no longer names; give what was deleted."""
    params = load(study)
    classifiers, families = list(params["classifiers"]), list(entries(params, "methods"))
    kept = {path(study, "datasets", name) for name in params["datasets"]}
    for name in classifiers:
        kept |= {path(study, kind, name) for kind in ("classifiers", "predictions", "images", "grids", "similarity")}
        kept |= {path(study, kind, name, family) for kind in ("maps", "scores") for family in families}
    kept |= {folder.parent for folder in kept}
    found = [*study.glob("data/datasets/*")]
    for kind in ("classifiers", "predictions", "images", "grids", "similarity", "maps", "scores"):
        found += study.glob(f"data/{kind}/*")
    found += [*study.glob("data/maps/*/*"), *study.glob("data/scores/*/*")]
    cells = {f"{name}@{one}" for name in ("predict", "correlate") for one in classifiers}
    cells |= {f"{name}@{one}-{family}" for name in WARM for one in classifiers for family in families}
    gone = [one for one in found if one not in kept]
    gone += [one for one in study.glob(".atlas/cells/*") if one.name not in cells]
    for one in gone:
        shutil.rmtree(one, ignore_errors=True) if one.is_dir() else one.unlink(missing_ok=True)
    return gone


def _told(changes: list) -> list[str]:
    """Say in a line each what DVC found changed."""
    told = []
    for change in changes:
        if isinstance(change, str):
            told.append(change)
            continue
        for kind, items in change.items():
            pairs = items.items() if isinstance(items, dict) else [(str(items), "")]
            told += [f"{kind}: {name} {_flat(state)}".strip() for name, state in pairs]
    return told


def _flat(state: object) -> str:
    return ", ".join(f"{name} {what}" for name, what in state.items()) if isinstance(state, dict) else str(state)
