"""Proof at length that a GGUF tokenizes as training does: given lines and generated ones, none different.

`check.py` compares a run's own rows after every conversion in a moment; this takes a hundred thousand lines.
"""

from collections.abc import Iterator, Sequence
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
_BATCH = 1000


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


def compare(
    tokenizer: Tokenizer, path: Path, given: Sequence[str] = (), *, count: int = LINES, seed: int = 0
) -> LineAgreement:
    """Compare token ids of transformers and of llama.cpp over `count` lines, the given ones first.

    Each line stands after the token that begins a text, as in a rendered prompt.

    Args:
        tokenizer: the training tokenizer.
        path: the GGUF.
        given: lines of text; all are compared, even beyond `count`.
        count: lines in all at least; generated where the given ones are fewer.
        seed: of the generated ones.

    Raises:
        MedmindError: lines differ; how many, and the first of them.
    """
    generated = max(0, count - len(given))
    pieces = [piece for piece in tokenizer.pieces() if piece]
    made = fuzz_text.lines(generated, pieces=pieces, controls=tokenizer.controls, seed=seed)
    different: list[tuple[str, list[int], list[int]]] = []
    tokens = total = 0
    with GgufVocabulary(path) as gguf, console.progress("comparing tokens", len(given) + generated, "lines") as advance:
        for batch in _batches(given, made):
            texts = [tokenizer.bos_text + line for line in batch]
            for text, ids in zip(texts, tokenizer.encode_all(texts), strict=True):
                found = gguf.tokenize(text)
                tokens += len(ids)
                total += 1
                if found != ids:
                    different.append((text, ids, found))
            advance(len(batch))
    if different:
        text, ids, found = min(different, key=lambda each: len(each[0]))
        raise MedmindError(
            f"{len(different)} of {total} lines tokenize otherwise in {path} than in transformers, the shortest "
            f"{text[:60]!r}: {found[:8]} instead of {ids[:8]}",
            "this tokenizer cannot be converted faithfully; please report it with the base model's name",
        )
    return LineAgreement(len(given), generated, tokens)


def _batches(given: Sequence[str], made: Iterator[str]) -> Iterator[list[str]]:
    for start in range(0, len(given), _BATCH):
        yield list(given[start : start + _BATCH])
    while batch := list(islice(made, _BATCH)):
        yield batch
