"""Resident memory of this process, as the system measures it. Knows no model."""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from medmind import console

_STATUS = Path("/proc/self/status")


@dataclass(frozen=True)
class Resident:
    """Resident memory of this process in bytes.

    Attributes:
        now: at this moment.
        peak: the most since the process started.
        anonymous, file_backed: `now` split into allocated pages and pages of mapped files; None where the system does
            not tell them apart (anything but Linux).
    """

    now: int
    peak: int
    anonymous: int | None
    file_backed: int | None


def resident() -> Resident:
    """Resident memory of this process.

    On Linux from /proc/self/status: `ru_maxrss` would not do, it carries the parent's peak over fork and exec.
    """
    if _STATUS.exists():
        fields = {}
        for line in _STATUS.read_text(encoding="utf-8").splitlines():
            name, _, value = line.partition(":")
            if value.endswith(" kB"):
                fields[name] = int(value.split()[0]) * 1024
        if {"VmRSS", "VmHWM"} <= fields.keys():
            shared = fields.get("RssFile", 0) + fields.get("RssShmem", 0)
            return Resident(fields["VmRSS"], fields["VmHWM"], fields.get("RssAnon"), shared)
    psutil: Any = console.require("psutil", "bench")
    memory = psutil.Process().memory_info()
    if sys.platform == "win32":
        return Resident(memory.rss, memory.peak_wset, None, None)
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # bytes on macOS, KiB elsewhere
    return Resident(memory.rss, peak if sys.platform == "darwin" else peak * 1024, None, None)
