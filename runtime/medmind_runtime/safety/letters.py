"""Words typed letter by letter, "d i e": joined where the letters spell known words, left as they are otherwise.

Knows a vocabulary, and no meaning.
"""

import re
from collections.abc import Iterable

_RUN = re.compile(r"(?<!\S)[^\W\d_](?:[^\S\n]+[^\W\d_]){2,}(?![^\s.,;:!?])")
"""Three single letters or more, with nothing but spaces between them."""
_ALONE = frozenset("ai")
_SHORT = 2
"""Letters of words that a name of letters may hold by chance ("vitamins a b e"): a run spells a longer one, too."""


class Letters:
    """Reads runs of single letters.

    Args:
        vocabulary: words that they may spell, in lower case.
    """

    def __init__(self, vocabulary: Iterable[str]) -> None:
        self._known = _ALONE | {word for word in vocabulary if len(word) > 1 and word.isalpha()}
        self._longest = max(map(len, self._known))

    def joined(self, text: str) -> str:
        """A plain text whose runs of single letters are the fewest words that they spell."""
        return _RUN.sub(self._read, text)

    def _read(self, run: re.Match[str]) -> str:
        words = self._spelt("".join(run.group().split()))
        return " ".join(words) if any(len(word) > _SHORT for word in words) else run.group()

    def _spelt(self, letters: str) -> list[str]:
        """The fewest known words one after the other that are these letters; none where there are no such words."""
        fewest: list[int | None] = [0]
        begins = [0]
        for end in range(1, len(letters) + 1):
            ways = [
                (before + 1, start)
                for start in range(max(0, end - self._longest), end)
                if (before := fewest[start]) is not None and letters[start:end] in self._known
            ]
            count, begin = min(ways, default=(None, 0))
            fewest.append(count)
            begins.append(begin)
        words: list[str] = []
        end = len(letters) if fewest[-1] else 0
        while end:
            words.append(letters[begins[end] : end])
            end = begins[end]
        return words[::-1]
