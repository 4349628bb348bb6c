"""llama.cpp's own tools, for tests that compare with them; they run on the very library that Python loads."""

import os
import subprocess
import sysconfig
from pathlib import Path

import pytest

from medmind import llama, processor

_BUILT = Path(sysconfig.get_path("scripts")).parent / "llama-tools" / "bin"


def tool(name: str) -> Path:
    """Where a tool lies; without it the test fails, and says what makes it."""
    path = Path(os.environ.get("MEDMIND_LLAMA_TOOLS", _BUILT)) / name
    if not path.exists():
        pytest.fail(f"{path} does not exist: make reference")
    return path


def run_tool(name: str, *arguments: str | Path) -> "subprocess.CompletedProcess[str]":
    """Run a tool to its end; its output as text."""
    usual = Path(str(llama.package().__file__)).parent / "lib"
    best = llama.cpu_library(usual, processor.features())
    libraries = [str(folder) for folder in ([best.parent] if best else []) + [usual]]
    return subprocess.run(
        [str(tool(name)), *map(str, arguments)],
        capture_output=True,
        encoding="utf-8",
        errors="replace",
        env={**os.environ, "LD_LIBRARY_PATH": os.pathsep.join(libraries)},
        check=True,
    )
