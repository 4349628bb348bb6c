"""How texts were judged that mean about the same: the nearest of those that the weights were fitted to, by their words.

Knows the file of their vectors, written by scripts/fit_leaning.py. Hears a cry in words that stand in none of them.
"""

import json
import math
import sys
from array import array
from collections.abc import Iterable, Mapping, Sequence
from functools import cache, lru_cache
from heapq import nlargest
from itertools import accumulate, pairwise
from operator import mul
from pathlib import Path
from typing import Any

from medmind_runtime.safety.leaning import DOUBT
from medmind_runtime.safety.vectors import Vectors

KINDS = ("everyday", "emergency", "self_harm", "none")
"""The order in which the texts stand: those of each question of `leaning.WEIGHED` lie side by side."""
ASKED: tuple[tuple[slice, tuple[str, ...]], ...] = (
    (slice(0, 3), ("emergency", "self_harm")),
    (slice(1, 4), ("emergency", "self_harm")),
    (slice(1, 4), ("self_harm",)),
)
"""Of each of `leaning.WEIGHED`: the kinds of text that are asked, and those of them that speak for it."""
NEAREST, POWER = 32, 8
"""Texts that are asked; a text's say is its cosine to that power."""
_LANE = 4
"""Bytes of one sum in a row of them."""


class Neighbours:
    """The texts.

    Args:
        vectors: of words.
        content: of neighbours.bin: a line of JSON, then of each dimension the texts' numbers, each 128 higher.
    """

    def __init__(self, vectors: Vectors, content: bytes) -> None:
        line, _, numbers = content.partition(b"\n")
        head: Mapping[str, Any] = json.loads(line)
        self._vectors = vectors
        self._weights = {word: int(weight) for weight, words in head["weights"].items() for word in words.split()}
        self._centre: Sequence[int] = head["centre"]
        self._ends = list(accumulate((head["texts"][kind] for kind in KINDS), initial=0))
        self._count = self._ends[-1]
        # One number holds a dimension of all texts, in lanes of 32 bits: a product with it is a product with each.
        self._rows = [_lanes(numbers[at : at + self._count]) for at in range(0, len(numbers), self._count)]
        self._level = 2 * 128 * 127 * len(self._rows)  # lifts every sum above zero: no lane borrows from the next
        self._lift = _lanes(b"\1" * self._count) * self._level - sum(self._rows) * 127
        self._known = lru_cache(maxsize=512)(self._told)

    def odds(self, words: Iterable[str]) -> tuple[float, ...]:
        """What the neighbours of a text add to the log-odds of `WEIGHED`, at most `REACH` either way (leaning.py)."""
        return self._known(self._vectors.text(words, self._weights, self._centre))

    def _told(self, vector: tuple[int, ...]) -> tuple[float, ...]:
        if not vector:
            return (0.0,) * len(ASKED)
        near = self.nearest(vector)
        return tuple(share(near[asked], KINDS[asked], speaking) for asked, speaking in ASKED)

    def nearest(self, vector: Sequence[int]) -> list[list[int]]:
        """The largest products of a text's vector with those of each kind."""
        total = sum(map(mul, self._rows, [number + 127 for number in vector])) + self._lift
        lanes = array("I", total.to_bytes(self._count * _LANE, "little"))
        if sys.byteorder == "big":
            lanes.byteswap()
        level = self._level + 128 * sum(vector)
        return [[lane - level for lane in nlargest(NEAREST, lanes[one:other])] for one, other in pairwise(self._ends)]


def share(near: Sequence[Sequence[int]], kinds: Sequence[str], speaking: Sequence[str]) -> float:
    """Log-odds by what the nearest texts of some kinds say.

    Args:
        near: products with texts of each of the kinds.
        kinds: that are asked.
        speaking: those of them that speak for it.
    """
    ranked = [(value, kind in speaking) for values, kind in zip(near, kinds, strict=True) for value in values]
    says = [(max(value, 0) ** POWER, speaks) for value, speaks in nlargest(NEAREST, ranked)]
    part = sum(say for say, speaks in says if speaks) / (sum(say for say, _ in says) or 1)
    return math.log((part + DOUBT) / (1 - part + DOUBT))


def _lanes(numbers: bytes) -> int:
    spread = bytearray(len(numbers) * _LANE)
    spread[::_LANE] = numbers
    return int.from_bytes(spread, "little")


def load(folder: Path) -> Neighbours:
    """Those of a folder that holds word_vectors.bin and neighbours.bin."""
    return Neighbours(Vectors(folder / "word_vectors.bin"), (folder / "neighbours.bin").read_bytes())


@cache
def neighbours() -> Neighbours:
    """Those that medmind carries."""
    return load(Path(__file__).parent)
