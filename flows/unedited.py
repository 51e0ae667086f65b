"""Let DVC, in this process, record no cell whose settings were edited since its recording began.

A cell's command notices itself what is edited before its output is in place; DVC reads the settings that it records
after that. It would record new ones for an output of the old, which would count as up to date for ever.
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
    """Refuse, as long as this lasts, to record a cell where params.yaml says other than it did at the start.

    Raises:
        UserError: it does; dvc.lock and the runs that DVC files are as before.
    """
    file = study / "params.yaml"
    before, as_dvc = meant(file, meaning), Stage.save_deps

    def save_deps(self: Stage, *given: object, **how: object) -> None:
        as_dvc(self, *given, **how)
        if meant(file, meaning) != before:  # only now: DVC has read it in between
            raise UserError(f"{file} was edited while {self.addressing} was recorded; no row is lost: run again")

    Stage.save_deps = save_deps
    try:
        yield
    finally:
        Stage.save_deps = as_dvc
