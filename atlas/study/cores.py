"""Count the processors that this process may use: all of the machine, those it is bound to, or a container's quota."""

import os
from math import ceil
from pathlib import Path


def cores(root: Path = Path("/")) -> int:
    """Count the processors that this process may use, at least 1; of a quota's part of one, the whole.

    Args:
        root: The folder of `proc` and `sys`, where Linux tells quotas.
    """
    bound = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min([bound, *map(ceil, _quotas(root))]))


def _quotas(root: Path) -> list[float]:
    """Read the quotas of processor time, in processors, of this process' control group and of those above it."""
    found = []
    lines = [line.split(":", 2) for line in _text(root / "proc/self/cgroup").splitlines()]
    for _, kinds, group in [line for line in lines if len(line) == 3]:
        if not kinds:  # version 2
            folder, spelled = root / "sys/fs/cgroup", ["cpu.max"]
        elif "cpu" in kinds.split(","):
            folder, spelled = root / "sys/fs/cgroup" / kinds, ["cpu.cfs_quota_us", "cpu.cfs_period_us"]
        else:
            continue
        place = folder / group.lstrip("/")  # in a container it may not be seen, only what stands at the mount's root
        for at in [place, *(above for above in place.parents if above.is_relative_to(folder))]:
            told = " ".join(_text(at / name) for name in spelled).split()
            if len(told) == 2 and told[0].isdigit() and int(told[1]):
                found.append(int(told[0]) / int(told[1]))
    return found


def _text(file: Path) -> str:
    try:
        return file.read_text()
    except OSError:
        return ""
