"""Ask DVC what is stale and why, and in which order to make it; delete what params.yaml no longer names."""

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import chdir, contextmanager
from graphlib import TopologicalSorter
from importlib import import_module
from pathlib import Path
from typing import NamedTuple

from atlas.cache.locks import PARTIAL, delete, delete_scratch, take
from atlas.study.params import entries, load, path
from atlas.study.study import Study
from flows.messages import print_line
from flows.workers import command
from stages import versions

# Stages whose cells a warm worker makes.
WARM = ("predict", "attribute", "certify", "score", "cost")

# Locks of the studies on which this process is working.
HELD: set[Path] = set()

# Outputs with an entry per classifier.
OF_CLASSIFIER = ("classifiers", "predictions", "images", "grids", "similarity", "cost")
# Outputs with a folder per classifier and an entry per family in it.
OF_FAMILY = ("maps", "votes", "scores")


class Plan(NamedTuple):
    """What is to be made.

    needs: The stale cells in topological order, each with the stale cells that it needs.
    reasons: Why each is stale.
    warm: Those that a warm worker makes: what dvc.yaml runs for them is the stage and nothing else.
    """

    needs: dict[str, list[str]]
    reasons: dict[str, list[str]]
    warm: frozenset[str] = frozenset()


def plan(study: Path) -> Plan:
    """Return the cells that DVC would run: those with a change of their own, and all that depend on them."""
    from dvc.repo import lock_repo

    from flows.dvc_speedups import looking_once, speedups
    from flows.repository import repository

    with speedups(study), repository(study) as repo, lock_repo(repo), looking_once(repo, together=True):
        # From another folder, DVC prefixes a cell's name with the path of dvc.yaml.
        changed = {name.rpartition(":")[2]: changes for name, changes in repo.status().items()}
        if newer := versions.changed(Study(study)):
            changes = [f"{name} {old}, installed is {new}" for name, (old, new) in newer.items()]
            changed["versions"] = [*changes, *changed.get("versions", [])]
        graph = repo.index.graph
        inputs = {stage.name: [needed.name for needed in graph.successors(stage)] for stage in graph.nodes}
        own = [stage for stage in graph.nodes if Path(stage.wdir).resolve() == study.resolve() and not stage.frozen]
        warm = frozenset(stage.name for stage in own if stage.cmd == _command(stage.name))
    order = list(TopologicalSorter(inputs).static_order())
    reasons: dict[str, list[str]] = {}
    for name in order:
        after = [needed for needed in inputs[name] if needed in reasons]
        own = _lines(changed.get(name, []))
        if own or after:
            reasons[name] = own or [f"after {after[0]}" + (f" and {len(after) - 1} more" if len(after) > 1 else "")]
    return Plan({name: [needed for needed in inputs[name] if needed in reasons] for name in reasons}, reasons, warm)


def verb(cell: str) -> tuple[str, list[str]]:
    """Split a cell's name: `attribute@resnet_vanilla-cam` is attribute of resnet_vanilla and cam."""
    name, _, rest = cell.partition("@")
    return name, rest.split("-") if rest else []


class Visit(NamedTuple):
    """The cost of a cell's last visit, by the run log: of the worker and of the cell's own command, together."""

    wanted: int
    computed: int
    seconds: float


def visits(study: Path) -> dict[str, Visit]:
    """Read the last visit of every cell that computes rows."""
    log = study / ".atlas" / "log.jsonl"
    found: dict[str, list[dict]] = {}
    for line in map(json.loads, log.read_text().splitlines() if log.is_file() else []):
        before = found.get(line["cell"], [])
        found[line["cell"]] = [line] if not before or before[-1]["assembled"] else [*before, line]
    return {
        cell: Visit(
            lines[-1]["rows_wanted"],
            sum(line["rows_computed"] for line in lines),
            sum(line["seconds"] for line in lines),
        )
        for cell, lines in found.items()
    }


def count_missing(study: Path, cell: str) -> tuple[int, int] | None:
    """Return the number of rows of a cell whose inputs exist, and of those that are missing; None if unknown."""
    from atlas.inputs import cell_runner

    name, parts = verb(cell)
    if name not in WARM:
        return None
    try:
        with chdir(study):  # files that params.yaml names are relative to it
            return cell_runner.count_missing(import_module(f"stages.{name}").STAGE, Path(), *parts)
    except BlockingIOError:  # another process is computing them
        return None


def expected(due: tuple[int, int] | None, last: Visit | None) -> tuple[str, str]:
    """Format the number of missing rows, and the expected seconds by the cost of the last visit."""
    rows = f"{due[1]} of {due[0]}" if due else "?" if last else ""
    if last is None:
        return rows, "?"
    rate = last.seconds / last.computed if last.computed else 0.0
    return rows, f"{rate * due[1]:.0f}" if due and last.computed else f"{last.seconds:.0f}"


def clean(study: Path) -> list[Path]:
    """Delete outputs and scratch of entries that params.yaml no longer names; return what was deleted.

    What a living process is making is left alone: its scratch is locked.
    """
    params = load(study)
    classifiers, families = list(params["classifiers"]), list(entries(params, "methods"))
    kept = {path(study, "datasets", name) for name in params["datasets"]}
    for name in classifiers:
        kept |= {path(study, kind, name) for kind in OF_CLASSIFIER}
        kept |= {path(study, kind, name, family) for kind in OF_FAMILY for family in families}
    kept |= {folder.parent for folder in kept}
    found = [*study.glob("data/datasets/*"), *study.glob(f"data/.*{PARTIAL}")]
    for kind in (*OF_CLASSIFIER, *OF_FAMILY):
        found += study.glob(f"data/{kind}/*")
    found += [one for kind in OF_FAMILY for one in study.glob(f"data/{kind}/*/*")]
    cells = {f"{name}@{one}" for name in ("prepare", "predict", "correlate", "cost") for one in classifiers}
    cells |= {
        f"{name}@{one}-{family}"
        for name in ("attribute", "certify", "score")
        for one in classifiers
        for family in families
    }
    gone = [one for one in found if one not in kept and (delete(one) if PARTIAL in one.suffixes else _deleted(one))]
    return gone + [one for one in study.glob(".atlas/cells/*") if one.name not in cells and delete_scratch(one)]


@contextmanager
def at_work(study: Path) -> Iterator[None]:
    """Lock a study inside the `with` block: a second run waits until the first has ended, and says so."""
    lock = _lock(study)
    if lock in HELD:
        yield
        return
    try:
        held = take(lock, wait=False)
    except BlockingIOError:
        print_line(
            f"another run is at work on {study} (process {lock.read_text().strip()}): this one waits until it ends"
        )
        held = take(lock)
    os.ftruncate(held, 0)
    os.pwrite(held, f"{os.getpid()}\n".encode(), 0)
    HELD.add(lock)
    try:
        yield
    finally:
        HELD.remove(lock)
        os.close(held)


def at_work_now(study: Path) -> str | None:
    """Return the number of the process that has locked a study; None if there is none."""
    lock = _lock(study)
    if not lock.exists():
        return None
    try:
        os.close(take(lock, wait=False))
    except BlockingIOError:
        return lock.read_text().strip()
    return None


def _command(cell: str) -> str | None:
    """Return the command of a cell that a warm worker can make; None for other cells."""
    name, parts = verb(cell)
    return command(name, parts) if name in WARM else None


def _lock(study: Path) -> Path:
    return study.resolve() / ".atlas" / "run.lock"


def _deleted(output: Path) -> bool:
    shutil.rmtree(output, ignore_errors=True) if output.is_dir() else output.unlink(missing_ok=True)
    return True


def _lines(changes: list) -> list[str]:
    """Return a line for each change that DVC found."""
    lines = []
    for change in changes:
        if isinstance(change, str):
            lines.append(change)
            continue
        for items in change.values():
            pairs = items.items() if isinstance(items, dict) else [(str(items), "")]
            lines += [f"{name} {_flat(state)}".strip() for name, state in pairs]
    return lines


def _flat(state: object) -> str:
    return ", ".join(f"{name} {what}" for name, what in state.items()) if isinstance(state, dict) else str(state)
