"""What the processor of this machine is and can do, as the system tells it. Knows nobody who wants to know."""

import sys
from pathlib import Path

CPUINFO = Path("/proc/cpuinfo")
"""Where Linux tells."""


def features(cpuinfo: Path = CPUINFO) -> frozenset[str]:
    """The CPU's flags as Linux names them, in lower case; empty where the system has no such file."""
    return frozenset(_told(cpuinfo, "flags", "Features").lower().split())


def name(cpuinfo: Path = CPUINFO) -> str:
    """The processor as it calls itself; where the system does not tell, its kind."""
    import platform

    return _told(cpuinfo, "model name") or _told_by_macos() or platform.processor() or platform.machine()


def _told(cpuinfo: Path, *keys: str) -> str:
    """What stands under one of these keys of the first CPU; empty where nothing does, or there is no such file."""
    try:
        with cpuinfo.open(encoding="utf-8", errors="replace") as lines:  # of the first CPU: the file is long on many
            for line in lines:
                key, _, value = line.partition(":")
                if key.strip() in keys:
                    return value.strip()
    except OSError:
        pass
    return ""


def _told_by_macos() -> str:
    if sys.platform != "darwin":
        return ""
    import subprocess

    command = ["/usr/sbin/sysctl", "-n", "machdep.cpu.brand_string"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return ""
