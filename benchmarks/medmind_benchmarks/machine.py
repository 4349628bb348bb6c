"""The machine a benchmark runs on: processor, cores, memory that may be used, resident memory of this process."""

import os
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import psutil

from medmind import llama, processor


def available_memory() -> tuple[int, int]:
    """(bytes a new process may use now, bytes of the machine), both within the control group's limit."""
    memory = psutil.virtual_memory()
    available, total = int(memory.available), int(memory.total)
    for limit_file, usage_file in (
        ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current"),
        ("/sys/fs/cgroup/memory/memory.limit_in_bytes", "/sys/fs/cgroup/memory/memory.usage_in_bytes"),
    ):
        try:
            limit, usage = int(Path(limit_file).read_text("utf-8")), int(Path(usage_file).read_text("utf-8"))
        except (OSError, ValueError):  # absent, or the word "max"
            continue
        if limit < total:
            total, available = limit, min(available, max(0, limit - usage))
    return available, total


def cores() -> int:
    """Physical cores of the machine."""
    return psutil.cpu_count(logical=False) or os.cpu_count() or 1


def load_average() -> float | None:
    """Processes that wanted a core during the last minute; None where the system does not say."""
    return os.getloadavg()[0] if hasattr(os, "getloadavg") else None


def versions() -> dict[str, str]:
    """Versions of what the figures depend on."""
    found = {"python": platform.python_version()}
    for package in ("medmind", "llama-cpp-python", "numpy"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed as a package"
    return found


def llama_build() -> str:
    """llama.cpp's own line on how it was built: the backends and instructions it uses."""
    features: bytes = llama.load().llama_print_system_info()
    return features.decode("utf-8", "replace").strip(" |")


def identity() -> dict[str, Any]:
    """What makes measured speeds and sizes hold for this machine and no other."""
    return {
        "host": platform.node(),
        "cpu": processor.name(),
        "cores": cores(),
        "memory": available_memory()[1],
        "system": platform.platform(),
    }
