"""A model's vocabulary through llama.cpp: text to ids, ids to exact bytes, which tokens are special.

Knows no messages; which template suits a vocabulary is all it knows of chats.
"""

import ctypes
from functools import cached_property
from types import ModuleType
from typing import Any

from medmind.errors import MedmindError
from medmind_runtime.prompt import ControlToken

_OVERFLOW = -(2**31)
"""Of `llama_tokenize`: more tokens than an int holds. Source: llama.h."""


class Vocabulary:
    """The tokens of a loaded model, which must outlive it.

    Attributes:
        handle: llama.cpp's vocabulary.
        bos, eos: ids of these tokens; -1 for none.
    """

    def __init__(self, lib: ModuleType, model: Any) -> None:
        self._lib = lib
        self.handle = lib.llama_model_get_vocab(model)
        self._size = int(lib.llama_vocab_n_tokens(self.handle))
        self.bos = int(lib.llama_vocab_bos(self.handle))
        self.eos = int(lib.llama_vocab_eos(self.handle))
        if self._size < 1:
            raise MedmindError("the model has no vocabulary", "use another model file")

    def __len__(self) -> int:
        return self._size

    def text(self, token: int) -> str:
        """The token as the vocabulary writes it (`</s>`, `▁the`); empty for the -1 that stands for none."""
        if not 0 <= token < self._size:
            return ""
        text: bytes | None = self._lib.llama_vocab_get_text(self.handle, token)
        return (text or b"").decode("utf-8", "replace")

    @cached_property
    def controls(self) -> list[ControlToken]:
        """Every control and unknown token: what special parsing finds in text, and user text must not become."""
        lib = self._lib
        special = lib.LLAMA_TOKEN_ATTR_CONTROL | lib.LLAMA_TOKEN_ATTR_UNKNOWN
        found = []
        for token in range(self._size):
            attributes = lib.llama_vocab_get_attr(self.handle, token)
            if attributes & special:
                left, right = attributes & lib.LLAMA_TOKEN_ATTR_LSTRIP, attributes & lib.LLAMA_TOKEN_ATTR_RSTRIP
                found.append(ControlToken(token, self.text(token), lstrip=bool(left), rstrip=bool(right)))
        return found

    def tokenize(self, text: str, *, special: bool, ends: bool = False) -> list[int]:
        """Token ids; lone surrogates become question marks.

        Args:
            text: any.
            special: whether text of control tokens becomes those tokens.
            ends: with the tokens that this vocabulary puts before and behind a text, as BOS.

        Raises:
            MedmindError: more text than llama.cpp can count the tokens of.
        """
        data = text.encode("utf-8", "replace")
        capacity = len(data) + 8
        for _ in range(2):
            ids = (self._lib.llama_token * capacity)()
            count = self._lib.llama_tokenize(self.handle, data, len(data), ids, capacity, ends, special)
            if count >= 0:
                return list(ids[:count])
            if count == _OVERFLOW:
                break
            capacity = -count
        raise MedmindError(f"a text of {len(data)} bytes is too long to tokenize", "shorten it")

    def least_tokens(self, text: str) -> int:
        """No fewer tokens than these are in a text; known without tokenizing it, which may take minutes of a long one.

        As many as there would be were every token the longest; 0 for a vocabulary that may leave something out of a
        text, as WordPiece leaves out white space.
        """
        return -(-len(text.encode("utf-8", "replace")) // self._longest) if self._longest else 0

    @cached_property
    def _longest(self) -> int:
        """Bytes of the longest token; 0 where they are not all that a text has."""
        lib = self._lib
        if lib.llama_vocab_type(self.handle) not in {lib.LLAMA_VOCAB_TYPE_SPM, lib.LLAMA_VOCAB_TYPE_BPE}:
            return 0
        return max(len(self.piece(token)) for token in range(self._size))

    def piece(self, token: int) -> bytes:
        """The token's exact bytes; none for control tokens."""
        size = 64
        while True:
            buffer = ctypes.create_string_buffer(size)
            written = int(self._lib.llama_token_to_piece(self.handle, token, buffer, size, 0, False))
            if written >= 0:
                return buffer.raw[:written]
            size = -written

    def is_end(self, token: int) -> bool:
        """Whether the token ends an answer."""
        return bool(self._lib.llama_vocab_is_eog(self.handle, token))

    def fallback(self) -> str:
        """The name of the built-in template whose control token this vocabulary has; empty if none."""
        from medmind.template import FALLBACKS

        texts = {token.text for token in self.controls}
        return next((name for name, (sign, _) in FALLBACKS.items() if sign in texts), "")
