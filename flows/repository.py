"""Open a study's DVC repository, guarded; DVC's failures become one-line messages that name the file."""

import json
import logging
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from atlas.study.errors import UserError
from flows.dvc_patches.one_study import only
from flows.messages import Failure, one_line

if TYPE_CHECKING:
    from dvc.repo import Repo

CONFLICT = re.compile(r"(?m)^(<{7}|={7}|>{7})( |$)")
MEND = {
    "dvc.lock": "`git checkout {}` brings back the one that was committed; without one, delete it",
    "dvc.yaml": "`git checkout {}` brings back the one that was committed",
}


@contextmanager
def repository(study: Path, *, wait: bool = False) -> Iterator["Repo"]:
    """Open the repository that contains a study.

    Args:
        study: The folder of params.yaml and dvc.yaml.
        wait: Whether to wait for another DVC process that holds its lock.

    Raises:
        UserError: there is none, or a file of it cannot be read; the message names it.
        Failure: another DVC process is working in it, or DVC failed otherwise.
    """
    from dvc.logger import set_loggers_level
    from dvc.repo import Repo

    from flows.dvc_patches.guard import REFUSED, guard

    guard()
    REFUSED.clear()
    check(study)
    with dvc_errors(study), set_loggers_level(logging.CRITICAL), Repo(str(study), _wait_for_lock=wait) as repo:
        _mend(Path(repo.tmp_dir))
        try:
            with only(study, repo):
                yield repo
        finally:
            if REFUSED:
                raise REFUSED[0]


def check(study: Path) -> None:
    """Check that a study's DVC files exist and are text without a merge conflict.

    Raises:
        UserError: they are not.
    """
    if not (study / "dvc.yaml").is_file():
        raise UserError(
            f"{study / 'dvc.yaml'}: there is no such file; a study is a folder with params.yaml and dvc.yaml"
        )
    for name in ("params.yaml", "dvc.yaml", "dvc.lock"):
        file = study / name
        if not file.exists():
            continue
        hint = f"; {MEND[name].format(file)}" if name in MEND else ""
        try:
            text = file.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise UserError(f"{file}: is not readable as text ({one_line(error)}){hint}") from None
        if found := CONFLICT.search(text):
            line = text.count("\n", 0, found.start()) + 1
            raise UserError(f"{file}: line {line} marks a merge conflict ({found[1]}); resolve it{hint}")
        if not text.strip() or "\0" in text:
            raise UserError(f"{file}: {'holds bytes that are not text' if text.strip() else 'is empty'}{hint}")


@contextmanager
def dvc_errors(study: Path) -> Iterator[None]:
    """Convert what DVC raises to a UserError or a Failure of one line.

    Raises:
        UserError: the user has something to fix.
        Failure: another DVC process is working in it, or DVC failed otherwise.
    """
    from dvc import exceptions
    from dvc.config import ConfigError
    from dvc.exceptions import CheckoutError, DvcException, NotDvcRepoError
    from dvc.lock import LockError
    from dvc.parsing import ResolveError
    from dvc.scm import SCMError
    from dvc.utils.serialize import ParseError
    from dvc.utils.strictyaml import YAMLSyntaxError, YAMLValidationError
    from dvc_data.index import DataIndexError

    of_stages = (
        exceptions.ArgumentDuplicationError,
        exceptions.CircularDependencyError,
        exceptions.CyclicGraphError,
        exceptions.OutputDuplicationError,
        exceptions.OverlappingOutputPathsError,
        exceptions.StagePathAsOutputError,
    )
    try:
        yield
    except CheckoutError as error:
        named = ", ".join(error.target_infos)
        raise Failure(f"{named}: not whole in DVC's cache or the remote; `dvc push` from where it was made") from None
    except (DvcException, DataIndexError) as error:
        chain = causes(error)
        if known := next((one for one in chain if isinstance(one, UserError)), None):
            raise known from None
        if any(isinstance(one, LockError) for one in chain):
            said = " ".join(str(chain[-1]).split()).partition(". ")[0].partition(", it is being blocked")[0]
            raise Failure(
                f"{study}: another process of DVC is at work on it ({said}); run again when it is done"
            ) from None
        if isinstance(error, NotDvcRepoError):
            raise UserError(
                f"{study.resolve()}: no repository of DVC (no folder .dvc here or above); `dvc init` makes one"
            ) from None
        if isinstance(error, SCMError):
            raise UserError(f"{study.resolve()}: no repository of Git (no folder .git); `git init` makes one") from None
        if isinstance(error, YAMLSyntaxError | YAMLValidationError | ParseError):
            raise UserError(_of_file(error, chain)) from None
        said = " ".join(str(error).split())
        if isinstance(error, ConfigError):
            raise UserError(f".dvc/config, .dvc/config.local, or your own of all of DVC: {said}") from None
        if isinstance(error, ResolveError):
            raise UserError(said) from None
        if isinstance(error, of_stages):
            raise UserError(f"dvc.yaml: {said}") from None
        lines = dict.fromkeys(" ".join(str(one).split()) for one in chain)
        raise Failure(f"DVC: {'; '.join(lines)}") from error


def _mend(folder: Path) -> None:
    """Delete DVC's record of readers and writers, if a process was killed while writing it."""
    from dvc.lock import make_lock
    from dvc.rwlock import RWLOCK_FILE, RWLOCK_LOCK

    if not _torn(folder / RWLOCK_FILE):
        return
    with make_lock(str(folder / RWLOCK_LOCK), tmp_dir=str(folder), wait=True):
        if _torn(folder / RWLOCK_FILE):
            (folder / RWLOCK_FILE).unlink()


def _torn(file: Path) -> bool:
    try:
        json.loads(file.read_text())
    except FileNotFoundError:
        return False
    except ValueError:
        return True
    return False


def causes(error: BaseException | None) -> list[BaseException]:
    """Return an error and its causes, the original one last."""
    found: list[BaseException] = []
    while error is not None and error not in found:
        found.append(error)
        error = error.__cause__ or error.__context__
    return found


def _of_file(error: BaseException, chain: list[BaseException]) -> str:
    """Return what is wrong with a YAML file: where, what, and how to fix it."""
    path = os.path.normpath(getattr(error, "path", "dvc.yaml"))
    last = chain[-1]
    mark = getattr(last, "problem_mark", None)
    said = " ".join(str(getattr(last, "problem", None) or last).split()).partition(" with value ")[0]
    where = f"line {mark.line + 1}: " if mark is not None else ""
    hint = MEND.get(Path(path).name, "").format(path)
    return f"{path}: {where}{said}" + (f"; {hint}" if hint else "")
