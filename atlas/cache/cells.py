"""Open the row store of a cell."""

from pathlib import Path

from atlas.cache.recorded import renamed_cells
from atlas.cache.rows import RowStore
from atlas.study.params import path


def of_cell(study: Path, params: dict, verb: str, kind: str, *names: str, wait: bool = True) -> RowStore:
    """Open the row store of a cell (`attribute@resnet_vanilla-cam`) whose output is of a kind (maps).

    Missing rows are also looked for in recorded cells that may be this cell under an earlier name of its method, family
    or classifier.
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
        return [other for other in renamed_cells(study, verb, named) if other != cell]

    return RowStore(study, cell, path(study, kind, *names), params["stores"]["shard_rows"], wait=wait, others=others)
