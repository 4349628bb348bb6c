"""What others make of the text that a base model is validated on: a trigram model, gzip and xz, in bits per byte.

Knows the documents that `pretrain` holds out; trains no neural network and reads none.
"""

import gzip
import lzma
import tempfile
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from medmind.artifacts import require_space, sha256
from medmind.base import EMBEDDED_NAME, EMBEDDED_PATH
from medmind.console import progress, require
from medmind.errors import MedmindError
from medmind_train.pretrain import tokenfile
from medmind_train.pretrain.text import find_files, records
from medmind_train.pretrain.trigram import ORDER, Trigrams

FORMAT = "medmind-yardsticks/1"
_TOKENIZER = "tokenizer.model"
_TOKEN_FILE_SHARE = 3
_PRESET = 9
_LARGEST_WINDOW = 1536 << 20
"""Bytes; LZMA2's limit for compression."""
_BETWEEN = b"\n"
"""Put between two documents where they are compressed as one stream."""


@dataclass(frozen=True)
class Document:
    """A held-out document: its source, its UTF-8 bytes, and the trigram model's bits for it and `</s>`."""

    source: str
    text: bytes
    bits: float


def measure(sources: list[Path], tokenizer: Path, validation_share: float) -> dict[str, Any]:
    """Bits per byte of each yardstick on the held-out documents, over all of them and by source.

    Args:
        sources: text files or directories, see `text.find_files`.
        tokenizer: a SentencePiece model, a directory with a tokenizer.model, or the embedded base's name; the trigram
            model's words are its ids.
        validation_share: as `pretrain` was told; the same documents are held out then.

    Returns:
        `bits_per_byte` {`trigram`, `gzip`, `xz`, `xz_after_training`}, `sources` (the first three by source), counts.
        `xz_after_training` is what xz needs for the held-out text when the training text lies in its window.

    Raises:
        MedmindError: no tokenizer there, no text, or too little of it.
    """
    if str(tokenizer) == EMBEDDED_NAME and not tokenizer.exists():
        tokenizer = EMBEDDED_PATH
    model = tokenizer / _TOKENIZER if tokenizer.is_dir() else tokenizer
    if not model.is_file():
        raise MedmindError(f"{model} does not exist", f"give a SentencePiece model, or a directory with a {_TOKENIZER}")
    files = find_files(sources)
    cut = tokenfile.border(files, validation_share)
    with tempfile.TemporaryDirectory(prefix="medmind-yardsticks-") as scratch:
        need = _TOKEN_FILE_SHARE * sum(file.stat().st_size for file in files)
        require_space(Path(scratch), need, "the token file", "set TMPDIR to a folder on another disk")
        try:
            tokens = tokenfile.build(files, model, Path(scratch), validation_share, cut)
        except (RuntimeError, OSError) as error:
            raise MedmindError(f"{model} is no SentencePiece model: {error}", "give another --tokenizer") from error
        words = require("sentencepiece", "train").SentencePieceProcessor(model_file=str(model))
        vocabulary = int(words.get_piece_size())
        with progress("counting trigrams", ORDER, "orders") as advance:
            trigrams = Trigrams(tokens.part("train"), words.bos_id(), vocabulary, advance)
        heldout = _heldout(files, cut, tokens.part("validation"), trigrams)
        del trigrams
    return {
        "format": FORMAT,
        "validation_share": validation_share,
        "documents": tokens.documents,
        "tokens": tokens.tokens,
        "tokenizer": {"digest": sha256(model), "vocabulary": vocabulary},
        "heldout": {
            "documents": tokens.validation_documents,
            "tokens": tokens.validation_tokens,
            "bytes": tokens.validation_bytes,
        },
        "bits_per_byte": {**_alone(heldout), "xz_after_training": _after_training(files, cut, heldout)},
        "sources": [
            {
                "source": source,
                "documents": len(group),
                "bytes": sum(len(document.text) for document in group),
                **_alone(group),
            }
            for source, group in _by_source(heldout).items()
        ],
    }


def _heldout(files: list[Path], cut: float, ids: "np.ndarray[Any, Any]", trigrams: Trigrams) -> list[Document]:
    """The held-out documents in the order of their ids, each costed."""
    texts = ((text, source) for text, source in records(files) if tokenfile.is_held_out(text, cut))
    starts = np.flatnonzero(np.asarray(ids) == trigrams.bos)
    costs = np.add.reduceat(trigrams.bits(ids), starts)
    return [Document(source, text.encode(), float(bits)) for (text, source), bits in zip(texts, costs, strict=True)]


def _by_source(heldout: list[Document]) -> dict[str, list[Document]]:
    """The documents by source, in name order; nothing where no document names one."""
    groups: dict[str, list[Document]] = {}
    for document in sorted(heldout, key=lambda document: document.source):
        groups.setdefault(document.source, []).append(document)
    return {} if list(groups) == [""] else groups


def _alone(heldout: list[Document]) -> dict[str, float]:
    """Trigram model, gzip and xz on these documents, nothing else compressed before them."""
    size = sum(len(document.text) for document in heldout)
    joined = _BETWEEN.join(document.text for document in heldout)
    return {
        "trigram": sum(document.bits for document in heldout) / size,
        "gzip": 8 * len(gzip.compress(joined, _PRESET)) / size,
        "xz": 8 * len(lzma.compress(joined, preset=_PRESET)) / size,
    }


def _after_training(files: list[Path], cut: float, heldout: list[Document]) -> float:
    """Bits per byte that the held-out text adds to the xz file of the training text.

    Each of the two streams passes through an encoder of its own at the same time, for the half of the waiting.

    Raises:
        MedmindError: text beyond the largest window that xz has.
    """
    training = _BETWEEN.join(text.encode() for text, _ in records(files) if not tokenfile.is_held_out(text, cut))
    added = _BETWEEN.join([b"", *(document.text for document in heldout)])
    window = len(training) + len(added)
    if window > _LARGEST_WINDOW:
        raise MedmindError(
            f"the text has {window:,} bytes, and xz looks back {_LARGEST_WINDOW:,} at most", "give less text"
        )
    with progress("xz, training text before", 2 * window - len(added), "B") as advance, ThreadPoolExecutor(2) as pool:
        alone, both = pool.map(
            lambda parts: _xz_bytes(parts, window, advance), (_slices(training), chain(_slices(training), [added]))
        )
    return 8 * (both - alone) / sum(len(document.text) for document in heldout)


def _slices(data: bytes, size: int = 1 << 20) -> Iterable[memoryview]:
    view = memoryview(data)
    return (view[at : at + size] for at in range(0, len(view), size))


def _xz_bytes(parts: Iterable[bytes | memoryview], window: int, advance: Callable[..., None]) -> int:
    """Size of `parts` as one xz stream whose window covers `window` bytes."""
    smallest = 4096  # of LZMA2
    chain_of_filters = [{"id": lzma.FILTER_LZMA2, "preset": _PRESET, "dict_size": max(window, smallest)}]
    encoder = lzma.LZMACompressor(filters=chain_of_filters)
    size = 0
    for part in parts:
        size += len(encoder.compress(part))
        advance(len(part))
    return size + len(encoder.flush())
