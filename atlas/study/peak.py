"""Measure the largest memory that a process has had."""

import contextlib
from pathlib import Path


def peak_memory() -> int | None:
    """Return the largest memory that this process has had, in MB, since it began or `forget_peak`; None off Linux."""
    try:
        status = Path("/proc/self/status").read_text()
    except OSError:
        return None
    return next((int(line.split()[1]) // 1024 for line in status.splitlines() if line.startswith("VmHWM")), None)


def forget_peak() -> None:
    """Let the peak of this process's memory begin anew, where the system can."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")
