"""Do work in a session of its own, which ends whole: with Ctrl-C, with a signal, with its parent, with its leader.

Prefect's server, the warm workers and the processes of stages all stand in that session's one process group, which the
terminal's Ctrl-C does not reach: otherwise the server would end first, and the run try for minutes to tell it so.
Everything may be killed at any instant: what is made is safe at once, and put in place by rename.
"""

import os
import signal
import sys
from collections.abc import Callable
from contextlib import suppress
from threading import Thread
from typing import NoReturn

from flows.told import FAILED, tell

ENDING = {signal.SIGINT: "interrupted", signal.SIGTERM: "terminated", signal.SIGHUP: "the terminal is gone"}
KEPT = "what was made is kept, and the next run goes on from there"


def supervised(work: Callable[[], object]) -> NoReturn:
    """Do work in a child process and exit as it does; when either ends, nothing that was started is left.

    Exits with 130 on Ctrl-C, 143 where it is terminated, 129 where its terminal is gone; none of those that the caller
    ignores ends it.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    # What is ignored at the start, as `nohup` and a shell's background have it, stays ignored: blocked, it would come.
    awaited = {*(one for one in ENDING if signal.getsignal(one) != signal.SIG_IGN), signal.SIGCHLD}
    signal.signal(signal.SIGCHLD, lambda *_: None)  # what is ignored would not be waited for
    before = signal.pthread_sigmask(signal.SIG_BLOCK, awaited)
    parents, held = os.pipe()
    child = os.fork()
    if child == 0:
        os.setsid()
        os.close(held)
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        Thread(target=_end_with, args=(parents,), daemon=True).start()
        work()
        sys.exit(0)
    os.close(parents)
    sys.exit(_attend(child, awaited))


def _end_with(parents: int) -> None:
    """Wait until the other end of a pipe is gone, which only the parent holds, and end the whole group."""
    os.read(parents, 1)
    os.killpg(0, signal.SIGKILL)


def _attend(child: int, awaited: set[signal.Signals]) -> int:
    while True:
        came = signal.sigwait(awaited)
        if came == signal.SIGCHLD:
            ended, status = os.waitpid(child, os.WNOHANG)
            if not ended:
                continue
            _kill(child)  # what it has left
            code = os.waitstatus_to_exitcode(status)
            if code < 0:
                tell(f"error: the run was killed by {killer(-code)}; {KEPT}")
            return code if code >= 0 else FAILED
        _kill(child)
        os.waitpid(child, 0)
        tell(f"{ENDING[came]}; {KEPT}")
        return 128 + came


def killer(number: int) -> str:
    """Name a signal, and what may have sent it."""
    name = signal.Signals(number).name
    return f"{name} (out of memory?)" if number == signal.SIGKILL else name


def _kill(group: int) -> None:
    with suppress(ProcessLookupError, PermissionError):  # macOS: of those that have ended and are not waited for
        os.killpg(group, signal.SIGKILL)
