"""Count the processors that this process may use: the machine's, those it is bound to, or a container's quota."""

import os
from math import ceil
from pathlib import Path


def cores(root: Path = Path("/")) -> int:
    """Return the number of processors that this process may use, at least 1; fractions of a quota are rounded up.

    Args:
        root: The folder of `proc` and `sys`, where Linux reports quotas.
    """
    bound = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min([bound, *map(ceil, _quotas(root))]))


def _quotas(root: Path) -> list[float]:
    """Return the quotas of processor time, in processors, of this process's control group and its parents."""
    found = []
    lines = [line.split(":", 2) for line in _text(root / "proc/self/cgroup").splitlines()]
    for _, kinds, group in [line for line in lines if len(line) == 3]:
        if not kinds:  # cgroup version 2
            folder, spelled = root / "sys/fs/cgroup", ["cpu.max"]
        elif "cpu" in kinds.split(","):
            folder, spelled = root / "sys/fs/cgroup" / kinds, ["cpu.cfs_quota_us", "cpu.cfs_period_us"]
        else:
            continue
        place = folder / group.lstrip("/")  # in a container it may be invisible, and only the mount's root readable
        for at in [place, *(above for above in place.parents if above.is_relative_to(folder))]:
            message = " ".join(_text(at / name) for name in spelled).split()
            if len(message) == 2 and message[0].isdigit() and int(message[1]):
                found.append(int(message[0]) / int(message[1]))
    return found


def _text(file: Path) -> str:
    try:
        return file.read_text()
    except OSError:
        return ""
