"""Evaluating guessed tokens together with the one before them, so that every answer stays what it is without guessing.

Knows which batches give the very bits of single tokens: a few kernels of llama.cpp do, most do not, and where they do
not another answer follows sooner or later. Knows no sampling: a guess counts when the sampler has chosen it by itself.
"""

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Literal, Protocol

from medmind_runtime.engine import attention
from medmind_runtime.engine.lookup import MOST_ROWS, ROWS, Kind, Lookup, Pace
from medmind_runtime.engine.timings import Timings

_Q8_0_FILE = "7"
_OWN_FILES = frozenset([_Q8_0_FILE, "15", "18"])
"""`general.file_type` of files in q8_0; and of these, q4_k_m and q6_k, all of whose matrices scripts/llama_few_rows.cpp
multiplies by several tokens if rows are multiples of 256 and there are no experts; source: LLAMA_FTYPE_* of llama.h."""
_ARCHITECTURES = ("llama", "qwen2")


class Evaluator(Protocol):
    """What is asked of a context; see `decoder.Decoder`."""

    def evaluate(  # noqa: D102
        self, tokens: Sequence[int], begin: int, *, first_output: int, cancel: Callable[[], bool]
    ) -> None: ...

    def cut(self, length: int) -> bool: ...  # noqa: D102

    def logits(self, row: int) -> bytes: ...  # noqa: D102


def cache_type(metadata: Mapping[str, str | int], *, built: bool) -> Literal["f16", "bf16"]:
    """How keys and values are best kept beside the weights of a file: f16, or bf16 beside q8_0 where f16 is not exact.

    Beside q8_0 weights guessed tokens gain, if attention gives them the bits of single ones; of the types with which
    llama.cpp's own does, bf16 is the fastest.

    Args:
        metadata: of the file.
        built: whether llama.cpp was built with scripts/llama_attention.cpp.
    """
    guessed = str(metadata.get("general.file_type")) == _Q8_0_FILE
    exact = attention.same_bits("f16", own=built and attention.own(metadata, "f16"))
    return "bf16" if guessed and not exact and metadata.get("general.architecture") in _ARCHITECTURES else "f16"


class Exact:
    """How many tokens may be evaluated together with the bits of single ones, as far as tried, and at what pace.

    Attributes:
        rows: tokens in one batch; 1 is no batch.
        tried: whether it is known.
        pace: of all answers together.
    """

    def __init__(self, *, hopeless: bool = False) -> None:
        self.rows = 1
        self.tried = hopeless
        self.pace = Pace()

    @classmethod
    def of(cls, metadata: Mapping[str, str], *, same_bits: bool, built: bool) -> "Exact":
        """What can be told without trying: where batches have other bits, or cost as much as one by one.

        With llama.cpp's own products only q8_0 gains: repacked weights (q4_k, q4_0) take other kernels from four rows
        on, f16 and f32 from two; the other types' bits stay alike for a few rows, which then cost nearly as much as one
        by one.

        Args:
            metadata: of the file.
            same_bits: see `attention.same_bits`.
            built: whether llama.cpp was built with scripts/llama_few_rows.cpp.
        """
        experts = metadata.get(f"{metadata.get('general.architecture')}.expert_count", "0") != "0"
        files = _OWN_FILES if built and not experts else {_Q8_0_FILE}
        return cls(hopeless=not same_bits or metadata.get("general.file_type") not in files)


class Ahead:
    """The evaluation of one answer, draft by draft.

    Args:
        context: the prompt's tokens are in it.
        given: what the answer may repeat, the prompt last; not asked before the first token, which nobody guesses.
        exact: what is known of batches; it is tried once, on the first tokens of an answer.
        timings: counts the drafts.
        cancel: as of `Decoder.evaluate`.
    """

    def __init__(
        self,
        context: Evaluator,
        given: Callable[[], Iterable[int]],
        exact: Exact,
        timings: Timings,
        cancel: Callable[[], bool],
    ) -> None:
        self._context = context
        self._exact = exact
        self._timings = timings
        self._cancel = cancel
        self._given = given
        self._hopeful = not exact.tried or exact.rows > 1
        self._lookup: Lookup | None = None
        self._pace = exact.pace
        self._singles: list[bytes] = []
        self._draft: list[int] = []
        self._kinds: list[Kind] = []
        self._taken = 0
        self._seconds = 0.0

    def row(self, sequence: Sequence[int], room: int) -> int:
        """Where the logits of what follows `sequence` lie.

        Args:
            sequence: prompt and answer; one token longer than at the last call.
            room: tokens that may still follow; no draft is longer.

        Raises:
            Interrupted, MedmindError: as `Decoder.evaluate`.
        """
        if not self._hopeful:
            self._evaluate(sequence[-1:], len(sequence) - 1)
            return 0
        self._lookup = self._lookup or Lookup(self._given())
        self._lookup.add(sequence[-1])
        if self._taken < len(self._draft) and self._draft[self._taken] == sequence[-1]:
            self._taken += 1
            self._timings.accepted += 1
            return self._taken
        self.settle(len(sequence) - 1)
        draft = self._guess(self._lookup, room)
        started = time.perf_counter()
        self._evaluate([sequence[-1], *draft], len(sequence) - 1)
        self._seconds = time.perf_counter() - started
        self._draft = draft
        self._timings.drafted += len(draft)
        if draft:
            return 0
        self._pace.single(self._seconds)
        return 0 if self._exact.tried else self._try(sequence)

    def settle(self, length: int) -> None:
        """Leave `length` tokens in the context: the rest of a draft was not what followed."""
        if not self._draft:
            return
        if self._taken < len(self._draft):
            self._context.cut(length)
        self._pace.batch(self._seconds, self._kinds, self._taken)
        self._draft, self._taken = [], 0

    def _guess(self, lookup: Lookup, room: int) -> list[int]:
        known, kinds = lookup.draft(min(self._exact.rows - 1, room))
        length = self._pace.length(kinds)
        self._kinds = kinds[:length]
        return known[:length]

    def _evaluate(self, tokens: Sequence[int], begin: int) -> None:
        self._context.evaluate(tokens, begin, first_output=begin, cancel=self._cancel)

    def _try(self, sequence: Sequence[int]) -> int:
        """Once enough tokens were evaluated singly, evaluate them again together; returns the last one's row."""
        self._singles.append(self._context.logits(0))
        if len(self._singles) < MOST_ROWS:
            return 0
        self._exact.tried = True
        end = len(sequence)
        for rows in ROWS:
            begin = end - rows
            if not self._context.cut(begin):
                return self._exact.rows - 1
            try:
                self._evaluate(sequence[begin:], begin)
                if [self._context.logits(row) for row in range(rows)] != self._singles[-rows:]:
                    self._context.cut(begin)
                    for place in range(begin, end):
                        self._evaluate(sequence[place : place + 1], place)
                    return 0
            except BaseException:
                self._context.cut(begin)
                raise
            self._exact.rows = rows
        return self._exact.rows - 1
