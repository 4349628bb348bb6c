"""How much memory can be had: free on the machine, in its container, and under the limits of this process.

Knows not what it is for.
"""

import os
import sys
from pathlib import Path
from typing import NamedTuple

from medmind.doctor import machine

_THREADS = 64 << 20
"""Bytes of stacks and of what the C library keeps for threads, which limits of a process count."""


class FreeMemory(NamedTuple):
    """Memory that can be had.

    Attributes:
        bytes: how much.
        limit: the shell's word for what bounds it; empty where memory itself does.
        also: bytes that count there beside what stays in memory; below 0 where some of that does not count.
    """

    bytes: int
    limit: str = ""
    also: int = 0


def available(*, mapped: int, copied: int) -> FreeMemory | None:
    """The least of what bounds it; None where nothing is known.

    Args:
        mapped: bytes of files that will be mapped, which are address space and no data.
        copied: bytes of these that will be kept a second time while their own pages are let go: memory holds them once,
            address space twice, and only the copies are data.
    """
    found = _limits(mapped, copied)
    if (free := _free()) is not None:
        found.append(FreeMemory(free))
    return min(found, key=lambda one: one.bytes - one.also, default=None)


def _free() -> int | None:
    """Of the machine; in a container its file cache counts as free, which the kernel takes back when needed."""
    found = machine.memory().available
    try:
        limited = Path("/sys/fs/cgroup/memory.max").read_text("ascii").strip() != "max"
        lines = Path("/sys/fs/cgroup/memory.stat").read_text("ascii").splitlines()
    except OSError:
        return found
    cached = next((int(line.split()[1]) for line in lines if line.startswith("file ")), 0)
    return found + cached if limited and found is not None else found


def _limits(mapped: int, copied: int) -> list[FreeMemory]:
    """What `ulimit` leaves beside what this process has already, and what else counts there.

    Source: proc(5), `statm`, in pages; setrlimit(2). Linux alone heeds both.
    """
    if sys.platform != "linux":
        return []
    import resource

    try:
        pages = [int(count) for count in Path("/proc/self/statm").read_text("ascii").split()]
    except (OSError, ValueError):
        return []
    found = []
    for limit, kind, taken, also in (
        ("ulimit -v", resource.RLIMIT_AS, pages[0], copied),
        ("ulimit -d", resource.RLIMIT_DATA, pages[5], copied - mapped),
    ):
        most = resource.getrlimit(kind)[0]
        if most != resource.RLIM_INFINITY:
            left = max(0, most - taken * os.sysconf("SC_PAGE_SIZE"))
            found.append(FreeMemory(left, limit, also + _THREADS))
    return found
