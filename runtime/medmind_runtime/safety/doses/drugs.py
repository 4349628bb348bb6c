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
    single = word.removesuffix("'s").removesuffix("s") if len(word) > 4 else word
    return terms().same.get(single, single)
