"""The commands that install what is missing: by make in a checkout of medmind, by pip elsewhere.

Only a checkout can build llama.cpp with medmind's own kernels (scripts/install.sh): pip alone leaves them out.
"""

import platform
import shlex
import sys
from pathlib import Path

_SOURCES = Path(__file__).parents[2]
NATIVE = "-DGGML_NATIVE=ON"


def extra(name: str) -> str:
    """The command that brings an extra of the distribution, and all that belongs to it."""
    return _make("-B install") or f"pip install 'medmind[{name}]'"  # -B: make cannot know that something was taken away


def afresh(name: str) -> str:
    """The command that installs an extra once more, where what is installed does not work."""
    return _make("clean install") or f"in a fresh venv: {extra(name)}"


def llama(version: object, options: str = NATIVE, *, own: bool = False) -> str:
    """The command that compiles llama.cpp anew.

    Args:
        version: of llama-cpp-python, as far as it is known.
        options: more CMake arguments; none for the usual build.
        own: whether the build at hand has medmind's own kernels.
    """
    target = f"install LLAMA_CMAKE_ARGS={options}" if options else "-B install"
    if made := _make(target):
        return made
    if own:
        return f"in a checkout of medmind: make {target} (pip alone would leave out medmind's own kernels)"
    pinned = f"llama-cpp-python=={version}" if version else "llama-cpp-python"
    setting = f'$env:CMAKE_ARGS="{options}";' if platform.system() == "Windows" else f'CMAKE_ARGS="{options}"'
    return f"{setting} pip install --force-reinstall --no-deps --no-cache-dir --no-binary llama-cpp-python {pinned}"


def in_checkout() -> bool:
    """Whether medmind runs from its sources, and make can build from them: what Windows does not have."""
    return platform.system() != "Windows" and (_SOURCES / "scripts" / "install.sh").is_file()


def _make(target: str) -> str:
    """The call of make for this environment; empty where there is no checkout."""
    if not in_checkout():
        return ""
    place = "" if Path.cwd() == _SOURCES else f"-C {shlex.quote(str(_SOURCES))} "
    other = sys.prefix != sys.base_prefix and Path(sys.prefix) != _SOURCES / ".venv"
    return f"make {place}{target}{f' VENV={shlex.quote(sys.prefix)}' if other else ''}"
