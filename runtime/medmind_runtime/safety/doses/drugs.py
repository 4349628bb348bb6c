"""Which words of a text are drugs' names. Knows no doses."""

from collections.abc import Iterable
from functools import lru_cache

from medmind_runtime.safety.doses.reading import Token
from medmind_runtime.safety.doses.terms import terms


def is_drug(token: Token) -> bool:
    """Whether it looks like a drug's name."""
    return token.is_word and terms().is_drug(token.text)


def drugs(row: Iterable[Token]) -> frozenset[str]:
    """All that look so, each by its stem."""
    return frozenset(stem(token.text) for token in row if is_drug(token))


@lru_cache(1 << 14)
def stem(word: str) -> str:
    """A drug's name without the plural; one for all names of a vaccine."""
    same = terms().same
    return _single(same.get(word) or same.get(_single(word)) or word)


def _single(word: str) -> str:
    if len(word) <= 4:
        return word
    return word.removesuffix("es") if word.endswith("xes") else word.removesuffix("'s").removesuffix("s")


def against(names: frozenset[str]) -> frozenset[str]:
    """What the vaccines among some names are against: the measles vaccine is one of the MMR's names."""
    together = terms().together
    found = names & together.keys()
    return frozenset({"vaccine", *(stem(word) for name in found for word in together[name])}) if found else frozenset()
