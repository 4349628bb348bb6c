"""Which known word a misspelt one stands for: the nearest by insertions, omissions, swaps and neighbours exchanged.

Knows a vocabulary and the words that only look like one of its own. Method: Garbe's symmetric deletes, with optimal
string alignment as the distance.
"""

from collections.abc import Iterable, Set
from os.path import commonprefix

_SHORTEST, _LONG = 5, 9
"""Letters of a word that may hold one error; of one that may hold two."""


class Speller:
    """Finds the known word next to an unknown one.

    Args:
        vocabulary: words to be recognised.
        real: words of the language that are never taken for a misspelling ("chess" is not "chest").
    """

    def __init__(self, vocabulary: Iterable[str], real: Set[str]) -> None:
        self._known = frozenset(vocabulary)
        self._real = real
        self._deletes: dict[str, list[str]] = {}
        for word in sorted(self._known):
            if len(word) >= _SHORTEST and word.isalpha():
                for shorter in _without(word, _errors(word)):
                    self._deletes.setdefault(shorter, []).append(word)
        # A longer one is near to none, and all that is left of a text without spaces would fill the memory.
        self._longest = max(map(len, self._known), default=0) + _errors("a" * _LONG)
        self._seen: dict[str, str] = {}

    def word(self, typed: str) -> str:
        """The known word that was meant; the typed one itself when it is known, real, short, or near to none."""
        if typed in self._known or typed in self._real or not (_SHORTEST <= len(typed) <= self._longest):
            return typed
        if not typed.isalpha():
            return typed
        if typed not in self._seen:
            if len(self._seen) > 4096:
                self._seen.clear()
            self._seen[typed] = self._nearest(typed)
        return self._seen[typed]

    def _nearest(self, typed: str) -> str:
        found: list[tuple[int, int, str]] = []
        near = {word for shorter in _without(typed, _errors(typed)) for word in self._deletes.get(shorter, ())}
        for word in near:
            allowed = min(_errors(word), _errors(typed))
            # The first letter is hardly ever wrong, and another one makes another word ("wailing", "failing").
            if word[0] == typed[0] and (apart := distance(word, typed)) <= allowed:
                # Of words as near, the one that begins alike for longest; a set has no order to choose by.
                begin = commonprefix((word, typed))  # noqa: RUF071 - letter by letter is what is wanted
                found.append((apart, -len(begin), word))
        return min(found)[2] if found else typed


def _errors(word: str) -> int:
    return 2 if len(word) >= _LONG else 1


def _without(word: str, most: int) -> set[str]:
    """The word, and what is left of it without any one letter (or two)."""
    made = {word}
    for _ in range(most):
        made |= {left[:place] + left[place + 1 :] for left in made for place in range(len(left))}
    return made


def distance(one: str, other: str) -> int:
    """Optimal string alignment: insertions, deletions, substitutions, and neighbours exchanged count 1 each."""
    before: list[int] = []
    last = list(range(len(other) + 1))
    for row, letter in enumerate(one, 1):
        here = [row]
        for column, sign in enumerate(other, 1):
            cost = min(last[column] + 1, here[-1] + 1, last[column - 1] + (letter != sign))
            if row > 1 and column > 1 and letter == other[column - 2] and one[row - 2] == sign:
                cost = min(cost, before[column - 2] + 1)
            here.append(cost)
        before, last = last, here
    return last[-1]
