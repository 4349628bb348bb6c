"""No picture of this process's memory is written to a disk when it crashes, or somebody presses Ctrl-\\.

What was said lies in that memory. Knows the system's two switches; what is swapped out it cannot hold.
"""

import ctypes
import sys
from contextlib import suppress

_SET_DUMPABLE = 4
"""PR_SET_DUMPABLE of linux/prctl.h: a limit alone does not hold where core dumps are piped to a program (core(5))."""


def forbid() -> None:
    """From now on, for this process and those that it forks; where there are no core dumps, nothing."""
    try:
        import resource
    except ImportError:  # Windows
        return
    with suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_SET_DUMPABLE, *map(ctypes.c_ulong, (0, 0, 0, 0)))
