"""llama.cpp through llama_cpp's C API: a silenced log and a vocabulary loaded from a GGUF. Knows no conversion."""

import ctypes
from collections import deque
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, TracebackType
from typing import Any

from medmind import console
from medmind.errors import MedmindError

_ERROR = 4
"""ggml.h's GGML_LOG_LEVEL_ERROR."""
_keep: list[Any] = []
"""C holds a pointer to the callback without counting it: Python must not free it."""


def library(listen: Callable[[str], None] | None = None) -> tuple[ModuleType, deque[str]]:
    """llama_cpp with its log off the terminal, and the last error lines it logs from now on.

    Args:
        listen: is called with each piece of the log, of any level.

    Raises:
        MedmindError: llama-cpp-python is not installed.
    """
    llama_cpp = console.require("llama_cpp", "runtime")
    errors: deque[str] = deque(maxlen=8)

    def log(level: int, text: bytes, _data: object) -> None:
        line = text.decode("utf-8", "replace")
        if level == _ERROR and line.strip(" \n=."):
            errors.append(" ".join(line.split()))
        if listen is not None:
            listen(line)

    callback = llama_cpp.llama_log_callback(log)
    _keep[:] = [callback]
    llama_cpp.llama_log_set(callback, ctypes.c_void_p(0))
    return llama_cpp, errors


class GgufVocabulary:
    """The tokenizer of a GGUF as llama.cpp reads it; a context manager.

    Raises:
        MedmindError: llama.cpp cannot load the file.
    """

    def __init__(self, path: Path) -> None:
        self._lib, errors = library()
        self._lib.llama_backend_init()
        params = self._lib.llama_model_default_params()
        params.vocab_only = True
        self._model = self._lib.llama_model_load_from_file(str(path).encode(), params)
        if not self._model:
            raise MedmindError(f"llama.cpp cannot load {path}: {errors[-1] if errors else 'no reason given'}")
        self._vocab = self._lib.llama_model_get_vocab(self._model)

    def __enter__(self) -> "GgufVocabulary":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._lib.llama_model_free(self._model)

    def tokenize(self, text: str) -> list[int]:
        """Token ids of a rendered text; control tokens are read, none is added."""
        data = text.encode()
        room = len(data) + 8  # byte fallback and one prefix space a fragment; grown when that is not enough
        while True:
            buffer = (self._lib.llama_token * room)()
            count = self._lib.llama_tokenize(self._vocab, data, len(data), buffer, room, False, True)
            if count >= 0:
                return list(buffer[:count])
            room = -count

    def text(self, token: int) -> str:
        """The text of a token, as it stands in the vocabulary; empty for -1, llama.cpp's 'none'."""
        return "" if token < 0 else self._lib.llama_vocab_get_text(self._vocab, token).decode("utf-8")

    @property
    def bos(self) -> int:
        """Token id, or -1."""
        return int(self._lib.llama_vocab_bos(self._vocab))

    @property
    def eos(self) -> int:
        """Token id, or -1."""
        return int(self._lib.llama_vocab_eos(self._vocab))

    def ends(self, token: int) -> bool:
        """Whether generation stops at this token."""
        return bool(self._lib.llama_vocab_is_eog(self._vocab, token))

    def metadata(self, key: str) -> str | None:
        """A metadata value as text, as any program that uses llama.cpp reads it."""
        room = 1 << 16
        while True:
            buffer = ctypes.create_string_buffer(room)
            count = self._lib.llama_model_meta_val_str(self._model, key.encode(), buffer, room)
            if count < 0:
                return None
            if count < room:
                return buffer.raw[:count].decode("utf-8")
            room = count + 1
