"""An interpolated Kneser-Ney trigram model over token ids, counted and asked by whole arrays.

Knows ids and counts; nothing of text or bytes.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

ORDER = 3
_NO_SINGLES = 0.5
"""Discount of a level where no n-gram counts once: the estimate would be 0, and unseen words impossible."""


@dataclass(frozen=True)
class _Level:
    """The counts of one order, n-grams and histories as numbers in the base of the vocabulary, sorted.

    Attributes:
        grams, counts: each n-gram, and how often it counts.
        histories, totals, kinds: each history, the sum of the counts after it, and how many words follow it.
        discount: taken off every count, D = n1 / (n1 + 2 n2).
    """

    grams: "NDArray[np.int64]"
    counts: "NDArray[np.int64]"
    histories: "NDArray[np.int64]"
    totals: "NDArray[np.int64]"
    kinds: "NDArray[np.int64]"
    discount: float

    def interpolated(
        self, history: "NDArray[np.int64]", gram: "NDArray[np.int64]", lower: "NDArray[np.float64]"
    ) -> "NDArray[np.float64]":
        """Probabilities of this order, where `lower` are those of the order below; equal where no history is known."""
        total = _looked_up(self.histories, self.totals, history)
        kinds = _looked_up(self.histories, self.kinds, history)
        known = np.maximum(_looked_up(self.grams, self.counts, gram) - self.discount, 0.0)
        divisor = np.maximum(total, 1)
        return np.where(total > 0, known / divisor + self.discount * kinds / divisor * lower, lower)


class Trigrams:
    """P(word | two words before), from a stream of documents `<s> … </s>`.

    The highest order counts occurrences, the lower ones in how many different words' company an n-gram occurs; below
    the unigrams stands the uniform distribution over the vocabulary, so that nothing is impossible. `<s>` is not
    predicted, and stands twice before the first word of a document. Source: Chen and Goodman, An Empirical Study of
    Smoothing Techniques for Language Modeling (1998), section 2.7, in its interpolated form (section 4.1.6's `iKN`).

    Args:
        ids: shape (tokens,), the documents end to end, each beginning with `bos`.
        bos: id of `<s>`.
        vocabulary: number of ids; at most 2**21, so that a trigram is one 64-bit number.
        advance: called once for every order that has been counted.
    """

    def __init__(
        self, ids: "NDArray[np.generic]", bos: int, vocabulary: int, advance: "Callable[[], object]" = lambda: None
    ) -> None:
        if vocabulary > 1 << 21:
            raise ValueError(f"{vocabulary} ids are too many for trigrams in 64 bits")
        self.bos, self.vocabulary = bos, vocabulary
        older, old, words = self._positions(ids)
        grams = older
        for part in (old, words):
            grams *= vocabulary
            grams += part
        del older, old, words, part
        levels = []
        for order in range(ORDER, 0, -1):
            unique, counts = _counted(grams)
            levels.append(_level(unique, counts, vocabulary))
            grams = unique % vocabulary ** (order - 1)
            advance()
        self.levels = tuple(reversed(levels))

    def probabilities(
        self, older: "NDArray[np.int64]", old: "NDArray[np.int64]", words: "NDArray[np.int64]"
    ) -> "NDArray[np.float64]":
        """P(words | older old), all of shape (n,); ids of the vocabulary."""
        histories = (np.zeros_like(old), old, older * self.vocabulary + old)
        found = np.full(len(words), 1.0 / self.vocabulary)
        for level, history in zip(self.levels, histories, strict=True):
            found = level.interpolated(history, history * self.vocabulary + words, found)
        return found

    def bits(self, ids: "NDArray[np.generic]") -> "NDArray[np.float64]":
        """Bits that each id of a stream of documents costs, shape (tokens,); 0 for every `<s>`."""
        found = np.zeros(len(ids))
        found[np.flatnonzero(np.asarray(ids) != self.bos)] = -np.log2(self.probabilities(*self._positions(ids)))
        return found

    def _positions(
        self, ids: "NDArray[np.generic]"
    ) -> "tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]":
        """Every predicted id with the two before it."""
        stream = np.asarray(ids)
        places = np.flatnonzero(stream != self.bos)
        if len(stream) and stream[0] != self.bos:
            raise ValueError("the stream does not begin with <s>")
        old = stream[places - 1].astype(np.int64)
        older = np.where(old == self.bos, self.bos, stream[places - 2]).astype(np.int64)
        return older, old, stream[places].astype(np.int64)


def _level(grams: "NDArray[np.int64]", counts: "NDArray[np.int64]", vocabulary: int) -> _Level:
    of = grams // vocabulary
    starts = _starts(of)
    ones, twos = int((counts == 1).sum()), int((counts == 2).sum())
    return _Level(
        grams=grams,
        counts=counts,
        histories=of[starts],
        totals=np.add.reduceat(counts, starts),
        kinds=np.diff(starts, append=len(of)),
        discount=ones / (ones + 2 * twos) if ones else _NO_SINGLES,
    )


def _counted(numbers: "NDArray[np.int64]") -> "tuple[NDArray[np.int64], NDArray[np.int64]]":
    """The different numbers in order, and how often each occurs; sorts `numbers` in place."""
    numbers.sort()
    starts = _starts(numbers)
    return numbers[starts], np.diff(starts, append=len(numbers))


def _starts(ordered: "NDArray[np.int64]") -> "NDArray[np.int64]":
    """Where each run of equal numbers begins."""
    return np.flatnonzero(np.concatenate([[True], ordered[1:] != ordered[:-1]]))


def _looked_up(
    keys: "NDArray[np.int64]", values: "NDArray[np.int64]", wanted: "NDArray[np.int64]"
) -> "NDArray[np.int64]":
    """The values of `wanted` among the sorted `keys`, 0 where there is none."""
    places = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
    return np.where(keys[places] == wanted, values[places], 0)
