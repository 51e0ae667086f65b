"""Run work in a session of its own, which ends as a whole: on Ctrl-C, a signal, or the end of its parent or leader.

Prefect's server, the warm workers and the processes of stages all belong to that session's one process group, which the
terminal's Ctrl-C does not reach: otherwise the server would end first, and the run would try for minutes to contact it.
Everything may be killed at any instant: results are safe at once, and put in place by rename.
"""

import os
import signal
import sys
from collections.abc import Callable
from contextlib import suppress
from threading import Thread
from typing import NoReturn

from flows.messages import FAILED, print_line

ENDING = {signal.SIGINT: "interrupted", signal.SIGTERM: "terminated", signal.SIGHUP: "the terminal is gone"}
KEPT = "what was made is kept, and the next run goes on from there"


def supervised(work: Callable[[], object]) -> NoReturn:
    """Run work in a child process and exit like it; when either ends, nothing that was started is left.

    Exits with 130 on Ctrl-C, 143 if it is terminated, 129 if its terminal is gone; signals that the caller ignores stay
    ignored.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    # Signals ignored at the start (`nohup`, a shell's background) stay ignored; blocked, they would be delivered.
    awaited = {*(one for one in ENDING if signal.getsignal(one) != signal.SIG_IGN), signal.SIGCHLD}
    signal.signal(signal.SIGCHLD, lambda *_: None)  # an ignored SIGCHLD could not be waited for
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
    """Wait until the parent, which alone holds the other end of a pipe, is gone, and end the whole group."""
    os.read(parents, 1)
    os.killpg(0, signal.SIGKILL)


def _attend(child: int, awaited: set[signal.Signals]) -> int:
    while True:
        came = signal.sigwait(awaited)
        if came == signal.SIGCHLD:
            ended, status = os.waitpid(child, os.WNOHANG)
            if not ended:
                continue
            _kill(child)  # its remaining processes
            code = os.waitstatus_to_exitcode(status)
            if code < 0:
                print_line(f"error: the run was killed by {killer(-code)}; {KEPT}")
            return code if code >= 0 else FAILED
        _kill(child)
        os.waitpid(child, 0)
        print_line(f"{ENDING[signal.Signals(came)]}; {KEPT}")
        return 128 + came


def killer(number: int) -> str:
    """Return the name of a signal, and what may have sent it."""
    name = signal.Signals(number).name
    return f"{name} (out of memory?)" if number == signal.SIGKILL else name


def _kill(group: int) -> None:
    with suppress(ProcessLookupError, PermissionError):  # macOS raises these for zombies
        os.killpg(group, signal.SIGKILL)
