"""Proof at length that a GGUF tokenizes as training does: given lines and generated ones, none different.

`check.py` compares a run's own rows after every conversion in a moment; this takes a hundred thousand lines.
"""

import os
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from medmind import console
from medmind.errors import MedmindError
from medmind_convert import fuzz_text
from medmind_convert.gguf_vocabulary import GgufVocabulary
from medmind_convert.tokenizer import Tokenizer

LINES = 100_000
"""Lines compared unless it is said otherwise."""
_BATCH = 500


@dataclass(frozen=True)
class LineAgreement:
    """What was compared, all of it equal.

    Attributes:
        given: lines of text that were given.
        generated: lines made for it.
        tokens: token ids in all of them.
    """

    given: int
    generated: int
    tokens: int


@dataclass(frozen=True)
class _Difference:
    """A line that transformers turns into `ids` and llama.cpp into `found`."""

    text: str
    ids: list[int]
    found: list[int]


def compare(
    tokenizer: Tokenizer, path: Path, given: Sequence[str] = (), *, count: int = LINES, seed: int = 0
) -> LineAgreement:
    """Compare token ids of transformers and of llama.cpp over `count` lines, the given ones first.

    Each line stands after the token that begins a text, as in a rendered prompt. Lines are made while others are
    compared, by as many threads as there are cores; a few batches are in memory.

    Args:
        tokenizer: the training tokenizer.
        path: the GGUF.
        given: lines of text; all are compared, even beyond `count`.
        count: lines in all at least; generated where the given ones are fewer.
        seed: of the generated ones.

    Raises:
        MedmindError: lines differ; how many, and the shortest of them.
    """
    generated = max(0, count - len(given))
    total = len(given) + generated
    pieces = [piece for piece in tokenizer.pieces() if piece]
    made = fuzz_text.lines(generated, pieces=pieces, controls=tokenizer.controls, seed=seed)
    different, tokens, threads = 0, 0, os.cpu_count() or 1
    shortest: _Difference | None = None
    waiting: deque[tuple[int, Future[tuple[int, list[_Difference]]]]] = deque()
    with (
        GgufVocabulary(path) as gguf,
        ThreadPoolExecutor(threads, thread_name_prefix="tokenize") as pool,
        console.progress("comparing tokens", total, "lines") as advance,
    ):

        def take() -> None:
            nonlocal different, tokens, shortest
            lines, future = waiting.popleft()
            found, bad = future.result()
            tokens += found
            different += len(bad)
            shortest = min([*bad, *([shortest] if shortest else [])], key=lambda each: len(each.text), default=None)
            advance(lines)

        try:
            for batch in _batches(given, made):
                waiting.append((len(batch), pool.submit(_compare, tokenizer, gguf, batch)))
                if len(waiting) > 2 * threads:
                    take()
            while waiting:
                take()
        except BaseException:
            pool.shutdown(wait=True, cancel_futures=True)
            raise
    if shortest is not None:
        raise MedmindError(
            f"{different} of {total} lines tokenize otherwise in {path} than in transformers, the shortest "
            f"{shortest.text[:60]!r}: {shortest.found[:8]} instead of {shortest.ids[:8]}",
            "this tokenizer cannot be converted faithfully; please report it with the base model's name",
        )
    return LineAgreement(len(given), generated, tokens)


def _compare(tokenizer: Tokenizer, gguf: GgufVocabulary, batch: Sequence[str]) -> tuple[int, list[_Difference]]:
    """Tokens in a batch of lines, and the lines that differ."""
    texts = [tokenizer.bos_text + line for line in batch]
    tokens, bad = 0, []
    for text, ids in zip(texts, tokenizer.encode_all(texts), strict=True):
        found = gguf.tokenize(text)
        tokens += len(ids)
        if found != ids:
            bad.append(_Difference(text, ids, found))
    return tokens, bad


def _batches(given: Sequence[str], made: Iterator[str]) -> Iterator[list[str]]:
    for start in range(0, len(given), _BATCH):
        yield list(given[start : start + _BATCH])
    while batch := list(islice(made, _BATCH)):
        yield batch
