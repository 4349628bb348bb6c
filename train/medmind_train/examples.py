"""Encoded examples: one as a value, many as flat arrays that may lie in a mapped file. Knows no tokenizer."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Example:
    """One prompt and its answer.

    Attributes:
        row: id of the row it comes from.
        ids: token ids, prompt first; at most `context` of them.
        answer: position of the answer's first token, at least 1; everything from there on is supervised.
        complete: whether the answer is whole, and so ends with EOS.
    """

    row: str
    ids: tuple[int, ...]
    answer: int
    complete: bool


@dataclass(frozen=True)
class Arrays:
    """Many examples, one behind the other.

    Attributes:
        ids: `[tokens]` int32.
        bounds: `[examples + 1]` int64; example i has the ids from `bounds[i]` to `bounds[i + 1]`.
        answers: `[examples]` int32.
        complete: `[examples]` uint8.
        rows: `[examples]` int32, places in `names`.
        names: ids of the rows.
    """

    ids: NDArray[np.int32]
    bounds: NDArray[np.int64]
    answers: NDArray[np.int32]
    complete: NDArray[np.uint8]
    rows: NDArray[np.int32]
    names: tuple[str, ...]


class Examples(Sequence[Example]):
    """A sequence of examples that makes each one when it is asked for: millions of Python integers are never held."""

    def __init__(self, arrays: Arrays) -> None:
        self.arrays = arrays

    @classmethod
    def of(cls, examples: Iterable[Example]) -> "Examples":
        """Put examples into arrays."""
        names: dict[str, int] = {}
        ids: list[NDArray[np.int32]] = [np.zeros(0, np.int32)]
        rows, answers, complete, bounds = [], [], [], [0]
        for example in examples:
            ids.append(np.array(example.ids, np.int32))
            bounds.append(bounds[-1] + len(example.ids))
            rows.append(names.setdefault(example.row, len(names)))
            answers.append(example.answer)
            complete.append(example.complete)
        return cls(
            Arrays(
                ids=np.concatenate(ids),
                bounds=np.array(bounds, np.int64),
                answers=np.array(answers, np.int32),
                complete=np.array(complete, np.uint8),
                rows=np.array(rows, np.int32),
                names=tuple(names),
            )
        )

    @property
    def lengths(self) -> list[int]:
        """Tokens of each example."""
        lengths: list[int] = np.diff(self.arrays.bounds).tolist()
        return lengths

    @property
    def tokens(self) -> int:
        """Tokens of all examples."""
        return len(self.arrays.ids)

    @property
    def supervised(self) -> int:
        """Tokens that the loss is over."""
        return self.tokens - int(self.arrays.answers.sum(dtype=np.int64))

    def __len__(self) -> int:
        return len(self.arrays.answers)

    @overload
    def __getitem__(self, at: int) -> Example: ...
    @overload
    def __getitem__(self, at: slice) -> list[Example]: ...
    def __getitem__(self, at: int | slice) -> Example | list[Example]:
        if isinstance(at, slice):
            return [self._one(place) for place in range(*at.indices(len(self)))]
        if not -len(self) <= at < len(self):
            raise IndexError(at)
        return self._one(at % len(self))

    def __iter__(self) -> Iterator[Example]:
        return (self._one(place) for place in range(len(self)))

    def __eq__(self, other: Any) -> bool:
        return isinstance(other, Examples) and list(self) == list(other)

    __hash__ = None  # type: ignore[assignment]

    def _one(self, at: int) -> Example:
        arrays = self.arrays
        ids = arrays.ids[arrays.bounds[at] : arrays.bounds[at + 1]]
        return Example(
            arrays.names[arrays.rows[at]], tuple(ids.tolist()), int(arrays.answers[at]), bool(arrays.complete[at])
        )
