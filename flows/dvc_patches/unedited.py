"""Prevent DVC, in this process, from recording a cell whose settings were edited since its recording began.

A cell's command itself notices edits before its output is in place; DVC reads the settings that it records after that.
It would record new settings for an output of the old ones, which would count as up to date forever.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from dvc.stage import Stage

from atlas.study.errors import UserError
from atlas.study.params import meaning
from atlas.study.unedited import meant


@contextmanager
def unedited(study: Path) -> Iterator[None]:
    """Refuse, inside the `with` block, to record a cell if the content of params.yaml is not the one at its start.

    Raises:
        UserError: it is not; dvc.lock and DVC's filed runs are unchanged.
    """
    file = study / "params.yaml"
    before, as_dvc = meant(file, meaning), Stage.save_deps

    def save_deps(self: Stage, *given: object, **how: object) -> None:
        as_dvc(self, *given, **how)
        if meant(file, meaning) != before:  # checked after DVC has read it
            raise UserError(f"{file} was edited while {self.addressing} was recorded; no row is lost: run again")

    Stage.save_deps = save_deps
    try:
        yield
    finally:
        Stage.save_deps = as_dvc
