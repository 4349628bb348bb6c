"""llama.cpp as a library: loads it once, keeps its log off the terminal, finds buffer sizes and errors in that log.

Knows neither models nor prompts. Nothing else in the runtime imports llama_cpp.
"""

import ctypes
import re
from collections import deque
from types import ModuleType

from medmind import console

_ERROR_LEVEL, _CONTINUE_LEVEL = 4, 5
"""Source: `enum ggml_log_level` of ggml.h (the numbers in llama-cpp-python's own logger are of an older one)."""
_KEPT_LINES = 400
_BUFFER = re.compile(r"(\w+)\s+(model|KV|RS|compute|output) buffer size =\s*([0-9.]+) MiB")


class Log:
    """The last lines of llama.cpp's log; `mark()` forgets what came before."""

    def __init__(self) -> None:
        self._lines: deque[tuple[int, str]] = deque(maxlen=_KEPT_LINES)
        self._level = 0

    def add(self, level: int, text: str) -> None:
        """Take one piece as llama.cpp hands it over; `continue` pieces lengthen the last line."""
        if level == _CONTINUE_LEVEL and self._lines:
            kind, line = self._lines[-1]
            self._lines[-1] = (kind, line + text)
        else:
            self._lines.append((level, text))

    def mark(self) -> None:
        """Forget every line so far."""
        self._lines.clear()

    def last_error(self) -> str:
        """The most telling error line since `mark()`, without the name of the C++ function; empty if there is none."""
        errors = [text.strip() for level, text in self._lines if level == _ERROR_LEVEL and text.strip()]
        if not errors:
            return ""
        return re.sub(r"^\w+:\s*(error loading model:\s*)?", "", errors[0])

    def buffer_bytes(self, kind: str) -> dict[str, int]:
        """Buffers of one kind since `mark()`: backend buffer name → bytes (the log rounds to 0.01 MiB)."""
        sizes: dict[str, int] = {}
        for _, text in self._lines:
            for name, found, mebibytes in _BUFFER.findall(text):
                if found == kind:
                    sizes[name] = sizes.get(name, 0) + round(float(mebibytes) * 2**20)
        return sizes


log = Log()
"""llama.cpp has one log for the whole process, and so has medmind."""
_alive: list[object] = []


def load() -> ModuleType:
    """The ctypes binding of llama.cpp, with the backend initialized and the log captured.

    Raises:
        MedmindError: llama-cpp-python is not installed.
    """
    package = console.require("llama_cpp", "runtime")
    library: ModuleType = package.llama_cpp
    if not _alive:

        def on_log(level: int, text: bytes | None, _data: object) -> None:
            log.add(level, (text or b"").decode("utf-8", "replace"))

        callback = library.llama_log_callback(on_log)
        _alive.append(callback)
        library.llama_log_set(callback, ctypes.c_void_p(0))
        library.llama_backend_init()
    return library
