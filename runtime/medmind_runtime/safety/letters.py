"""Words typed letter by letter, "d i e": joined where the letters spell known words, left as they are otherwise.

Knows a vocabulary, and no meaning.
"""

import re
from collections.abc import Iterable
from itertools import groupby

_RUN = re.compile(r"(?<!\S)[^\W\d_](?:[^\S\n]+[^\W\d_]){2,}(?![^\s.,;:!?])")
"""Three single letters or more, with nothing but spaces between them."""
_GAP = re.compile(r"\s{2,}")
_ALONE = frozenset("ai")
_SHORT = 2
"""Letters of words that names may hold by chance ("vitamins a b e"): half of a run without gaps spells longer ones."""


class Letters:
    """Reads runs of single letters.

    Args:
        vocabulary: words that they may spell, in lower case.
    """

    def __init__(self, vocabulary: Iterable[str]) -> None:
        self._known = _ALONE | {word for word in vocabulary if len(word) > 1 and word.isalpha()}
        self._longest = max(map(len, self._known))

    def joined(self, text: str) -> str:
        """A plain text whose runs of single letters are the words that they spell."""
        return _RUN.sub(self._read, text)

    def _read(self, run: re.Match[str]) -> str:
        pieces = ["".join(piece.split()) for piece in _GAP.split(run.group())]
        if max(map(len, pieces)) == 1:  # every letter stands apart as far
            pieces = ["".join(pieces)]
        spelt = [self._spelt(piece) for piece in pieces]
        long = sum(len(word) for words in spelt for word in words if len(word) > _SHORT and word in self._known)
        if len(pieces) > 1 and long:  # gaps part words: what stands between two is one, known or not
            return " ".join(
                " ".join(words) if self._known.issuperset(words) else piece
                for piece, words in zip(pieces, spelt, strict=True)
            )
        return " ".join(spelt[0]) if len(pieces) == 1 and 2 * long >= len(pieces[0]) else run.group()

    def _spelt(self, letters: str) -> list[str]:
        """The letters parted so that the fewest belong to no known word, into the fewest words, few of one letter."""
        least = [(0, 0, 0)]
        begins = [0]
        for end in range(1, len(letters) + 1):
            unknown, count, alone = least[-1]
            ways = [((unknown + 1, count + 1, alone), end - 1)]
            for start in range(max(0, end - self._longest), end):
                if letters[start:end] in self._known:
                    unknown, count, alone = least[start]
                    ways.append(((unknown, count + 1, alone + (end - start == 1)), start))
            best, begin = min(ways)
            least.append(best)
            begins.append(begin)
        words: list[str] = []
        end = len(letters)
        while end:
            words.append(letters[begins[end] : end])
            end = begins[end]
        parts = groupby(reversed(words), key=self._known.__contains__)
        return [word for known, group in parts for word in (group if known else ["".join(group)])]
