"""Log-probabilities in 16 bits, and the files of llama.cpp's `--kl-divergence-base` that hold them.

Knows bytes and rows, neither models nor texts. Source: `log_softmax`, `process_logits` and `kl_divergence` of
llama.cpp's tools/perplexity/perplexity.cpp. A file is "_logits_", n_ctx, n_vocab and n_chunk as 32-bit integers,
n_chunk · n_ctx token ids, and for each chunk the rows of positions n_ctx / 2 to n_ctx − 2. A row is two 32-bit floats,
scale and lowest log-probability, and one 16-bit step a token of the vocabulary, padded to an even number.
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import numpy as np

from medmind.errors import MedmindError

if TYPE_CHECKING:
    from numpy.typing import NDArray

_MAGIC = b"_logits_"
_STEPS = 65535
_RANGE = 16.0
"""Logits further than this below the highest one are stored as if they were that far below."""
_HEAD = 4
"""16-bit words that scale and lowest log-probability take."""


def row_words(vocabulary: int) -> int:
    """16-bit words of one row."""
    return 2 * ((vocabulary + 1) // 2) + _HEAD


def encode(logits: "NDArray[np.float32]") -> "NDArray[np.uint16]":
    """Rows of logits, shape (rows, vocabulary), as rows of the file, shape (rows, row_words)."""
    rows, vocabulary = logits.shape
    top = logits.max(axis=1, keepdims=True)
    low = np.maximum(logits.min(axis=1, keepdims=True), top - np.float32(_RANGE))
    total = np.exp((logits - top).astype(np.float64)).sum(axis=1, keepdims=True)
    scale = ((top - low) / np.float32(_STEPS)).astype(np.float32)
    encoded = np.zeros((rows, row_words(vocabulary)), dtype="<u2")
    head = np.hstack([scale, (low - top - np.log(total)).astype(np.float32)]).astype("<f4")
    encoded[:, :_HEAD] = head.view("<u2")
    inverse = np.divide(1, scale, out=np.zeros_like(scale), where=scale > 0)
    steps = np.rint(inverse * (logits - low))
    encoded[:, _HEAD : _HEAD + vocabulary] = np.clip(steps, 0, _STEPS)
    return encoded


def decode(rows: "NDArray[np.uint16]", vocabulary: int) -> "NDArray[np.float64]":
    """The log-probabilities of encoded rows, shape (rows, vocabulary); computed in 32 bits as llama.cpp does."""
    head = np.ascontiguousarray(rows[:, :_HEAD]).view("<f4")
    steps = rows[:, _HEAD : _HEAD + vocabulary].astype(np.float32)
    found: NDArray[np.float64] = (head[:, :1] * steps + head[:, 1:2]).astype(np.float64)
    return found


@dataclass(frozen=True)
class Base:
    """The head of a `--kl-divergence-base` file.

    Attributes:
        path: the file.
        chunk: n_ctx.
        vocabulary: n_vocab.
        tokens: shape (chunks, n_ctx), a chunk's first is read as BOS where the model begins texts with one.
    """

    path: Path
    chunk: int
    vocabulary: int
    tokens: "NDArray[np.int32]"

    @property
    def offset(self) -> int:
        """Where the rows begin, bytes."""
        return len(_MAGIC) + 12 + self.tokens.size * 4

    def rows(self) -> "Iterator[NDArray[np.uint16]]":
        """The encoded rows of each chunk, shape (n_ctx − 1 − n_ctx // 2, row_words)."""
        return read_rows(self.path, self.offset, [scored_rows(self.chunk)] * len(self.tokens), self.vocabulary)


def scored_rows(chunk: int) -> int:
    """Rows a chunk of `chunk` tokens has in a file."""
    return chunk - 1 - chunk // 2


def read_base(path: Path) -> Base:
    """The head of a file, its size checked against it.

    Raises:
        MedmindError: no such file, or one that is cut off.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        if file.read(len(_MAGIC)) != _MAGIC:
            raise MedmindError(
                f"{path} is no file of log-probabilities", "make one with --save-kl-base, or llama-perplexity"
            )
        head = file.read(12)
        if len(head) < 12:
            raise MedmindError(f"{path} is cut off", "write it again")
        chunk, vocabulary, chunks = struct.unpack("<Iii", head)
        if chunk < 4 or vocabulary < 1 or chunks < 1:
            raise MedmindError(f"{path} is damaged: n_ctx {chunk}, n_vocab {vocabulary}, n_chunk {chunks}")
        body = chunks * (chunk * 4 + scored_rows(chunk) * row_words(vocabulary) * 2)
        if size != len(_MAGIC) + 12 + body:
            raise MedmindError(f"{path} is cut off: {size} bytes of {len(_MAGIC) + 12 + body}", "write it again")
        tokens = np.frombuffer(file.read(chunks * chunk * 4), dtype="<i4").reshape(chunks, chunk)
    if tokens.min() < 0 or tokens.max() >= vocabulary:
        raise MedmindError(f"{path} is damaged: token ids outside its vocabulary of {vocabulary}")
    return Base(path, chunk, vocabulary, tokens)


def write_head(file: BinaryIO, chunk: int, vocabulary: int, tokens: "NDArray[np.int32]") -> None:
    """Begin a file; the rows of each chunk follow in order.

    Args:
        file: open for writing.
        chunk: n_ctx.
        vocabulary: n_vocab.
        tokens: shape (chunks, n_ctx).
    """
    file.write(_MAGIC + struct.pack("<Iii", chunk, vocabulary, len(tokens)) + tokens.astype("<i4").tobytes())


def read_rows(path: Path, offset: int, counts: list[int], vocabulary: int) -> "Iterator[NDArray[np.uint16]]":
    """Encoded rows in blocks of `counts` rows each; one block is in memory at a time.

    Raises:
        MedmindError: the file ends before.
    """
    words = row_words(vocabulary)
    with path.open("rb") as file:
        file.seek(offset)
        for count in counts:
            block = np.fromfile(file, dtype="<u2", count=count * words)
            if block.size < count * words:
                raise MedmindError(f"{path} is cut off", "write it again")
            yield block.reshape(count, words)
