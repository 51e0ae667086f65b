"""Write the versions that each stage runs with: `python -m stages.versions` writes `data/versions/<stage>.json`.

It runs whenever code changes, and first checks that dvc.yaml names, for each stage, all code that the stage may run: an
edit of any other file would go unseen.

A stage depends on its own file and not on the lock of the environment: a package that its code neither imports nor
requires indirectly makes nothing stale. Of datasets and networks, only the families that params.yaml names count; for
networks made by a file or a package outside this project, the file's digest and the package's version count.
"""

import json
from hashlib import blake2b
from importlib.metadata import PackageNotFoundError
from pathlib import Path

from yaml import safe_load

from atlas.cache.fingerprint import modules, packages
from atlas.cache.fingerprint.called import content
from atlas.cache.locks import temporary_path
from atlas.study import unedited
from atlas.study.command import command
from atlas.study.errors import UserError
from atlas.study.schema.fitting import of_weights
from atlas.study.study import Study

OUTPUT = Path("data", "versions")
SHORT, DIGEST = 64, 16  # values up to this many characters are written as they are; bytes of the digest of longer ones
# Packages outside the project's dependencies, and the network families that need them.
EXTRA = {"timm": "timm", "transformers": "huggingface"}
# The folders in which a stage finds functions by their names in params.yaml, besides what it imports. No import states
# them; they are the folders among the stage's dependencies in dvc.yaml (a test compares the two).
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


def main(folder: Path) -> None:
    """Write the versions of every stage, and put them in place."""
    from atlas.cache.stores import replace  # imports Zarr, which `changed` does not need

    study = Study(folder)
    check_named(study)
    partial = temporary_path(study.folder / OUTPUT)
    partial.mkdir(parents=True)
    for stage, known in installed(study).items():
        (partial / f"{stage}.json").write_text(json.dumps(known, indent=1) + "\n")
    replace(partial, study.folder / OUTPUT)


def check_named(study: Study) -> None:
    """Check that dvc.yaml names all code that each stage may run, so that DVC sees every edit of it.

    Raises:
        UserError: it does not name a module that a stage imports.
    """
    file = study.folder / "dvc.yaml"
    pipeline = safe_load(unedited.read(file))["stages"] if file.exists() else {}
    for stage, code in _code(study).items():
        if stage in pipeline:
            about = pipeline[stage]
            named = [(study.folder / place).resolve() for place in about.get("do", about)["deps"] if "$" not in place]
            for module in sorted(code):
                place = modules.file(module).resolve()
                if not any(one in (place, *place.parents) for one in named):
                    shown = place.relative_to(modules.HOUSE.parent)
                    raise UserError(
                        f"stages/{stage}.py runs {shown}, which {file} does not name among the stage's deps, so that "
                        "edits of it would go unseen: move it to a folder that is named there, or name it"
                    )


def installed(study: Study) -> dict[str, dict[str, str]]:
    """Return by stage the installed versions of the packages that its code imports, and of all that they require.

    Args:
        study: The study.
    """
    families, outside, read = _families(study), _outside(study), _read_by_datasets(study)
    found = {}
    for stage, code in _code(study).items():
        asked = modules.packages_of(code)
        asked -= {package for package, family in EXTRA.items() if family not in families["networks"]}
        found[stage] = packages.versions(asked) | (outside if "networks" in NAMED[stage] else {})
        found[stage] |= read if "datasets" in NAMED[stage] else {}
    return found


def changed(study: Study) -> dict[str, tuple[str, str]]:
    """Return the packages and files that differ from those that results were made with: name -> (old, new).

    DVC does not notice a package that was installed past the lock of the environment, a changed file that makes a
    network, or a package needed only by a family that params.yaml did not name before.
    """
    known: dict[str, str] = {}
    for file in sorted((study.folder / OUTPUT).glob("*.json")):
        known |= json.loads(file.read_text())
    named = {f"atlas.{folder}.{family}" for folder, families in _families(study).items() for family in families}
    now = packages.versions(modules.packages_of(named)) | {name: _now(name) for name in known}
    now |= _outside(study) | _read_by_datasets(study)
    before = {name: known.get(name, packages.ABSENT) for name in now}
    return {name: (before[name], now[name]) for name in now if known and now[name] != before[name]}


def _code(study: Study) -> dict[str, set[str]]:
    """Return by stage the modules that it may run: what it imports, and what it finds by the names in params.yaml."""
    families = _families(study)
    return {
        stage: modules.with_imports(
            {f"stages.{stage}"}
            | {
                f"atlas.{folder}.{file.stem}"
                for folder in folders
                for file in (modules.HOUSE / folder).glob("[!.]*.py")
                if folder not in families or file.stem in families[folder]
            }
        )
        for stage, folders in NAMED.items()
    }


def _families(study: Study) -> dict[str, set[str]]:
    """Return by folder the families that params.yaml names, as others may need packages that are not installed."""
    return {
        "datasets": {study.dataset(name).family for name in study.params["datasets"]},
        "networks": {study.network(name).family for name in study.params["classifiers"]},
    }


def _read_by_datasets(study: Study) -> dict[str, str]:
    """Return the versions of packages from which datasets read class names or a `fit`, if entries ask for it."""
    bound = [study.dataset(name) for name in study.params["datasets"]]
    read = {"torchvision" for one in bound if one.settings.get("classes") == "imagenet"}
    read |= {one.options["fit"]["family"] for one in bound if of_weights(one.options["fit"])}
    return {name: _now(name) for name in sorted(read)}


def _outside(study: Study) -> dict[str, str]:
    """Return what networks depend on outside this project: digests of files, versions of packages, by name."""
    entries = [study.network(name) for name in study.params["classifiers"]]
    found = {name: text for entry in entries for name, text in content(entry.settings, study.folder).items()}
    return {
        name: blake2b(text.encode(), digest_size=DIGEST).hexdigest() if len(text) > SHORT else text
        for name, text in found.items()
    }


def _now(distribution: str) -> str:
    try:
        return packages.version(distribution)
    except PackageNotFoundError:
        return packages.ABSENT


if __name__ == "__main__":
    command(main)
