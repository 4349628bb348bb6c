"""Texts as sets of hashed word n-grams, many texts at once in numpy. Knows words and hashes, not what they are for.

A word's hash hangs on the word alone (BLAKE2b, 64 bits), so the sets are the same in every process and row order. Two
different n-grams share a 64-bit hash once in some 10^6 data sets of MedQuAD's size.
"""

import hashlib
import itertools
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from medmind.console import require

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_WORD = re.compile(r"\w+")
_MIX = 0x9E3779B97F4A7C15
"""2^64 divided by the golden ratio: the odd multiplier of Fibonacci hashing (Knuth, TAOCP 3, 6.4)."""


@dataclass(frozen=True)
class Grams:
    """The distinct n-grams of each text.

    Attributes:
        hashes: shape (grams,), all texts behind each other, ascending and distinct within a text.
        texts: shape (grams,), the index of the text that each gram stands in.
        sizes: shape (texts,), the number of distinct grams of each text.
    """

    hashes: "NDArray[np.uint64]"
    texts: "NDArray[np.int64]"
    sizes: "NDArray[np.int64]"

    def sets(self) -> "list[NDArray[np.uint64]]":
        """One array of hashes for each text (views)."""
        import numpy as np

        return np.split(self.hashes, np.cumsum(self.sizes)[:-1]) if len(self.sizes) else []

    def where(self, keep: "NDArray[np.bool_]") -> "Grams":
        """The grams for which `keep` (shape (grams,)) is true; the texts stay, some perhaps empty."""
        import numpy as np

        texts = self.texts[keep]
        return Grams(self.hashes[keep], texts, np.bincount(texts, minlength=len(self.sizes)))


class Words:
    """The words of texts: case, punctuation and spacing do not count."""

    def __init__(self, texts: Sequence[str]) -> None:
        require("numpy", "train")
        import numpy as np

        numbers: dict[str, int] = {}
        found = [[numbers.setdefault(word, len(numbers)) for word in _WORD.findall(text.casefold())] for text in texts]
        table = np.frombuffer(
            b"".join(hashlib.blake2b(word.encode("utf-8", "replace"), digest_size=8).digest() for word in numbers),
            dtype="<u8",
        ).astype(np.uint64)
        self.lengths: NDArray[np.int64] = np.array([len(words) for words in found], dtype=np.int64)
        """Shape (texts,): words in each."""
        flat = np.fromiter(itertools.chain.from_iterable(found), np.int64, int(self.lengths.sum()))
        self._words: NDArray[np.uint64] = table[flat] if len(flat) else np.zeros(0, dtype=np.uint64)

    def grams(self, n: int, *, whole: bool = False) -> Grams:
        """The distinct runs of `n` words of every text.

        A text of fewer words has none, or with `whole` one: all its words.
        """
        import numpy as np

        hashes = self._runs(np.arange(max(len(self._words) - n + 1, 0)), n)
        texts = np.repeat(np.arange(len(self.lengths)), self.lengths)[: len(hashes)]
        ends = np.cumsum(self.lengths)
        within = np.arange(len(hashes)) + n <= ends[texts]
        hashes, texts = hashes[within], texts[within]
        if whole:
            for length in range(1, n):
                short = np.flatnonzero(self.lengths == length)
                hashes = np.concatenate([hashes, self._runs(ends[short] - length, length)])
                texts = np.concatenate([texts, short])
            order = np.argsort(texts, kind="stable")
            hashes, texts = hashes[order], texts[order]
        for own in np.split(hashes, np.cumsum(np.bincount(texts, minlength=len(self.lengths)))[:-1]):
            own.sort()  # in place, each a view: half the time of one sort over all
        first = np.ones(len(hashes), dtype=bool)
        first[1:] = (hashes[1:] != hashes[:-1]) | (texts[1:] != texts[:-1])
        texts = texts[first]
        return Grams(hashes[first], texts, np.bincount(texts, minlength=len(self.lengths)))

    def _runs(self, starts: "NDArray[np.int64]", n: int) -> "NDArray[np.uint64]":
        """The hashes of the `n` words from each of `starts` on."""
        import numpy as np

        hashes = np.full(len(starts), n, dtype=np.uint64)
        for place in range(n):
            hashes = hashes * np.uint64(_MIX) + self._words[starts + place]
        hashes ^= hashes >> np.uint64(29)
        hashes *= np.uint64(_MIX)
        hashes ^= hashes >> np.uint64(32)
        return hashes
