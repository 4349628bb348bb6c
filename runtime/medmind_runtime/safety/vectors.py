"""What words mean, as vectors, and what a text means: the weighted mean of its words, in whole numbers throughout.

Knows the file of vectors (scripts/make_word_vectors.py). Knows nothing of emergencies.
"""

import json
import mmap
from collections.abc import Iterable, Mapping, Sequence
from itertools import repeat
from math import isqrt
from operator import add, mul, sub
from pathlib import Path

PLAIN = 127
"""Weight of a word that stands in hardly any text."""
_UNIT, _LARGEST = 4096, 127


class Vectors:
    """The vectors of words.

    Args:
        path: of word_vectors.bin: a line of JSON, a line of words, an 8-bit vector for each word.
    """

    def __init__(self, path: Path) -> None:
        with path.open("rb") as file:
            self._bytes = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
            self._size: int = json.loads(file.readline())["size"]
            self._places = {word: place for place, word in enumerate(file.readline().decode().split())}
            self._numbers = self._bytes[file.tell() :].cast("b")

    def text(
        self, words: Iterable[str], weights: Mapping[str, int], centre: Sequence[int] | None = None
    ) -> tuple[int, ...]:
        """The vector of a text; empty where no word of it is known, or it lies where the centre does.

        Args:
            words: as they stand in the text.
            weights: of the commoner words, at most `PLAIN`; all others weigh that.
            centre: what is taken from the text's unit vector before it is scaled to 8 bits; None gives the unit vector
                itself, in 4096ths.
        """
        total: Sequence[int] = [0] * self._size
        for word in words:
            place = self._places.get(word)
            if place is not None:
                vector = self._numbers[place * self._size : (place + 1) * self._size]
                total = list(map(add, total, map(mul, vector, repeat(weights.get(word, PLAIN)))))
        unit = _scaled(total, _UNIT)
        return unit if centre is None else _scaled(list(map(sub, unit, centre)), _LARGEST)


def _scaled(vector: Sequence[int], length: int) -> tuple[int, ...]:
    """The vector with that length, rounded to whole numbers; empty for one of length 0."""
    squares = sum(map(mul, vector, vector))
    if not squares:
        return ()
    long = isqrt(squares << 16)  # 256 times as long, so that what is rounded away does not matter
    return tuple((number * length * 512 // long + 1) >> 1 for number in vector)
