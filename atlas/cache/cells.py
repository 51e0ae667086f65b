"""Open the rows of a cell of a study."""

from pathlib import Path

from atlas.cache.recorded import moved
from atlas.cache.rows import Rows
from atlas.study.params import path


def of_cell(study: Path, params: dict, verb: str, kind: str, *names: str, wait: bool = True) -> Rows:
    """Open the rows of a cell, whose output is of a kind: `attribute@resnet_vanilla-cam` makes maps.

    Rows that are missing are looked for, too, where a method, a family or a classifier may have been before.
    """
    cell = f"{verb}@{'-'.join(names)}"
    named = {f"{verb}@{name}": {} for name in params["classifiers"]}
    if len(names) > 1:
        named = {
            f"{of_classifier}-{family}": {f"methods.{family}": entries}
            for of_classifier in named
            for family, entries in params["methods"].items()
        }

    def others() -> list[str]:
        return [other for other in moved(study, verb, named) if other != cell]

    return Rows(study, cell, path(study, kind, *names), params["stores"]["shard_rows"], wait=wait, others=others)
