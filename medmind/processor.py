"""What the processor of this machine can do, as the system tells it. Knows nobody who wants to know."""

from pathlib import Path


def features(cpuinfo: Path = Path("/proc/cpuinfo")) -> frozenset[str]:
    """The CPU's flags as Linux names them, in lower case; empty where the system has no such file."""
    try:
        with cpuinfo.open(encoding="utf-8", errors="replace") as lines:  # of the first CPU: the file is long on many
            for line in lines:
                key, _, value = line.partition(":")
                if key.strip() in ("flags", "Features"):
                    return frozenset(value.lower().split())
    except OSError:
        pass
    return frozenset()
