"""Prevent DVC, in this process, from recording a cell whose settings or code were edited since it was made.

A cell notices edits itself until its output is in place; DVC reads what it records after that. It would record new
settings, or new code, for an output of the old ones, which would count as up to date forever.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType

from dvc.stage import Stage

from atlas.study.errors import UserError
from atlas.study.params import meaning
from atlas.study.unedited import check_files, meant
from flows.workers import Made


@contextmanager
def unedited(study: Path, made: Mapping[str, Made] = MappingProxyType({})) -> Iterator[None]:
    """Refuse, inside the `with` block, to record a cell if the content of params.yaml is not the one at its start.

    Args:
        study: The folder of params.yaml.
        made: Cells that are in place, by name: the files that were read for them must not have changed either.

    Raises:
        UserError: something was edited; dvc.lock and DVC's filed runs are unchanged.
    """
    file = study / "params.yaml"
    before, as_dvc = meant(file, meaning), Stage.save_deps

    def save_deps(self: Stage, *given: object, **how: object) -> None:
        as_dvc(self, *given, **how)
        if self.name in made:
            check_files(made[self.name].read)
        if meant(file, meaning) != before:  # checked after DVC has read it
            raise UserError(f"{file} was edited while {self.addressing} was recorded; no row is lost: run again")

    Stage.save_deps = save_deps
    try:
        yield
    finally:
        Stage.save_deps = as_dvc
