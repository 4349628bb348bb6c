"""The machine without any library: memory, CPU features, compilers, the NVIDIA driver. Judges nothing."""

import ctypes
import os
import platform
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Memory:
    """Bytes; None where this system does not tell."""

    total: int | None
    available: int | None


@dataclass(frozen=True)
class Card:
    """An NVIDIA card as its driver describes it; memory in bytes."""

    name: str
    memory: int
    driver: str
    capability: str


def memory() -> Memory:
    """Installed and available memory; a container's limit counts as what is installed."""
    if sys.platform == "win32":
        return _windows_memory()
    total = available = None
    try:
        for line in Path("/proc/meminfo").read_text("ascii").splitlines():
            key, _, value = line.partition(":")
            if key in ("MemTotal", "MemAvailable"):
                count = int(value.split()[0]) * 1024
                total, available = (count, available) if key == "MemTotal" else (total, count)
    except (OSError, ValueError, IndexError):
        try:
            total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        except (OSError, ValueError, AttributeError):
            return Memory(None, None)
    limit, used = _cgroup("memory.max"), _cgroup("memory.current")
    if total is not None and limit is not None and limit < total:
        room = limit - (used or 0)
        return Memory(limit, room if available is None else min(room, available))
    return Memory(total, available)


def _cgroup(name: str) -> int | None:
    try:
        return int(Path("/sys/fs/cgroup", name).read_text("ascii"))
    except (OSError, ValueError):  # no cgroup v2, or "max"
        return None


def _windows_memory() -> Memory:
    class Status(ctypes.Structure):
        """MEMORYSTATUSEX of the Windows API."""

        _fields_ = (
            ("length", ctypes.c_ulong),
            ("load", ctypes.c_ulong),
            *((name, ctypes.c_ulonglong) for name in ("total", "available", "c", "d", "e", "f", "g")),
        )

    status = Status(length=ctypes.sizeof(Status))
    kernel = getattr(ctypes, "windll").kernel32  # noqa: B009  # the name exists on Windows only
    if not kernel.GlobalMemoryStatusEx(ctypes.byref(status)):
        return Memory(None, None)
    return Memory(int(status.total), int(status.available))


def compiler() -> str:
    """The first line of a C++ compiler's `--version`, or empty when there is none on the PATH."""
    names = ("cl", "clang++", "g++") if os.name == "nt" else ("c++", "g++", "clang++")
    for name in (os.environ.get("CXX", ""), *names):
        path = shutil.which(name) if name else None
        if path:
            lines = _output([path] if name == "cl" else [path, "--version"]).splitlines()
            if lines:
                return f"{name}: {lines[0].strip()}"
    return ""


def nvidia_cards() -> list[Card] | None:
    """The cards that the NVIDIA driver knows; None without a driver."""
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return None
    query = "--query-gpu=name,memory.total,driver_version,compute_cap"
    cards = []
    for line in _output([tool, query, "--format=csv,noheader,nounits"]).splitlines():
        fields = [field.strip() for field in line.split(",")]
        if len(fields) == 4 and fields[1].isdigit():
            cards.append(Card(fields[0], int(fields[1]) << 20, fields[2], fields[3]))
    return cards


def cpu_name() -> str:
    """The kind of processor and the number of usable cores."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return f"{platform.machine() or 'unknown processor'}, {cores} cores"


def _output(command: list[str]) -> str:
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, errors="replace", timeout=5, check=False, stdin=subprocess.DEVNULL
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout or done.stderr
