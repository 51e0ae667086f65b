"""Let DVC run one cell and record it; return why it failed, if it did."""

import os
import re
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Thread

from atlas.cache.remote import pulling
from atlas.study.command import RECORDED
from atlas.study.errors import UserError
from flows.supervise import killer
from flows.workers import Killed

KEPT = 4096  # bytes kept of the end of a command's stderr
PATIENCE = 5  # seconds to wait for the rest of it from processes that outlive the command
SHELL = 128  # a shell's exit status, if its command was killed by a signal, is this and the signal's number


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
        with unedited(Path()), whole_lock(), speedups(), repository(Path(), wait=True) as repo, kept_stderr(last):
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
