"""How far a question's words as a whole lean towards an emergency or self-harm: a weighted sum beside the rules.

Knows the weights' file, fitted by scripts/fit_leaning.py. Hears what no rule foresaw; explains nothing. What the
nearest texts say (neighbours.py) is added to it.
"""

import math
from collections.abc import Callable, Mapping, Sequence, Set
from functools import lru_cache
from itertools import pairwise, product
from typing import Any

from medmind_runtime.safety.words import BREAK, SENTENCE, Word

SELF_HARM, URGENT = "self_harm", "urgent"
"""The topics that it can add."""
WEIGHED = ("trouble", "alarm", "self_harm")
"""Whether it is no everyday talk; whether it is an alarm, among texts that use the words of alarms; whether it is
self-harm, among the same."""
DOUBT = 0.05
"""What is added to the shares of the nearest texts that speak for and against."""
REACH = math.log((1 + DOUBT) / DOUBT)
"""Log-odds that the nearest texts can add or take away."""
_LAST = 400
"""Words that are looked at."""
_APART, _LENGTHS, _LETTERS = 4, (4, 8, 16, 32, 64), (4, 5)


@lru_cache(maxsize=8192)
def stem(word: str) -> str:
    """A word without its commonest endings, so that "dying" and "hurts" share a weight with their kin."""
    for ending in ("ing", "ed", "es", "s"):
        if word.endswith(ending) and len(word) - len(ending) >= 3:
            short = word[: -len(ending)]
            return short[:-1] if len(short) > 3 and short[-1] == short[-2] and short[-1] not in "ls" else short
    return word


def signs(words: Sequence[Word], concepts: Mapping[str, Sequence[str]]) -> set[str]:
    """What carries weight in a text.

    Stems; pairs of neighbours ("a b") and of stems up to four apart ("a ~ b"); how the text begins ("^ a b c"); four
    and five letters in a row of a word, its ends marked ("-^chok"); the lexicon's lists ("<list>"); "> 16" for more
    words than that.

    Args:
        words: as `words.split` gives them.
        concepts: of a word, the names of the lists it stands in.
    """
    said = [word for word in words[:_LAST] if word.text not in (BREAK, SENTENCE)]
    stems = ["#" if word.value is not None or word.text[0].isdigit() else stem(word.text) for word in said]
    found = set(stems)
    found.update(map(" ".join, pairwise(stems)))
    for gap in range(2, _APART + 1):
        found.update(map(" ~ ".join, zip(stems, stems[gap:], strict=False)))
    found.update("^ " + " ".join(stems[:count]) for count in range(1, 4))
    found.update(f"> {count}" for count in _LENGTHS if len(said) > count)
    for text in {word.text for word in said}:
        found.update(f"<{name}>" for name in concepts.get(text, ()))
        found.update(_letters(text))
    return found


@lru_cache(maxsize=8192)
def _letters(word: str) -> tuple[str, ...]:
    marked = f"^{word}$"
    return tuple("-" + marked[at : at + length] for length in _LETTERS for at in range(len(marked) - length + 1))


def concepts(lists: Mapping[str, Sequence[str]]) -> dict[str, list[str]]:
    """The lists that each single word of the lexicon stands in."""
    names: dict[str, list[str]] = {}
    for name, phrases in lists.items():
        for word in {form for phrase in phrases if " " not in phrase for form in phrase.replace("~", "").split("|")}:
            if word.isalpha():
                names.setdefault(word, []).append(name)
    return names


class Leaning:
    """The weights.

    Args:
        weights: the contents of leaning.json.
    """

    def __init__(self, weights: Mapping[str, Any]) -> None:
        self._weights: dict[str, Sequence[float]] = weights["weights"]
        self._start: Sequence[float] = weights["start"]
        self._bounds: Sequence[float] = [weights["bounds"][name] for name in WEIGHED]
        self._quiet: float = weights["bounds"]["quiet"]

    def judged(
        self,
        found: Set[str],
        topics: Set[str],
        sure: Set[str],
        more: float = 0.0,
        alike: Callable[[], Sequence[float]] | None = None,
    ) -> set[str]:
        """The topics, with those that the words as a whole add, or the sure ones where they lean to nothing at all.

        Args:
            found: what `signs` gives, with the topics' own signs.
            topics: what the rules raised.
            sure: those of them that the words as a whole cannot take back.
            more: log-odds by which every bound is higher.
            alike: gives what the nearest texts add to the log-odds of each of `WEIGHED`; asked only where that may
                change something.
        """
        known = [self._weights[sign] for sign in found & self._weights.keys()]
        odds = [  # exact, in whatever order a set is
            start - more + math.fsum(weights[place] for weights in known) for place, start in enumerate(self._start)
        ]
        heard = self._heard(odds, topics, sure)
        if alike is not None and self._open(odds, topics, sure, heard):
            heard = self._heard([one + other for one, other in zip(odds, alike(), strict=True)], topics, sure)
        return heard

    def _open(self, odds: Sequence[float], topics: Set[str], sure: Set[str], heard: Set[str]) -> bool:
        """Whether the neighbours may change what is heard: what every combination of their utmost says."""
        return any(
            self._heard([one + other for one, other in zip(odds, utmost, strict=True)], topics, sure) != heard
            for utmost in product((-REACH, REACH), repeat=len(WEIGHED))
        )

    def _heard(self, odds: Sequence[float], topics: Set[str], sure: Set[str]) -> set[str]:
        trouble, alarm, harm = (one > bound for one, bound in zip(odds, self._bounds, strict=True))
        heard = set(topics if odds[1] > self._quiet else sure)
        if trouble and alarm and harm:
            heard.add(SELF_HARM)
        if trouble and alarm and not heard:
            heard.add(URGENT)
        return heard


def own_signs(topics: Set[str]) -> set[str]:
    """The rules' word, as signs beside the others."""
    return ({"[self_harm]"} if SELF_HARM in topics else set()) | ({"[emergency]"} if topics - {SELF_HARM} else set())
