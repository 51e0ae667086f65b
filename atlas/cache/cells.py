"""Open the row store of a cell."""

from typing import TYPE_CHECKING

from atlas.cache.recorded import renamed_cells
from atlas.cache.rows import RowStore

if TYPE_CHECKING:
    from atlas.study.study import Study


def of_cell(study: "Study", verb: str, kind: str, *names: str, wait: bool = True) -> RowStore:
    """Open the row store of a cell (`attribute@resnet_vanilla-cam`) whose output is of a kind (maps).

    Missing rows are also looked for in recorded cells that may be this cell under an earlier name of its method, family
    or classifier.
    """
    cell = f"{verb}@{'-'.join(names)}"
    named: dict[str, dict] = {f"{verb}@{name}": {} for name in study.params["classifiers"]}
    if len(names) > 1:
        named = {
            f"{of_classifier}-{family}": {f"methods.{family}": entries}
            for of_classifier in named
            for family, entries in study.params["methods"].items()
        }

    def others() -> list[str]:
        return [other for other in renamed_cells(study.folder, verb, named) if other != cell]

    return RowStore(
        study.folder, cell, study.path(kind, *names), study.params["stores"]["shard_rows"], wait=wait, others=others
    )
