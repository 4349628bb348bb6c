"""The tokenizer of a GGUF as llama.cpp reads it. Knows no conversion."""

import ctypes
from pathlib import Path
from types import TracebackType

from medmind import llama
from medmind.errors import MedmindError


class GgufVocabulary:
    """The tokenizer of a GGUF as llama.cpp reads it; a context manager.

    Raises:
        MedmindError: llama.cpp cannot load the file.
    """

    def __init__(self, path: Path) -> None:
        self._lib = llama.load()
        llama.log.mark()
        params = self._lib.llama_model_default_params()
        params.vocab_only = True
        self._model = self._lib.llama_model_load_from_file(str(path).encode(), params)
        if not self._model:
            raise MedmindError(f"llama.cpp cannot load {path}: {llama.log.first_error() or 'no reason given'}")
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
