"""For how many words a stream is held back after one: while a dose may go on, or its drug may yet be named.

Knows single words, remembered: a stream has most of them many times. Knows not what is shown.
"""

from functools import lru_cache
from typing import NamedTuple

from medmind_runtime.safety.doses import amounts, often, other_numbers
from medmind_runtime.safety.doses.drugs import is_drug
from medmind_runtime.safety.doses.reading import Token, of_word
from medmind_runtime.safety.doses.terms import terms

SETTLED, _ARTICLE = 7, 5
"""Words without a number after which a dose is complete; after `a` and the like."""
FAR = 24
"""Words that are held of a sentence with a number of no drug, until one is named."""
_NOTHING = Token("", 0, 0)


class Bare(NamedTuple):
    """Whether a word ends with a number that is no year, or with one and a comma."""

    ending: bool
    with_comma: bool


@lru_cache(1 << 13)
def adds(word: str) -> bool:
    """Whether another dose may follow that is taken with the one before."""
    return any(token.text in terms().summing.holding for token in of_word(word))


@lru_cache(1 << 13)
def is_much(word: str) -> bool:
    """Whether it is the `many` of `as many as you like`."""
    return not terms().limitless.much.isdisjoint(token.text for token in of_word(word))


@lru_cache(1 << 13)
def bare(word: str) -> Bare:
    """Which number it ends with, if any."""
    row = of_word(word)
    comma = len(row) > 1 and row[-1].text == ","
    last = row[-1 - comma] if row else _NOTHING
    number = last.value is not None or (last.text != "one" and terms().is_number(last.text))
    number = number and not amounts.is_year(last.value)
    return Bare(number and not comma, number and comma)


@lru_cache(1 << 13)
def counts_nothing(word: str) -> bool:
    """Whether a number before it is none of it."""
    first, *_ = of_word(word) or (_NOTHING,)
    return first.text in terms().beside.plain - terms().beside.counted


@lru_cache(1 << 13)
def names_or_ends(word: str) -> bool:
    """Whether a drug is named, or a sentence ends."""
    return any(token.text == "." or is_drug(token) for token in of_word(word))


@lru_cache(1 << 13)
def words_after(word: str) -> int:
    """For how many words a dose may go on after this one."""
    known, row = terms(), of_word(word)
    most = 0
    for at, token in enumerate(row):
        text = token.text
        begins = often.begins(token) or other_numbers.may_be(token)
        if begins or text in known.first_pieces:
            most = max(most, _ARTICLE)
        if (
            token.value is not None
            or text in known.beside.all - {"every"}
            or text in known.beside.vague
            or text in known.multiplying.words
            or text in known.heaps
            or (text in known.limitless_begins and text not in known.limitless.much)
            or amounts.is_number(row, at)
        ):
            most = SETTLED
    return most
