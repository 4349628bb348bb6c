"""The cell that scores a text: log-likelihoods under one model, and how far its distributions are from a reference's.

Knows engines and token ids; the sums over vocabularies are in `divergence`. Needs memory for a few rows of logits, not
for those of the text.
"""

import math
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np

from medmind.errors import MedmindError
from medmind_benchmarks import row_codec, texts
from medmind_benchmarks.cell import Advance
from medmind_benchmarks.divergence import Comparison, log_softmax
from medmind_benchmarks.examples import Example
from medmind_benchmarks.figures import Fidelity
from medmind_benchmarks.opening import opened
from medmind_runtime.config import KvType
from medmind_runtime.engine.engine import Engine

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Rows = Callable[[Example], Iterator[NDArray[np.float64]]]

BLOCK = 64
"""Rows that an engine yields at once."""
_CELLS = 2**19
"""Numbers of a block that are worked on at once: 4 MiB in float64."""


@dataclass(frozen=True)
class Request:
    """What to score.

    Attributes:
        model: the GGUF.
        kv_type: of its KV cache; the reference's is f16.
        reference: the GGUF to compare with, run beside the model; empty for none.
        reference_rows, offset: or a file with its encoded log-probabilities, and where they begin in it.
        text: file of `texts`.
        threads: compute threads.
    """

    kind: Literal["score"]
    model: str
    kv_type: KvType
    reference: str
    reference_rows: str
    offset: int
    text: str
    threads: int


@dataclass(frozen=True)
class Result:
    """What the model makes of the text.

    Attributes:
        nll, reference_nll: negative log-likelihood in nats, summed over each group; the latter empty without reference.
        squares: squares of the single tokens' nats, summed over all.
        tokens: scored, of each group.
        kl: summed over each group; empty without reference.
        fidelity: None without reference.
        seconds: the models' loading left out.
    """

    nll: tuple[float, ...]
    reference_nll: tuple[float, ...]
    squares: float
    tokens: tuple[int, ...]
    kl: tuple[float, ...]
    fidelity: Fidelity | None
    seconds: float


def measure(request: Request, advance: Advance) -> Result:
    """Score a text; `advance` is called after every group.

    Raises:
        MedmindError: a model that cannot be loaded or gives no numbers; a reference with another vocabulary.
    """
    text = texts.read(Path(request.text))
    with ExitStack() as stack:

        def entered(path: str, kv_type: KvType) -> Engine:
            engine = opened(Path(path), context=text.context, threads=request.threads, kv_type=kv_type)
            return stack.enter_context(engine)

        engine = entered(request.model, request.kv_type)
        theirs: Rows | None = None
        if request.reference:
            beside = entered(request.reference, "f16")
            if len(beside.vocabulary) != len(engine.vocabulary):
                raise MedmindError(
                    f"the vocabularies have {len(engine.vocabulary)} and {len(beside.vocabulary)} tokens",
                    "compare files of one model",
                )
            theirs = _beside(beside)
        elif request.reference_rows:
            theirs = _stored(text, Path(request.reference_rows), request.offset, len(engine.vocabulary))
        return compare(text, engine, theirs, "direct" if request.reference else "base-file", advance)


def compare(
    text: texts.Text,
    engine: Engine,
    theirs: "Rows | None",
    method: Literal["direct", "base-file"],
    advance: Advance,
) -> Result:
    """Score a text with an engine, against the rows that `theirs` gives for each example, cut as `row_counts` has it.

    Raises:
        MedmindError: the model gives no numbers.
    """
    began = time.perf_counter()
    comparison = Comparison(method)
    nll, reference_nll, squares = [], [], 0.0
    for number, group in enumerate(text.groups):
        own, other = 0.0, 0.0
        for example in group:
            targets = np.array(example.tokens[example.start :])
            reference = theirs(example) if theirs else None
            for rows, picked in blocks(engine, example):
                there = targets[picked]
                place = np.arange(len(there))
                found = rows[place, there]
                own -= float(found.sum())
                squares += float((found**2).sum())
                if reference:
                    base = next(reference)
                    other -= float(base[place, there].sum())
                    comparison.add(number, base, rows, there)
        if not math.isfinite(own):
            raise MedmindError(f"the model gives a probability of zero or not-a-number in part {number + 1}")
        nll.append(own)
        reference_nll.append(other)
        advance()
    return Result(
        nll=tuple(nll),
        reference_nll=tuple(reference_nll) if theirs else (),
        squares=squares,
        tokens=text.tokens,
        kl=comparison.sums(len(text.groups)) if theirs else (),
        fidelity=comparison.fidelity() if theirs else None,
        seconds=time.perf_counter() - began,
    )


def blocks(engine: Engine, example: Example) -> "Iterator[tuple[NDArray[np.float64], slice]]":
    """Log-probabilities of an example's scored tokens, and which of them each block holds."""
    at = 0
    for logits in engine.logit_blocks(example.tokens, example.start):
        for part in _parts(len(logits), logits.shape[1]):
            rows = log_softmax(logits[part])
            yield rows, slice(at, at + len(rows))
            at += len(rows)


def _parts(rows: int, vocabulary: int) -> Iterator[slice]:
    """The rows of a block, as many at once as `_CELLS` allows; the same for an engine and for stored rows."""
    step = max(1, _CELLS // vocabulary)
    for begin in range(0, rows, step):
        yield slice(begin, min(begin + step, rows))


def _beside(engine: Engine) -> "Rows":
    return lambda example: (rows for rows, _ in blocks(engine, example))


def _stored(text: texts.Text, path: Path, offset: int, vocabulary: int) -> "Rows":
    """Rows out of a file, in the text's order and in an engine's blocks."""
    counts = [count for group in text.groups for example in group for count in row_counts(example, vocabulary)]
    stream = row_codec.read_rows(path, offset, counts, vocabulary)

    def rows(_: Example) -> "Iterator[NDArray[np.float64]]":
        for encoded in stream:
            yield row_codec.decode(encoded, vocabulary)

    return rows


def row_counts(example: Example, vocabulary: int) -> list[int]:
    """How many rows of an example are worked on at once, time after time."""
    return [part.stop - part.start for block in block_sizes(example) for part in _parts(block, vocabulary)]


def block_sizes(example: Example) -> list[int]:
    """How many rows each block of an engine has for an example."""
    scored = len(example.tokens) - example.start
    return [min(BLOCK, scored - begin) for begin in range(0, scored, BLOCK)]
