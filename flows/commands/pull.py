"""Fetch outputs from a remote: like `dvc pull`, but nothing outside the outputs is written."""

from contextlib import chdir
from pathlib import Path

from atlas.study.errors import UserError
from flows.repository import repository


def pull(study: Path, targets: list[str]) -> dict[str, int]:
    """Fetch outputs recorded in dvc.lock and lay them out; return how many files were fetched, added, changed, deleted.

    Args:
        study: The folder of params.yaml.
        targets: Stages, cells or outputs; all if empty.

    Raises:
        UserError: a listing names a path outside its output, a target does not exist, or no remote is set.
        Failure: an output is neither in the cache nor in the remote; all others are laid out.
    """
    from dvc.exceptions import CheckoutError, NoOutputOrStageError
    from dvc.stage.exceptions import StageFileDoesNotExistError, StageNotFound

    with repository(study, wait=True) as repo, chdir(study):  # targets are relative to the study
        try:
            return repo.pull(targets or None)["stats"]
        except (NoOutputOrStageError, StageNotFound, StageFileDoesNotExistError) as error:
            raise UserError(f"{error.msg}; expected outputs, cells or stages: `dvc stage list` names them") from None
        except CheckoutError:
            if repo.config["core"].get("remote") or any(out.remote for out in repo.index.outs):
                raise
            raise UserError(
                "not all outputs are here, and no remote is set to bring them from; "
                "`dvc remote add --default NAME URL` sets one"
            ) from None
