"""Words that are numbers beside a unit alone: Roman ones, and those of other languages that a model drifts into.

Knows the one word before or after them. Their values are in doses.toml.
"""

import re
from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction
from functools import lru_cache

from medmind_runtime.safety.doses.reading import Token
from medmind_runtime.safety.doses.terms import terms

_ROMAN = re.compile(r"(?=.)M{0,3}(?:CM|CD|D?C{0,3})(?:XC|XL|L?X{0,3})(?:IX|IV|V?I{0,3})|i{2,3}|i?[vx]|[vx]i{1,3}")
_VALUES = {"I": 1, "V": 5, "X": 10, "L": 50, "C": 100, "D": 500, "M": 1000}
_DIGITS = frozenset("IVXLCDMivx")
_LETTERS_THAT_ARE_NAMES = frozenset("CDLMvx")
"""Of vitamins and the like; `x` is a sign."""


def may_be(token: Token) -> bool:
    """Whether a unit beside a word would make it a number."""
    return token.is_word and _value(token.written) is not None


def in_digits(row: Sequence[Token]) -> Sequence[Token]:
    """The tokens with such words as numbers; as many, in the same places."""
    made = list(row)
    for at, token in enumerate(row):
        if token.is_word and (value := _value(token.written)) is not None and _counts(row, at):
            made[at] = replace(token, text=str(value), value=value, glued=False)
    return made


@lru_cache(1 << 13)
def _value(written: str) -> Fraction | None:
    known = terms()
    text = written.lower()
    if (abroad := known.numbers_abroad.get(text)) is not None:
        return abroad
    if written[:1] not in _DIGITS or len(written) > 12 or not _ROMAN.fullmatch(written):
        return None
    if written in _LETTERS_THAT_ARE_NAMES or text in known.beside.no_romans:
        return None
    digits = [_VALUES[letter] for letter in written.upper()]
    following = [*digits[1:], 0]
    return Fraction(sum(-one if one < other else one for one, other in zip(digits, following, strict=True)))


def _counts(row: Sequence[Token], at: int) -> bool:
    known = terms()
    if at and row[at - 1].text in known.beside.labels:
        return False
    ahead = [token.text for token in row[at + 1 : at + 4]]
    found = known.unit(ahead, 0) if ahead else None
    if found and ahead[0] in known.units_abroad:
        return True
    if row[at].text in known.beside.ambiguous:
        return False
    if found and found[0].kind in {"", "form", "household"} and ahead[0] not in known.beside.no_roman_units:
        return len(ahead[0]) > 1 or row[at + 1].written.islower()
    before = known.unit([row[at - 1].text], 0) if at else None
    return before is not None and before[0].kind == "form" and row[at].written.islower()
