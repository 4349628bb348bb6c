"""How many threads computing should take here: physical cores that this process may use.

Knows the system's files about cores and quotas; no model, and not how far more threads would pay.
"""

import os
from pathlib import Path

_CPUS = Path("/sys/devices/system/cpu")
_QUOTA = Path("/sys/fs/cgroup/cpu.max")


def physical_cores() -> int:
    """Physical cores within the process's affinity and its container's CPU quota; at least 1.

    Where the system does not tell (macOS, Windows), half of the logical CPUs on x86 and all of them elsewhere: matrix
    products gain nothing from a second hardware thread on a core.
    """
    if hasattr(os, "sched_getaffinity"):
        allowed = os.sched_getaffinity(0)
        cores = {core for cpu in allowed if (core := _core_of(cpu)) is not None}
        count = len(cores) or len(allowed)
    else:
        import platform

        logical = os.cpu_count() or 1
        count = logical // 2 if platform.machine().lower() in {"x86_64", "amd64"} else logical
    return max(1, min(count, _quota() or count))


def _core_of(cpu: int) -> str | None:
    """The hardware threads that share a core with `cpu`, as the kernel writes them."""
    try:
        return (_CPUS / f"cpu{cpu}" / "topology" / "thread_siblings_list").read_text(encoding="ascii").strip()
    except OSError:
        return None


def _quota() -> int | None:
    """Whole CPUs of the container's quota (cgroup v2), rounded up; None without one."""
    try:
        quota, period = _QUOTA.read_text(encoding="ascii").split()
        return None if quota == "max" else max(1, -(-int(quota) // int(period)))
    except (OSError, ValueError):
        return None
