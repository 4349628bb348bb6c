"""Numbers between bounds, as JSON writes them, as choices of a grammar.

Knows decimal digits; no schema. What is described may be fewer numbers than there are, never one outside the bounds.
"""

import math
from collections.abc import Iterator
from fractions import Fraction

from medmind_runtime.schema.gbnf import Characters, Literal, Part, Sequenced, sequence

LARGEST = 10**15 - 1
"""Of what is not bounded: whole numbers up to here are exact in every reader."""
_PLACES = 15
"""Digits of a number that a reader's floating point keeps apart."""


def whole(low: int, high: int) -> list[Sequenced]:
    """The whole numbers from `low` to `high`, both included; empty where there are none."""
    choices: list[Sequenced] = []
    if low < 0:
        choices += [sequence(Literal("-"), *digits) for digits in _natural(max(1, -high), -low)]
    if high >= 0:
        choices += _natural(max(0, low), high)
    return choices


def real(low: Fraction, high: Fraction, *, low_open: bool, high_open: bool) -> list[Sequenced]:
    """Numbers from `low` to `high` without an exponent; an open bound is itself left out.

    The bounds must be finite decimals, as JSON writes them.
    """
    choices: list[Sequenced] = []
    if low < 0:
        magnitudes = _magnitudes(max(Fraction(0), -high), -low, high_open and high <= 0, low_open)
        choices += [sequence(Literal("-"), *magnitude) for magnitude in magnitudes]
    if high >= 0:
        choices += _magnitudes(max(Fraction(0), low), high, low_open and low >= 0, high_open)
    return choices


def _natural(low: int, high: int) -> Iterator[Sequenced]:
    while low <= high:
        top = min(high, 10 ** len(str(low)) - 1)
        yield from _same_length(str(low), str(top))
        low = top + 1


def _same_length(low: str, high: str) -> Iterator[Sequenced]:
    """Digit strings between two of the same length."""
    if not low:
        yield ()
    elif set(low[1:]) <= {"0"} and set(high[1:]) <= {"9"}:
        yield sequence(_digits(low[0], high[0]), _any_digits(len(low) - 1, len(low) - 1))
    elif low[0] == high[0]:
        for rest in _same_length(low[1:], high[1:]):
            yield sequence(Literal(low[0]), *rest)
    else:
        nines, zeros = "9" * (len(low) - 1), "0" * (len(low) - 1)
        first, last = int(low[0]), int(high[0])
        if low[1:] != zeros:
            yield from _same_length(low, low[0] + nines)
            first += 1
        if high[1:] != nines:
            last -= 1
        if first <= last:
            yield from _same_length(str(first) + zeros, str(last) + nines)
        if high[1:] != nines:
            yield from _same_length(high[0] + zeros, high)


def _magnitudes(low: Fraction, high: Fraction, low_open: bool, high_open: bool) -> Iterator[Sequenced]:
    """Numbers of no sign."""
    if low > high or (low == high and (low_open or high_open)):
        return
    if low == high:
        yield sequence(Literal(_decimal(low)))
        return
    below, above = math.floor(low), math.floor(high)
    from_, to = _fraction(low - below), _fraction(high - above)
    if below == above:
        for fraction in _between(from_, to, low_open, high_open):
            yield sequence(Literal(f"{below}."), *fraction)
        if not from_ and not low_open:
            yield sequence(Literal(str(below)))
        return
    if from_ or low_open:
        for fraction in _at_least(from_, low_open):
            yield sequence(Literal(f"{below}."), *fraction)
        below += 1
    for digits in _natural(below, above - 1):
        yield digits
        yield sequence(*digits, Literal("."), _any_digits(1, max(1, _PLACES - len(str(above)))))
    if to:
        yield sequence(Literal(str(above)))
        for fraction in _at_most(to, high_open):
            yield sequence(Literal(f"{above}."), *fraction)
    elif not high_open:
        yield sequence(Literal(str(above)))
        yield sequence(Literal(f"{above}.0"))


def _fraction(part: Fraction) -> str:
    """The digits behind the point, without zeros at their end."""
    return _decimal(part)[2:] if part else ""


def _decimal(value: Fraction) -> str:
    """A decimal written out; exact, since it comes from one."""
    places = 0
    while (value * 10**places).denominator != 1:
        places += 1
    digits = str(value.numerator * 10**places // value.denominator).rjust(places + 1, "0")
    return f"{digits[:-places]}.{digits[-places:]}" if places else digits


def _at_least(digits: str, without: bool) -> Iterator[Sequenced]:
    """Fractions from one on, maybe without itself."""
    for place, digit in enumerate(digits):
        if digit != "9":
            yield sequence(Literal(digits[:place]), _digits(str(int(digit) + 1), "9"), *_tail(place + 1))
    if without:
        yield sequence(Literal(digits), Part(_digits("0", "0"), 0, 3), _digits("1", "9"), *_tail(len(digits) + 4))
    else:
        yield sequence(Literal(digits or "0"), *_tail(len(digits or "0")))


def _at_most(digits: str, without: bool) -> Iterator[Sequenced]:
    """Fractions up to one, which is not 0, maybe without itself."""
    for place, digit in enumerate(digits):
        if digit != "0":
            yield sequence(Literal(digits[:place]), _digits("0", str(int(digit) - 1)), *_tail(place + 1))
    if not without:
        yield sequence(Literal(digits))


def _between(low: str, high: str, low_open: bool, high_open: bool) -> Iterator[Sequenced]:
    """Fractions from one to a larger one."""
    size = max(len(low), len(high))
    low, high = low.ljust(size, "0"), high.ljust(size, "0")
    common = next(place for place in range(size) if low[place] != high[place])
    start, first, last = low[:common], low[common], high[common]
    for rest in _at_least(low[common + 1 :].rstrip("0"), low_open):
        yield sequence(Literal(start + first), *rest)
    if int(first) + 1 < int(last):
        yield sequence(Literal(start), _digits(str(int(first) + 1), str(int(last) - 1)), *_tail(common + 1))
    if left := high[common + 1 :].rstrip("0"):
        for rest in _at_most(left, high_open):
            yield sequence(Literal(start + last), *rest)
    elif not high_open:
        yield sequence(Literal(start + last))


def _tail(used: int) -> Sequenced:
    """More digits, as many as keep the number apart from its neighbours."""
    return sequence(_any_digits(0, max(0, _PLACES - used)))


def _digits(first: str, last: str) -> Characters:
    return Characters(((ord(first), ord(last)),))


def _any_digits(least: int, most: int) -> Part:
    return Part(_digits("0", "9"), least, most)
