"""How much memory can be had: free on the machine, in its container, and under the limits of this process.

Knows not what it is for.
"""

import os
import sys
from pathlib import Path
from typing import NamedTuple

from medmind.doctor import machine


class Room(NamedTuple):
    """Memory that can be had.

    Attributes:
        bytes: how much.
        limit: the shell's word for what bounds it; empty where memory itself does.
    """

    bytes: int
    limit: str = ""


def available(mapped: int) -> Room | None:
    """The least of what bounds it; None where nothing is known.

    Args:
        mapped: bytes of files that will be mapped, which count as address space and not as data.
    """
    found = _limits(mapped)
    if (free := _free()) is not None:
        found.append(Room(free))
    return min(found, default=None)


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


def _limits(mapped: int) -> list[Room]:
    """What `ulimit` leaves beside what this process has already (proc(5), `statm`: pages; Linux alone heeds both)."""
    if sys.platform != "linux":
        return []
    import resource

    try:
        pages = [int(count) for count in Path("/proc/self/statm").read_text("ascii").split()]
    except (OSError, ValueError):
        return []
    found = []
    for limit, kind, taken, besides in (
        ("ulimit -v", resource.RLIMIT_AS, pages[0], 0),
        ("ulimit -d", resource.RLIMIT_DATA, pages[5], mapped),
    ):
        most = resource.getrlimit(kind)[0]
        if most != resource.RLIM_INFINITY:
            found.append(Room(max(0, most - taken * os.sysconf("SC_PAGE_SIZE")) + besides, limit))
    return found
