"""Words that are numbers beside a unit alone: Roman ones, and those of other languages that a model drifts into.

Knows the one word before or after them, and how several are one number. Their values are in doses.toml.
"""

import re
from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction
from functools import lru_cache
from itertools import takewhile

from medmind_runtime.safety.doses.drugs import is_drug
from medmind_runtime.safety.doses.reading import Token
from medmind_runtime.safety.doses.terms import terms

_ROMAN = re.compile(r"(?=.)M{0,3}(?:CM|CD|D?C{0,3})(?:XC|XL|L?X{0,3})(?:IX|IV|V?I{0,3})|i{2,3}|i?[vx]|[vx]i{1,3}")
_VALUES = {"I": 1, "V": 5, "X": 10, "L": 50, "C": 100, "D": 500, "M": 1000}
_DIGITS = frozenset("IVXLCDMivx")
_TWENTY, _HUNDRED, _THOUSAND = 20, 100, 1000
_SHORTEST, _AHEAD, _FEW, _IN_A_VEIN = 2, 5, frozenset("IVX"), "IV"
"""Letters of the number of a drug; tokens from it to what it counts; letters of small ones; what is none of them."""
_MASSES = frozenset(["mg", "mcg"])
"""Units before which `cent` and `mille` are numbers."""
_LETTERS_THAT_ARE_NAMES = frozenset("CDLMvx")
"""Of vitamins and the like; `x` is a sign."""


def may_be(token: Token) -> bool:
    """Whether a unit beside a word would make it a number."""
    return token.is_word and _value(token.written) is not None


def in_digits(row: Sequence[Token]) -> Sequence[Token]:
    """The tokens with such words as numbers; as many, in the same places. Each word of one number has all of it."""
    made = list(row)
    for at, token in enumerate(row):
        if token.is_word and (value := _value(token.written)) is not None and _counts(row, at):
            first = _first_of_run(row, at)
            value = _of_run(row[first : at + 1]) if first < at else value
            for place in range(first, at + 1):
                number = _value(row[place].written) is not None
                text, own = (str(value), value) if number else ("-", None)
                made[place] = replace(row[place], text=text, value=own, glued=number and place > first)
    return made


def _first_of_run(row: Sequence[Token], at: int) -> int:
    """Where `quatre-vingt-dix`, `ochenta y cinco` begin, of which the last word is known."""
    known = terms()
    while at:
        place = at - 1 - (at > 1 and row[at - 1].text in known.foreign.between)
        if row[at].text not in known.numbers_abroad or row[place].text not in known.numbers_abroad:
            break
        at = place
    return at


def _of_run(row: Sequence[Token]) -> Fraction:
    """What the words of one number make."""
    known = terms()
    whole = part = Fraction(0)
    before = ""
    for token in row:
        value = known.numbers_abroad.get(token.text)
        if value is None:
            continue
        if value == _THOUSAND:
            whole, part = whole + (part or 1) * value, Fraction(0)
        elif value == _HUNDRED:
            part = (part or 1) * value
        elif value == _TWENTY and before in known.foreign.of_twenties:
            part += known.numbers_abroad[before] * (value - 1)
        else:
            part += value
        before = token.text
    return whole + part


@lru_cache(1 << 13)
def _value(written: str) -> Fraction | None:
    known = terms()
    text = written.lower()
    if (abroad := known.numbers_abroad.get(text)) is not None:
        return abroad
    if written[:1] not in _DIGITS or len(written) > 12 or not _ROMAN.fullmatch(written):
        return None
    if written in _LETTERS_THAT_ARE_NAMES or text in known.foreign.no_romans:
        return None
    digits = [_VALUES[letter] for letter in written.upper()]
    following = [*digits[1:], 0]
    return Fraction(sum(-one if one < other else one for one, other in zip(digits, following, strict=True)))


def _counts(row: Sequence[Token], at: int) -> bool:
    known = terms()
    if at and row[at - 1].text in known.beside.numbered:
        return False
    ahead = [token.text for token in row[at + 1 : at + 4]]
    found = known.unit(ahead, 0) if ahead else None
    if found and ahead[0] in known.units_abroad:
        return True
    if row[at].text in known.foreign.ambiguous:
        return found is not None and (found[0].spelt in _MASSES or _first_of_run(row, at) < at)
    counted = found is not None and (
        found[0].kind in {"", "form", "household"} or found[0].spelt in known.unit_lists.dosed_alone
    )
    if counted and ahead[0] not in known.foreign.no_roman_units:
        return len(ahead[0]) > 1 or row[at + 1].written.islower()
    if _of_drug_ahead(row, at):
        return True
    before = known.unit([row[at - 1].text], 0) if at else None
    return before is not None and before[0].kind == "form" and row[at].written.islower()


def _of_drug_ahead(row: Sequence[Token], at: int) -> bool:
    """`VI ibuprofen tablets`, `take XII aspirins`; `IV morphine` and `take vitamin D` are none."""
    known, written = terms(), row[at].written
    if len(written) < _SHORTEST or not _FEW.issuperset(written.upper()):
        return False
    ahead = row[at + 1 : at + _AHEAD]
    between = list(takewhile(lambda token: token.text in known.before_unit or is_drug(token), ahead))
    drug, following = any(map(is_drug, between)), row[at + 1 + len(between) : at + 2 + len(between)]
    found = known.unit([following[0].text], 0) if following else None
    if drug and found and found[0].spelt in known.unit_lists.pieces:
        return True
    told = at == 0 or row[at - 1].text in known.beside.taking | known.beside.having
    return drug and told and written.isupper() and written != _IN_A_VEIN
