"""Which texts are near-duplicates: MinHash finds candidates, their exact Jaccard similarity decides. Knows no rows.

MinHash: Broder 1997; the banded index: Leskovec, Rajaraman & Ullman, Mining of Massive Datasets, 3.4; by datasketch.
"""

from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from medmind.console import require
from medmind_train.data.ngrams import Grams

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

SIMILAR = 0.8
"""Jaccard similarity from which on two texts are near-duplicates."""
BANDS, BAND = 25, 5
"""A pair of similarity s is a candidate with probability 1 - (1 - s^5)^25: 0.99995 at 0.8, 0.55 at 0.5."""


class Forest:
    """Disjoint sets of the numbers below `size`, joined one pair at a time (union-find with path halving)."""

    def __init__(self, size: int) -> None:
        self._above = list(range(size))

    def find(self, member: int) -> int:
        """The number that stands for the set of `member`."""
        above = self._above
        while above[member] != member:
            above[member] = above[above[member]]
            member = above[member]
        return member

    def join(self, one: int, other: int) -> bool:
        """Make one set of two; false if they were one already."""
        one, other = self.find(one), self.find(other)
        self._above[max(one, other)] = min(one, other)
        return one != other


def jaccard(one: "NDArray[np.uint64]", other: "NDArray[np.uint64]") -> float:
    """Shared grams ÷ all grams of two sets, both ascending and not empty."""
    import numpy as np

    small, large = sorted((one, other), key=len)
    at = np.searchsorted(large, small)
    at[at == len(large)] = 0
    shared = int(np.count_nonzero(large[at] == small))
    return shared / (len(one) + len(other) - shared)


def join_near(grams: Grams, forest: Forest, *, shortest: int = 1, similar: float = SIMILAR) -> list[tuple[int, int]]:
    """Join in `forest` all texts that are near-duplicates, leaving out those of fewer than `shortest` grams.

    Returns the pairs that joined two sets: enough to connect what is connected, not all similar pairs (the others need
    no comparing, which is what keeps thousands of copies of one text from taking quadratic time in comparisons).
    """
    sets = grams.sets()
    index = _index()
    joined: list[tuple[int, int]] = []
    for text, sketch in _sketches(sets, (text for text in range(len(sets)) if len(sets[text]) >= shortest)):
        for other in sorted(index.query(sketch)):
            together = forest.find(text) == forest.find(other)
            if not together and jaccard(sets[text], sets[other]) >= similar:
                forest.join(text, other)
                joined.append((other, text))
        index.insert(text, sketch, check_duplication=False)
    return joined


class Twins:
    """The near-duplicates among texts, asked for one text and one set of others at a time."""

    def __init__(self, grams: Grams, *, shortest: int = 1) -> None:
        self._sets = grams.sets()
        self._index = _index()
        long = (text for text in range(len(self._sets)) if len(self._sets[text]) >= shortest)
        self._sketches = dict(_sketches(self._sets, long))
        for text, sketch in self._sketches.items():
            self._index.insert(text, sketch, check_duplication=False)

    def has(self, text: int, among: Collection[int]) -> bool:
        """Whether a near-duplicate of `text` is `among` the others; false for a text that is too short."""
        if text not in self._sketches:
            return False
        own = self._sets[text]
        return any(
            jaccard(own, self._sets[other]) >= SIMILAR
            for other in self._index.query(self._sketches[text])
            if other != text and other in among and SIMILAR <= len(own) / len(self._sets[other]) <= 1 / SIMILAR
        )


def _index() -> Any:
    return require("datasketch", "train").MinHashLSH(num_perm=BANDS * BAND, params=(BANDS, BAND))


def _sketches(sets: "Sequence[NDArray[np.uint64]]", texts: Iterable[int]) -> Iterator[tuple[int, Any]]:
    """The MinHash of each of `texts`, from the high halves of its 64-bit hashes."""
    empty = require("datasketch", "train").MinHash(num_perm=BANDS * BAND, seed=1, hashfunc=int)
    for text in texts:
        sketch = empty.copy()
        sketch.update_batch((sets[text] >> 32).tolist())
        yield text, sketch
