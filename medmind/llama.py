"""llama.cpp as a library: loads it once, in the build that suits the CPU, and keeps its log off the terminal.

Finds buffer sizes and errors in that log. Knows neither models nor prompts. Nothing else imports llama_cpp first.
"""

import contextlib
import ctypes
import importlib.util
import re
import sys
import threading
from collections import deque
from collections.abc import Set
from functools import cache
from pathlib import Path
from types import ModuleType

from medmind import console, elf, processor

_ERROR_LEVEL, _CONTINUE_LEVEL = 4, 5
"""Source: `enum ggml_log_level` of ggml.h (the numbers in llama-cpp-python's own logger are of an older one)."""
_KEPT_LINES = 400
_BUFFER = re.compile(r"(\w+)\s+(model|KV|RS|compute|output) buffer size =\s*([0-9.]+) MiB")


def _tells(level: int, line: str) -> bool:
    return level == _ERROR_LEVEL or _BUFFER.search(line) is not None


class Log(threading.local):
    """The lines of llama.cpp's log that tell of errors and buffers; `mark()` forgets what came before.

    Each thread has its own: while one loads a model, another may load the safety layer's. Other lines go at once: a
    model of 32 layers writes more while it loads than are worth keeping.
    """

    def __init__(self) -> None:
        self._lines: deque[tuple[int, str]] = deque(maxlen=_KEPT_LINES)

    def add(self, level: int, text: str) -> None:
        """Take one piece as llama.cpp hands it over; `continue` pieces lengthen the last line."""
        if level == _CONTINUE_LEVEL and self._lines:
            kind, line = self._lines[-1]
            self._lines[-1] = (kind, line + text)
            return
        if self._lines and not _tells(*self._lines[-1]):  # only now is it whole
            self._lines.pop()
        self._lines.append((level, text))

    def mark(self) -> None:
        """Forget every line so far."""
        self._lines.clear()

    def first_error(self) -> str:
        """The first error line since `mark()` that says something, without the C++ function's name; empty for none.

        It is the most telling one: those behind it follow from it.
        """
        found = (text.strip() for level, text in self._lines if level == _ERROR_LEVEL and text.strip(" \n=."))
        return re.sub(r"^\w+:\s*(error loading model:\s*)?", "", next(found, ""))

    def buffer_bytes(self, kind: str) -> dict[str, int]:
        """Buffers of one kind since `mark()`: backend buffer name → bytes (the log rounds to 0.01 MiB)."""
        sizes: dict[str, int] = {}
        for _, text in self._lines:
            for name, found, mebibytes in _BUFFER.findall(text):
                if found == kind:
                    sizes[name] = sizes.get(name, 0) + round(float(mebibytes) * 2**20)
        return sizes


log = Log()
"""llama.cpp has one for the whole process, and calls it in the thread that asked for what it tells of."""
_callback: list[object] = []
"""C holds a pointer to it without counting it, and may be calling it in another thread: Python must never free it."""
_one_at_a_time = threading.Lock()


def cpu_library(folder: Path, flags: Set[str]) -> Path | None:
    """The build of libggml-cpu that a CPU gets most from; None where it is the one that is linked to.

    Args:
        folder: llama_cpp's `lib`; builds for CPUs that have more than the usual one asks for lie in folders of it, each
            with a file `cpu-flags` (scripts/llama_build.cmake).
        flags: what the CPU can, see `processor.features`.
    """
    needs = {file: set(file.read_text(encoding="ascii").split()) for file in sorted(folder.glob("*/cpu-flags"))}
    fitting = [file for file in needs if needs[file] and needs[file] <= flags]
    best = max(fitting, key=lambda file: len(needs[file]), default=None)
    return next(best.parent.glob("libggml-cpu.so*"), None) if best else None


@cache
def take_cpu_library() -> None:
    """Load the build of libggml-cpu that suits this CPU, where it is not the usual one; before llama_cpp is imported.

    llama.cpp is linked to a name (`libggml-cpu.so.0`): glibc's linker takes what is loaded under it already. Where it
    cannot be loaded, the usual one computes.
    """
    if "llama_cpp" in sys.modules:
        return
    found = importlib.util.find_spec("llama_cpp")
    for place in (found.submodule_search_locations or ()) if found else ():
        best = cpu_library(Path(place) / "lib", processor.features())
        if best is not None:
            with contextlib.suppress(OSError):
                if elf.is_whole(best):
                    ctypes.CDLL(str(best))


def package(extra: str = "runtime") -> ModuleType:
    """The package llama_cpp; `extra` of medmind brings it.

    Raises:
        MedmindError: llama-cpp-python is not installed.
    """
    take_cpu_library()
    return console.require("llama_cpp", extra)


def load() -> ModuleType:
    """The ctypes binding of llama.cpp, with the backend initialized and the log captured.

    Raises:
        MedmindError: llama-cpp-python is not installed.
    """
    library: ModuleType = package().llama_cpp

    def on_log(level: int, text: bytes | None, _data: object) -> None:
        log.add(level, (text or b"").decode("utf-8", "replace"))

    with _one_at_a_time:
        first = not _callback
        if first:
            _callback.append(library.llama_log_callback(on_log))
        library.llama_log_set(_callback[0], ctypes.c_void_p(0))
        if first:
            library.llama_backend_init()
    return library


def own_attention() -> bool:
    """Whether llama.cpp computes attention on this CPU by scripts/llama_attention.cpp; not where it came otherwise.

    Raises:
        MedmindError: llama-cpp-python is not installed.
    """
    return _told("medmind_attention")


def own_products() -> bool:
    """Whether llama.cpp multiplies weights by a few tokens on this CPU by scripts/llama_few_rows.cpp.

    Raises:
        MedmindError: llama-cpp-python is not installed.
    """
    return _told("medmind_few_rows")


def _told(name: str) -> bool:
    told = getattr(load()._lib, name, None)  # of any library that this one is linked to
    if told is None:
        return False
    told.restype = ctypes.c_bool
    return bool(told())
