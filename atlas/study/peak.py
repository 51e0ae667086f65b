"""Measure the peak memory of a process."""

import contextlib
from pathlib import Path


def peak_memory() -> int | None:
    """Return this process's peak memory in MB, since its start or the last `forget_peak`; None except on Linux."""
    try:
        status = Path("/proc/self/status").read_text()
    except OSError:
        return None
    return next((int(line.split()[1]) // 1024 for line in status.splitlines() if line.startswith("VmHWM")), None)


def forget_peak() -> None:
    """Reset the peak memory of this process, where the system allows it."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")
