"""Write which versions each stage runs with: `python -m stages.versions` writes `data/versions/<stage>.json`.

A stage depends on its own file and not on the lock of the environment: a package that none of its code imports, or
requires in turn, makes nothing stale.
"""

import json
from importlib.metadata import PackageNotFoundError
from pathlib import Path

from stages.cache import modules, packages
from stages.cache.locks import beside
from stages.study.params import command, load

OUTPUT = Path("data", "versions")
# The folders in which a stage finds functions by the names in params.yaml, beside what it imports.
NAMED = {
    "collect": ["datasets"],
    "prepare": ["networks"],
    "predict": ["networks"],
    "select": [],
    "tile": [],
    "attribute": ["networks", "methods"],
    "certify": ["networks", "methods"],
    "score": ["networks", "methods", "metrics"],
    "correlate": [],
    "cost": ["networks", "methods", "metrics"],
    "aggregate": [],
    "report": [],
}


def main(study: Path) -> None:
    """Write the versions of every stage, and put them in place."""
    from stages.cache.stores import replace  # with it comes Zarr: who only asks what changed does not wait for that

    load(study)
    partial = beside(study / OUTPUT)
    partial.mkdir(parents=True)
    for stage, known in installed().items():
        (partial / f"{stage}.json").write_text(json.dumps(known, indent=1) + "\n")
    replace(partial, study / OUTPUT)


def installed() -> dict[str, dict[str, str]]:
    """Give by stage the installed versions of the packages that its code imports, and of all that they require."""
    found = {}
    for stage, folders in NAMED.items():
        named = {
            f"stages.{folder}.{file.stem}" for folder in folders for file in (modules.HOUSE / folder).glob("[!.]*.py")
        }
        code = modules.with_imports({f"stages.{stage}", *named})
        found[stage] = packages.versions(modules.packages_of(code))
    return found


def changed(study: Path) -> dict[str, tuple[str, str]]:
    """Give the packages of which another version is installed than that which results were made with: (old, new).

    For DVC a package that was installed past the lock of the environment has not changed.
    """
    known: dict[str, str] = {}
    for file in sorted((study / OUTPUT).glob("*.json")):
        known |= json.loads(file.read_text())
    now = {name: _now(name) for name in known}
    return {name: (known[name], now[name]) for name in known if now[name] != known[name]}


def _now(distribution: str) -> str:
    try:
        return packages.version(distribution)
    except PackageNotFoundError:
        return packages.ABSENT


if __name__ == "__main__":
    command(main)
