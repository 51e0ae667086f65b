"""Record cells in dvc.lock: those that are made already, or one that DVC runs."""

import os
import re
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Lock, Thread
from typing import TYPE_CHECKING

from atlas.cache.remote import pulling
from atlas.study.command import RECORDED
from atlas.study.errors import UserError
from flows.messages import Failure, one_line
from flows.supervise import killer
from flows.workers import Killed, Made, Workers, files_of

if TYPE_CHECKING:
    from dvc.stage import PipelineStage

KEPT = 4096  # bytes kept of the end of a command's stderr
PATIENCE = 5  # seconds to wait for the rest of it from processes that outlive the command
SHELL = 128  # a shell's exit status, if its command was killed by a signal, is this and the signal's number


def commit(study: str, made: dict[str, Made]) -> dict[str, Exception]:
    """Record cells whose outputs are in place, as `dvc commit` does; return why any of them failed.

    For all of them, dvc.lock is read and written once, params.yaml is read once, and what they depend on is digested
    once. A cell is not recorded if dvc.yaml runs anything else for it, or if its output is not the one that was made.

    Args:
        study: The folder of params.yaml.
        made: The cells by name.

    Raises:
        UserError: nothing can be recorded; the message is DVC's reason.
    """
    from dvc.dvcfile import load_file
    from dvc.repo import lock_repo

    from flows.dvc_patches.unedited import unedited
    from flows.dvc_patches.whole_lock import whole_lock
    from flows.dvc_speedups import looking_once, speedups
    from flows.repository import dvc_errors, repository

    os.chdir(study)
    failed: dict[str, Exception] = {}
    done: list[PipelineStage] = []
    with (
        unedited(Path(), made),
        whole_lock(),
        speedups(Path()),
        repository(Path(), wait=True) as repo,
        lock_repo(repo),
        looking_once(repo),
    ):
        stages = load_file(repo, str(Path("dvc.yaml").absolute())).stages  # each is made of dvc.yaml when looked up
        for cell in made:
            try:
                with dvc_errors(Path()):
                    stage = checked(cell, stages.get(cell), made[cell])
                    stage.save()
                    stage.commit()
                done.append(stage)
            except UserError as problem:
                failed[cell] = problem
            except Exception as problem:  # the others are recorded; not every exception can be sent to another process
                failed[cell] = Failure(one_line(problem))
        if done:
            done[0].dvcfile.dump_stages(done, update_pipeline=False)
    return failed


def checked(cell: str, stage: "PipelineStage | None", made: Made) -> "PipelineStage":
    """Return a cell's stage after a check that what dvc.yaml says of it, and its output, are as when it was made.

    Raises:
        UserError: they are not.
    """
    if stage is None or stage.cmd != made.command or stage.frozen or Path(stage.wdir).resolve() != Path.cwd():
        raise UserError(f"dvc.yaml or params.yaml was edited while {cell} was made; no row is lost: run again")
    if files_of(made.output) != made.files:
        raise UserError(f"{made.output} was changed after it was made; no row is lost: run again")
    return stage


class Recorder:
    """Record cells as they are made: all that wait at a time together, in one process.

    A cell that was being recorded when the process was killed is recorded alone the next time.

    Args:
        study: The folder of params.yaml.
        process: The process.
    """

    def __init__(self, study: Path, process: Workers):
        self._study, self._process = study, process
        self._turn = Lock()
        self._waiting: dict[str, Made] = {}
        self._failed: dict[str, Exception | None] = {}
        self._alone: set[str] = set()

    def record(self, cell: str, made: Made) -> float:
        """Record a cell; return the seconds it waited and took.

        Raises:
            Exception: it could not be recorded. After `Killed` (the process was), the cell may be recorded or not.
        """
        start = time.monotonic()
        self._waiting[cell] = made
        with self._turn:
            if cell not in self._failed:  # otherwise another thread has recorded it
                alone = cell in self._alone
                together = {name: one for name, one in self._waiting.items() if name not in self._alone}
                waiting = {cell: made} if alone else together
                try:
                    failed = self._process.run(commit, str(self._study), waiting)
                except Exception as problem:
                    failed = dict.fromkeys(waiting, problem)
                    self._alone |= set(waiting) if isinstance(problem, Killed) else set()
                for name in waiting:
                    del self._waiting[name]
                    self._failed[name] = failed.get(name)
            reason = self._failed.pop(cell)
            if reason is not None:
                raise reason
        return time.monotonic() - start


def record(study: str, cell: str) -> float:
    """Let DVC run one cell and record it in dvc.lock; return the seconds it took.

    Raises:
        UserError: the cell failed; the message is the last line of its command's output, or DVC's reason, or that
            params.yaml was edited meanwhile.
        Killed: the cell's command was killed.
    """
    from dvc.stage.exceptions import StageCmdFailedError

    from flows.dvc_patches.unedited import unedited
    from flows.dvc_patches.whole_lock import whole_lock
    from flows.dvc_speedups import speedups
    from flows.repository import causes, repository

    start = time.monotonic()
    os.chdir(study)
    # DVC runs commands by the user's shell, which need not be one.
    os.environ |= {RECORDED: "1", "SHELL": "/bin/sh"}
    last = bytearray()
    try:
        with unedited(Path()), whole_lock(), speedups(Path()), repository(Path(), wait=True) as repo, kept_stderr(last):
            # DVC does not notice a package that was installed past the lock of the environment.
            repo.stage_cache.pull = lambda remote: []  # not needed: known rows are reused by key
            repo.reproduce(cell, single_item=True, force=cell == "versions", pull=pulling())
    except UserError as problem:
        failed = next((one for one in causes(problem) if isinstance(one, StageCmdFailedError)), None)
        if failed is None:
            raise
        raise _failure(str(failed), last.decode(errors="replace")) from None
    return time.monotonic() - start


@contextmanager
def kept_stderr(last: bytearray) -> Iterator[None]:
    """Append what this process and its children write to stderr, inside the `with` block, also to a buffer.

    It is passed on as it is written.

    Args:
        last: The buffer; of much output it holds the last `KEPT` bytes.
    """
    reading, writing = os.pipe()
    stderr = os.dup(2)
    os.dup2(writing, 2)
    os.close(writing)
    thread = Thread(target=_pass_on, args=(reading, os.dup(stderr), last), daemon=True)
    thread.start()
    try:
        yield
    finally:
        os.dup2(stderr, 2)
        os.close(stderr)
        thread.join(PATIENCE)


def _pass_on(reading: int, stderr: int, last: bytearray) -> None:
    while written := os.read(reading, 65536):
        last += written
        del last[:-KEPT]
        with suppress(OSError):  # nobody reads it any more; the command must not wait
            os.write(stderr, written)
    os.close(reading)
    os.close(stderr)


def _failure(reason: str, stderr: str) -> Exception:
    """Return the exception for a cell's failed command, with the last line that it wrote to stderr.

    Args:
        reason: DVC's, which ends with the exit status.
        stderr: The end of the command's stderr.
    """
    found = re.search(r"exited with (-?\d+)$", reason)
    status = int(found[1]) if found else 0
    number = -status if status < 0 else status - SHELL
    if number in signal.valid_signals():
        return Killed(f"its command was killed by {killer(number)}")
    lines = [line.strip() for line in stderr.splitlines() if line.strip()]
    message = lines[-1].removeprefix("error: ") if lines else "its command said nothing"
    return UserError(message + (f" (exit status {status})" if found else ""))
