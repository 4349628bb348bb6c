"""The cell that writes a reference's log-probabilities to a file, where two models do not fit in memory at once.

Knows engines and files; the bytes of a row are in `row_codec`. Raw text becomes a file for llama-perplexity's
--kl-divergence-base; held-out answers become the same rows without its head.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from medmind.artifacts import atomic_file
from medmind_benchmarks import row_codec, texts
from medmind_benchmarks.cell import Advance
from medmind_benchmarks.opening import opened


@dataclass(frozen=True)
class Request:
    """What to write.

    Attributes:
        model: the reference's GGUF.
        text: file of `texts`.
        chunked: whether the text is raw, in chunks, and the file gets llama.cpp's head.
        file: what to write.
        threads: compute threads.
    """

    kind: Literal["log-probs"]
    model: str
    text: str
    chunked: bool
    file: str
    threads: int


@dataclass(frozen=True)
class Result:
    """Where the rows begin in the file, and its size, bytes."""

    offset: int
    size: int


def measure(request: Request, advance: Advance) -> Result:
    """Write the file; it appears when it is whole. `advance` is called after every group.

    Raises:
        MedmindError: the model cannot be loaded.
    """
    text = texts.read(Path(request.text))
    with (
        opened(Path(request.model), context=text.context, threads=request.threads) as engine,
        atomic_file(Path(request.file)) as place,
        place.open("wb") as file,
    ):
        if request.chunked:
            tokens = np.array([group[0].tokens for group in text.groups], dtype=np.int32)
            row_codec.write_head(file, text.context, len(engine.vocabulary), tokens)
        offset = file.tell()
        for group in text.groups:
            for example in group:
                for logits in engine.logit_blocks(example.tokens, example.start):
                    file.write(row_codec.encode(logits).tobytes())
            advance()
        size = file.tell()
    return Result(offset, size)


def size(text: texts.Text, vocabulary: int) -> int:
    """Bytes such a file takes."""
    return sum(text.tokens) * row_codec.row_words(vocabulary) * 2 + 4 * text.work + 20
