"""How many threads a network gets on a CPU."""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import Final

TOPOLOGY: Final = '/sys/devices/system/cpu/cpu{}/topology'
QUOTA: Final = Path('/sys/fs/cgroup/cpu.max')


def usable_cores(topology: str = TOPOLOGY, quota: Path = QUOTA) -> int:
    """Return the number of physical cores that this process may use, at least 1.

    Counts what ``taskset`` or a container leaves of them: two hyper-threads of a core have one set of multipliers, and
    threads beyond a container's quota are stopped by the kernel in the middle of their work.

    Args:
        topology: Where Linux describes a CPU's place; with ``{}`` for its number.
        quota: Where cgroup 2 keeps the quota: "max" or microseconds, and the period.

    """
    allowed = os.sched_getaffinity(0) if hasattr(os, 'sched_getaffinity') else range(os.cpu_count() or 1)
    cores = {_core(Path(topology.format(number)), number) for number in allowed}
    return max(min(len(cores), _quota(quota)), 1)


def _core(folder: Path, number: int) -> tuple[str, str]:
    try:
        package, core = ((folder / name).read_text().strip() for name in ('physical_package_id', 'core_id'))
    except OSError:
        return 'cpu', str(number)
    return package, core


def _quota(path: Path) -> int:
    try:
        used, period = path.read_text().split()
        return math.ceil(int(used) / int(period))
    except (OSError, ValueError):  # no cgroup 2, or no limit
        return os.cpu_count() or 1
